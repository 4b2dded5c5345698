//! Tests of the tables: golden bits, every error, and random histories against a map of pages.

use std::{collections::BTreeMap, vec::Vec};

use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{
    Access, Attributes, Leaves, Mapping, MemoryType, S2Config, Shareability, Stage2, Stage2Error, TableMemory,
    best_input_bits, tables_for, tables_for_leaves,
};
use crate::{
    addr::{AddrRange, BLOCK_1G, BLOCK_2M, Ipa, PhysAddr},
    ids::Vmid,
};

/// Tables in a map; refuses to give more than `limit`, and watches the order of stores.
struct Pages {
    tables: BTreeMap<u64, [u64; 512]>,
    next: u64,
    limit: usize,
}

impl Pages {
    fn new(limit: usize) -> Self {
        Self { tables: BTreeMap::new(), next: 0x8000_0000, limit }
    }
}

impl TableMemory for Pages {
    fn read(&self, table: PhysAddr, index: usize) -> u64 {
        self.tables[&table.as_u64()][index]
    }

    fn write(&mut self, table: PhysAddr, index: usize, descriptor: u64) {
        let slot = &mut self.tables.get_mut(&table.as_u64()).expect("a live table")[index];
        assert!(*slot & 1 == 0 || descriptor & 1 == 0, "valid {slot:#x} became valid {descriptor:#x}");
        *slot = descriptor;
    }

    fn alloc(&mut self) -> Option<PhysAddr> {
        if self.tables.len() == self.limit {
            return None;
        }
        self.next += 4096;
        self.tables.insert(self.next, [0; 512]);
        Some(PhysAddr::new(self.next))
    }

    fn alloc_root(&mut self, pages: u64) -> Option<PhysAddr> {
        let root = self.next.next_multiple_of(pages * 4096);
        for page in 0..pages {
            self.next = root + page * 4096 - 4096;
            self.alloc()?;
        }
        self.next += 4096;
        Some(PhysAddr::new(root))
    }

    fn free(&mut self, table: PhysAddr) {
        self.tables.remove(&table.as_u64()).expect("freed once");
    }
}

fn range(start: u64, size_bytes: u64) -> AddrRange<Ipa> {
    AddrRange::new(Ipa::new(start), size_bytes).expect("a range")
}

fn tree(memory: &mut Pages) -> Stage2 {
    tree_of(memory, 39)
}

fn tree_of(memory: &mut Pages, bits: u8) -> Stage2 {
    Stage2::new(memory, bits).expect("a root")
}

/// Each bit as DDI 0487 D8.3.2 places it, written out by hand.
#[test]
fn descriptors_have_the_specified_bits() {
    let mut memory = Pages::new(9);
    let mut stage2 = tree(&mut memory);
    let gib = range(0x4000_0000, BLOCK_1G);
    stage2.map(&mut memory, gib, PhysAddr::new(0x1_8000_0000), Attributes::RAM).expect("mapped");
    let block = memory.read(stage2.root(), 1);
    assert_eq!(block, 0x1_8000_0000 | 1 << 10 | 0b11 << 8 | 0b11 << 6 | 0b1111 << 2 | 0b01);
    let page = range(0x2000_0000, 4096);
    stage2.map(&mut memory, page, PhysAddr::new(0x1000_3000), Attributes::DEVICE).expect("mapped");
    let level2 = memory.read(stage2.root(), 0);
    assert_eq!(level2 & 0xfff, 0b11);
    let level3 = memory.read(PhysAddr::new(level2 & !0xfff), 256);
    let leaf = memory.read(PhysAddr::new(level3 & !0xfff), 0);
    assert_eq!(leaf, 1 << 54 | 0x1000_3000 | 1 << 10 | 0b10 << 8 | 0b11 << 6 | 0b0001 << 2 | 0b11);
}

/// QEMU's 39-bit case by hand: T0SZ 25, SL0 1, write-back inner-shareable walks, 44 bits out.
#[test]
fn walk_fields_match_vtcr_and_ste() {
    let mut memory = Pages::new(1);
    let stage2 = tree(&mut memory).with_output_bits(44);
    let config = S2Config::of(&stage2, Vmid::new(3).expect("not zero"));
    assert_eq!(config.walk_fields(), 4 << 16 | 3 << 12 | 1 << 10 | 1 << 8 | 1 << 6 | 25);
    assert_eq!(config.vtcr_el2(true), 1 << 31 | 1 << 19 | u64::from(config.walk_fields()));
    assert_eq!(config.vtcr_el2(false), 1 << 31 | u64::from(config.walk_fields()));
    assert_eq!(config.vttbr_el2(), 3 << 48 | stage2.root().as_u64());
    for (bits, encoding) in [(32, 0), (36, 1), (40, 2), (42, 3), (43, 3), (44, 4), (48, 5)] {
        let fields = S2Config { output_bits: bits, ..config }.walk_fields();
        assert_eq!(fields >> 16, encoding, "{bits} bits");
    }
}

/// Would miss: concatenated tables indexed as one table, a root not aligned to its size, SL0 of the wrong level.
#[test]
fn up_to_34_bits_the_root_is_concatenated_tables() {
    for bits in 31..=34_u8 {
        let mut memory = Pages::new(20);
        memory.next += 4096;
        let mut stage2 = Stage2::new(&mut memory, bits).expect("a root");
        let pages = 1 << (bits - 30);
        assert_eq!((memory.tables.len() as u64, stage2.root().as_u64() % (pages * 4096)), (pages, 0));
        let config = S2Config::of(&stage2, Vmid::new(3).expect("not zero"));
        assert_eq!(config.walk_fields() & 0xff, u32::from(64 - bits));
        let last = range((1 << bits) - BLOCK_1G - BLOCK_2M, BLOCK_1G + BLOCK_2M);
        stage2.map(&mut memory, last, PhysAddr::new(BLOCK_2M), Attributes::RAM).expect("mapped without a table");
        let table = PhysAddr::new(stage2.root().as_u64() + (pages - 1) * 4096);
        assert_eq!(memory.read(table, 511) & 0xffff_ffff_f000, BLOCK_1G + BLOCK_2M);
        assert_eq!(stage2.query(&memory, Ipa::new((1 << bits) - 1)).expect("mapped").block_bytes, BLOCK_2M);
        stage2.map(&mut memory, range(0x3000, 4096), PhysAddr::new(0), Attributes::RAM).unwrap_or(());
        stage2.clear(&mut memory);
        assert_eq!(memory.tables.len() as u64, pages);
        assert!(memory.tables.values().flatten().all(|descriptor| *descriptor == 0));
        stage2.destroy(&mut memory);
        assert!(memory.tables.is_empty());
    }
}

/// Would miss: a short walk bought with a GiB's block, or bits that do not reach the end.
#[test]
fn walks_are_as_short_as_they_can_be() {
    let bits = |start, size, phys| best_input_bits(range(start, size), PhysAddr::new(phys), 39, Leaves::Blocks);
    assert_eq!(bits(BLOCK_1G, BLOCK_1G - BLOCK_2M, 0), 31);
    assert_eq!(bits(BLOCK_1G, BLOCK_1G, BLOCK_2M), 31);
    assert_eq!(bits(BLOCK_1G, BLOCK_1G + BLOCK_2M, BLOCK_2M), 32);
    assert_eq!(bits(BLOCK_1G, BLOCK_1G, BLOCK_1G), 39);
    assert_eq!(bits(1 << 34, BLOCK_2M, 0), 39);
    assert_eq!(bits((1 << 34) - BLOCK_2M, BLOCK_2M, 0), 34);
}

#[test]
fn uses_the_largest_blocks() {
    let mut memory = Pages::new(9);
    let mut stage2 = tree(&mut memory);
    // 2 MiB short of 1 GiB, then 1 GiB, then 4 KiB: no table for the middle.
    let whole = range(0x4020_0000, BLOCK_1G - BLOCK_2M + BLOCK_1G + 4096);
    let phys = PhysAddr::new(0x2_0020_0000);
    assert_eq!(tables_for_leaves(whole, phys, Leaves::Blocks), 3);
    stage2.map(&mut memory, whole, phys, Attributes::RAM).expect("mapped");
    let found = |ipa: u64| stage2.query(&memory, Ipa::new(ipa)).expect("mapped").block_bytes;
    assert_eq!((found(0x4020_0000), found(0x8000_0000), found(0xc000_0fff)), (BLOCK_2M, BLOCK_1G, 4096));
    assert_eq!(memory.tables.len(), 4);
    // By pages alone: a table for each 2 MiB that is touched.
    let mut memory = Pages::new(1100);
    let mut stage2 = tree(&mut memory).with_leaves(Leaves::Pages);
    assert_eq!(tables_for_leaves(whole, phys, Leaves::Pages), 3 + 511 + 512 + 1);
    stage2.map(&mut memory, whole, phys, Attributes::RAM).expect("mapped");
    assert_eq!(stage2.query(&memory, Ipa::new(0x8000_0000)).expect("mapped").block_bytes, 4096);
    assert_eq!(memory.tables.len(), 1 + 3 + 511 + 512 + 1);
    // Output off by a page: pages throughout.
    let mut stage2 = tree(&mut memory);
    stage2.map(&mut memory, range(0, BLOCK_2M), PhysAddr::new(0x1000), Attributes::RAM).expect("mapped");
    assert_eq!(stage2.query(&memory, Ipa::new(0)).expect("mapped").block_bytes, 4096);
}

#[test]
fn refuses_what_is_wrong_and_changes_nothing() {
    let mut memory = Pages::new(3);
    for bits in [0, 30, 40, 64, 255] {
        assert_eq!(Stage2::<Ipa>::new(&mut memory, bits).expect_err("bits"), Stage2Error::BadInputBits(bits));
    }
    let mut stage2 = tree(&mut memory).with_output_bits(40);
    stage2.map(&mut memory, range(0, BLOCK_1G), PhysAddr::new(0), Attributes::RAM).expect("mapped");
    stage2.map(&mut memory, range(BLOCK_1G, BLOCK_2M), PhysAddr::new(0), Attributes::RAM).expect("mapped");
    let before = memory.tables.clone();
    let mut map = |start, size, phys| stage2.map(&mut memory, range(start, size), PhysAddr::new(phys), Attributes::RAM);
    assert!(matches!(map(0x8000_0800, 4096, 0), Err(Stage2Error::Unaligned { .. })));
    assert!(matches!(map(0x8000_0000, 4095, 0), Err(Stage2Error::Unaligned { .. })));
    assert!(matches!(map(0x8000_0000, 4096, 8), Err(Stage2Error::Unaligned { .. })));
    assert!(matches!(map((1 << 39) - 4096, 8192, 0), Err(Stage2Error::InputTooWide { .. })));
    assert!(matches!(map(0x8000_0000, 8192, (1 << 40) - 4096), Err(Stage2Error::OutputTooWide { .. })));
    assert!(matches!(map(0x8000_0000, 4096, !0xfff), Err(Stage2Error::OutputTooWide { .. })));
    assert_eq!(map(0x1000, 4096, 0), Err(Stage2Error::AlreadyMapped(0x1000)));
    // The hole comes first, the conflict last.
    let over_end = map(2 * BLOCK_1G - BLOCK_2M, BLOCK_1G + BLOCK_2M, 0);
    assert_eq!(over_end, Ok(()));
    let before_unmap = memory.tables.clone();
    assert_ne!(before, before_unmap);
    let mut unmap = |start, size| stage2.unmap(&mut memory, range(start, size));
    assert_eq!(unmap(0, BLOCK_2M), Err(Stage2Error::SplitsBlock { input: 0, block_bytes: BLOCK_1G }));
    let into = Stage2Error::SplitsBlock { input: BLOCK_1G, block_bytes: BLOCK_2M };
    assert_eq!(unmap(0, BLOCK_1G + 4096), Err(into));
    assert_eq!(unmap(BLOCK_1G, 2 * BLOCK_2M), Err(Stage2Error::NotMapped(BLOCK_1G + BLOCK_2M)));
    assert_eq!(memory.tables, before_unmap);
    // One table of the three that a page in an empty GiB and its neighbour need is left.
    let mut memory = Pages::new(4);
    let mut stage2 = tree(&mut memory);
    let needed = stage2.map(&mut memory, range(BLOCK_1G - 4096, 8192), PhysAddr::new(0), Attributes::RAM);
    assert_eq!(needed, Err(Stage2Error::OutOfTables { needed: 4 }));
    assert_eq!(memory.tables.len(), 1);
    stage2.map(&mut memory, range(0, 4096), PhysAddr::new(0), Attributes::RAM).expect("room for it");
    stage2.destroy(&mut memory);
    assert!(memory.tables.is_empty());
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let memory =
        prop_oneof![proptest::strategy::Just(MemoryType::Normal), proptest::strategy::Just(MemoryType::Device)];
    (memory, 0_u8..8, 0_u8..3).prop_map(|(memory, access, shareability)| Attributes {
        memory,
        access: Access::from_bits_truncate(access),
        shareability: [Shareability::None, Shareability::Outer, Shareability::Inner][usize::from(shareability)],
    })
}

/// Sizes and places in pages around the block boundaries of the first 6 MiB of three GiB.
fn place() -> impl Strategy<Value = u64> {
    (0_u64..3, prop_oneof![0_u64..4, 510_u64..515, 1022_u64..1027, 0x3fffe_u64..0x40002])
        .prop_map(|(gib, page)| gib << 18 | page)
}

proptest! {
    /// Any history of map and unmap: the tree answers as a map of pages does, also after an error.
    #[test]
    fn agrees_with_a_map_of_pages(
        leaves in prop_oneof![proptest::strategy::Just(Leaves::Blocks), proptest::strategy::Just(Leaves::Pages)],
        steps in proptest::collection::vec(
            (any::<bool>(), place(), prop_oneof![1_u64..4, 510_u64..1030], 0_u64..2048, any::<bool>(), attributes()), 1..12),
        bits in prop_oneof![proptest::strategy::Just(39_u8), proptest::strategy::Just(32_u8)],
    ) {
        let mut memory = Pages::new(14);
        let mut stage2 = tree_of(&mut memory, bits).with_leaves(leaves);
        let mut model: BTreeMap<u64, (u64, Attributes)> = BTreeMap::new();
        for (is_map, first, count, phys, is_like, attributes) in steps {
            let bytes = range(first << 12, count << 12);
            let pages = first..first + count;
            // Like-aligned outputs give blocks, others give pages.
            let phys = if is_like { first + 512 } else { phys };
            let before = memory.tables.clone();
            let result = if is_map {
                prop_assert!(tables_for(bytes) > tables_for_leaves(bytes, PhysAddr::new(phys << 12), leaves));
                stage2.map(&mut memory, bytes, PhysAddr::new(phys << 12), attributes)
            } else {
                stage2.unmap(&mut memory, bytes)
            };
            let mapped = pages.clone().filter(|page| model.contains_key(page)).count() as u64;
            match result {
                Ok(()) if is_map => {
                    prop_assert_eq!(mapped, 0);
                    model.extend(pages.clone().map(|page| (page, (phys + page - first, attributes))));
                }
                Ok(()) => {
                    prop_assert_eq!(mapped, count);
                    model.retain(|page, _| !pages.contains(page));
                }
                Err(Stage2Error::AlreadyMapped(_)) => prop_assert!(is_map && mapped > 0),
                Err(Stage2Error::NotMapped(_)) => prop_assert!(!is_map && mapped < count),
                Err(Stage2Error::SplitsBlock { .. }) => prop_assert!(!is_map),
                Err(Stage2Error::OutOfTables { .. }) => prop_assert!(is_map),
                Err(error) => prop_assert!(false, "{error}"),
            }
            if result.is_err() {
                prop_assert_eq!(&memory.tables, &before);
            }
            let is_clean = memory.tables.values().flatten().all(|descriptor| *descriptor == 0 || descriptor & 1 == 1);
            prop_assert!(is_clean, "an invalid descriptor that is not zero");
            let near: Vec<u64> = pages.clone().take(4).chain([first.wrapping_sub(1) & 0x7ff_ffff, pages.end, pages.end - 1]).collect();
            for page in model.keys().copied().step_by(37).chain(near) {
                let found = stage2.query(&memory, Ipa::new(page << 12 | 0x123));
                prop_assert!(leaves == Leaves::Blocks || found.is_none_or(|found| found.block_bytes == 4096));
                let found = found.map(|Mapping { phys, attributes, .. }| (phys.as_u64() >> 12, attributes));
                prop_assert_eq!(found, model.get(&page).copied(), "page {:#x}", page);
            }
        }
        stage2.destroy(&mut memory);
        prop_assert!(memory.tables.is_empty());
    }
}
