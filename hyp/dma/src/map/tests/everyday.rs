//! What drivers do, under every strategy.

use bulkhead_core::{addr::Ipa, bundle::DmamapStrategy, stage2::Access};

use super::{
    STRATEGIES,
    harness::{Machine, PHYS, RAM, RAM_BYTES, segment},
};
use crate::{
    map::{AnyMap, Direction, Handle, LoadError, MapParams, Segment},
    tree::tally::{self, Tally},
};

/// A segment list of every kind that loads tell apart.
fn lists() -> [std::vec::Vec<Segment>; 7] {
    [
        [segment(0x1234, 100)].to_vec(),
        [segment(0xff, 0x1_0000)].to_vec(),
        [segment(0x5000, 1514), segment(0x9800, 2048)].to_vec(),
        [segment(0x5000, 66), segment(0x9800, 0x800), segment(0x7fff, 1)].to_vec(),
        [segment(0x5000, 4096), segment(0x3001, 4095), segment(0x3000, 1), segment(RAM_BYTES - 1, 1)].to_vec(),
        [segment(0x5000, 66), segment(0x9800, 5000), segment(0xf_0001, 0x3000)].to_vec(),
        [segment(0, 1), segment(0, 1), segment(0, 1), segment(0, 1), segment(0, 1), segment(0, 1)].to_vec(),
    ]
}

/// Would miss: an IOVA that leads elsewhere, rights that the direction does not give, an offset in a page that is
/// lost, a page that stays mapped.
#[test]
fn loads_reach_their_segments_and_nothing_else() {
    for strategy in STRATEGIES {
        let mut machine = Machine::new(strategy);
        let handle = machine.create(0, &MapParams::new(0x1_0000, 8)).expect("room").handle;
        for (direction, access) in [
            (Direction::DeviceReads, Access::READ),
            (Direction::DeviceWrites, Access::WRITE),
            (Direction::Both, Access::READ | Access::WRITE),
        ] {
            for mut list in lists() {
                let pages = machine.load(handle, direction, &mut list).expect("fits");
                for segment in &list {
                    let phys = PHYS + (segment.ipa().as_u64() - super::harness::RAM);
                    for at in [0, segment.bytes() / 2, segment.bytes() - 1] {
                        let reach = machine.touch(segment.iova.as_u64() + at);
                        assert_eq!(reach, Some((phys + at, access)), "{strategy:?} {segment:?}");
                    }
                }
                let expected = if strategy == DmamapStrategy::OneToOne { 1..=pages } else { pages..=pages };
                let mapped = u32::try_from(machine.mapped().len()).expect("few");
                assert!(expected.contains(&mapped), "{strategy:?}: {mapped} for {pages}");
                machine.unload(handle).expect("a map");
                machine.unload(handle).expect("again is nothing");
                assert!(machine.mapped().is_empty());
                assert_eq!(machine.load(handle, direction, &mut list), Err(LoadError::Unflushed), "{strategy:?}");
                machine.sync(0);
                assert!(list.iter().all(|segment| machine.touch(segment.iova.as_u64()).is_none()));
            }
        }
        machine.destroy(handle).expect("a map");
        machine.space.drain(&mut machine.channels[0]);
        machine.sync(0);
        assert_eq!((machine.space.leased_pages(), machine.space.leaf_tables()), (0, (0, 0)), "{strategy:?}");
        // The root and the tables of two GiB.
        assert_eq!(machine.pool.out(), 3, "{strategy:?}");
    }
}

/// Would miss: a page that is stored twice, a table that is read, or a read-modify-write on the way of a packet. Of two
/// maps in a row, whose second unload goes on with the batch's range.
#[test]
fn a_page_takes_two_stores_and_nothing_else() {
    let blocks = MapParams { align: 2 << 20, ..MapParams::new(2 << 20, 1) };
    let lists = lists().map(|list| (MapParams::new(0x1_0000, 8), list));
    for (params, list) in lists.into_iter().chain([(blocks, [segment(0, 2 << 20)].to_vec())]) {
        let mut machine = Machine::new(DmamapStrategy::Reserve);
        let maps = [0, 1].map(|_| machine.create(0, &params).expect("room").handle);
        tally::take();
        let loaded = maps.map(|map| machine.load(map, Direction::Both, &mut list.clone()).expect("fits"));
        maps.iter().for_each(|map| machine.unload(*map).expect("a map"));
        let pages_of_an_entry = if params.align > 1 { 512 } else { 1 };
        let entries = u64::from(loaded[0] + loaded[1]) / pages_of_an_entry;
        assert_eq!(tally::take(), Tally { stores: 2 * entries, loads: 0, exchanges: 0 }, "{list:?}");
    }
}

/// Would miss: ring slots that are not neighbours, a lease of another length than promised.
#[test]
fn maps_made_in_order_lie_in_order() {
    let mut machine = Machine::new(DmamapStrategy::Reserve);
    let mut create = || machine.create(0, &MapParams::new(2048, 3)).expect("room");
    let created = [create(), create(), create()];
    for pair in created.windows(2) {
        assert_eq!(pair[0].bytes, (1 + 3 + 1) * 4096);
        assert_eq!(pair[1].base.as_u64(), pair[0].base.as_u64() + pair[0].bytes);
    }
}

/// Would miss: a lease over 2 MiB whose second table is not its own, or whose parts are not one after the other.
#[test]
fn a_load_spans_leaf_tables() {
    for strategy in STRATEGIES {
        let mut machine = Machine::new(strategy);
        let handle = machine.create(0, &MapParams::new(5 << 20, 2)).expect("room").handle;
        let mut list = [segment(0x800, 3 << 20), segment(0x40_0000, 1 << 20)];
        assert_eq!(machine.load(handle, Direction::Both, &mut list), Ok(769 + 256));
        for segment in list {
            let reach = machine.touch(segment.iova.as_u64() + segment.bytes() - 1).expect("mapped").0;
            assert_eq!(reach, PHYS + segment.ipa().as_u64() - super::harness::RAM + segment.bytes() - 1);
        }
        assert_eq!(machine.mapped().len(), 1025);
        machine.unload(handle).expect("a map");
        assert!(machine.mapped().is_empty());
    }
}

/// Would miss: a block that is mapped by pages, split, or put where a leaf table's flush is to come.
#[test]
fn a_map_of_blocks_takes_one_store_each() {
    let mut machine = Machine::new(DmamapStrategy::Reserve);
    let params = MapParams { align: 2 << 20, ..MapParams::new(4 << 20, 2) };
    let created = machine.create(0, &params).expect("room");
    assert_eq!((created.base.as_u64() % (2 << 20), created.bytes), (0, (4 << 20) + 4096));
    assert_eq!(machine.space.leaf_tables(), (0, 0));
    let mut wrong = [segment(0x1000, 2 << 20)];
    assert_eq!(machine.load(created.handle, Direction::Both, &mut wrong), Err(LoadError::NotBlocks(0)));
    let mut list = [segment(4 << 20, 2 << 20), segment(0, 2 << 20)];
    assert_eq!(machine.load(created.handle, Direction::Both, &mut list), Ok(1024));
    assert_eq!(machine.mapped().len(), 1024);
    let second = machine.touch(list[1].iova.as_u64() + 0x1234).expect("mapped").0;
    assert_eq!(second, PHYS + 0x1234);
    assert_eq!(machine.channels[0].counters().loaded_pages, 1024);
    machine.destroy(created.handle).expect("a map");
    assert!(machine.mapped().is_empty());
    assert!(machine.space.leased_pages() > 0, "not before its flush");
    machine.sync(0);
    assert_eq!(machine.space.leased_pages(), 0);
    assert_eq!(machine.touch(list[1].iova.as_u64()), None);
}

/// Would miss: a block loaded where it is not all of one block of the VM's RAM, by a handle that names another map or
/// none, while it is loaded, or before its flush; a stale translation that a ring's run of blocks leaves out.
#[test]
fn blocks_of_a_ring_are_checked_and_flushed() {
    const BLOCK: u64 = 2 << 20;
    let mut machine = Machine::new(DmamapStrategy::Reserve);
    let params = MapParams { align: BLOCK, ..MapParams::new(BLOCK, 1) };
    let ring = [0; 4].map(|_| machine.create(0, &params).expect("room"));
    let handle = ring[0].handle;
    let load = |machine: &mut Machine, handle, offset, bytes| {
        machine.load(handle, Direction::Both, &mut [Segment::new(Ipa::new(RAM.wrapping_add(offset)), bytes)])
    };
    for (offset, bytes) in [(1, BLOCK), (4096, BLOCK), (0, BLOCK - 1), (0, BLOCK ^ 1), (BLOCK / 2, BLOCK), (0, 0)] {
        assert!(load(&mut machine, handle, offset, bytes).is_err(), "{bytes:#x} bytes at {offset:#x}");
    }
    for offset in [RAM_BYTES, RAM_BYTES - BLOCK / 2, BLOCK.wrapping_neg()] {
        assert_eq!(load(&mut machine, handle, offset, BLOCK), Err(LoadError::NotRam(0)));
    }
    for bits in [1, 1 << 32, 1 << 40, 1 << 62, 1 << 63, u64::MAX] {
        let forged = Handle::from_u64(handle.as_u64() ^ bits);
        // The next place is another map's: with its channel and generation, that is its handle.
        if ring.iter().all(|map| map.handle != forged) {
            let channel = &mut machine.channels[0];
            let loaded = channel.load(forged, Direction::Both, &mut [segment(0, BLOCK)]);
            assert_eq!(loaded, Err(LoadError::NoMap));
            assert!(channel.unload(forged).is_err());
        }
    }
    assert!(machine.mapped().is_empty());
    // Out of order and in order, with a hole, and over a SYNC.
    for order in [[0, 1, 2, 3], [2, 3, 0, 1], [0, 1, 3, 2], [0, 1, 2, 3]] {
        for (map, offset) in ring.iter().zip([0, 1, 2, RAM_BYTES / BLOCK - 1]) {
            assert_eq!(load(&mut machine, map.handle, offset * BLOCK, BLOCK), Ok(512));
            assert_eq!(load(&mut machine, map.handle, offset * BLOCK, BLOCK), Err(LoadError::Loaded));
            assert_eq!(machine.touch(map.base.as_u64()).map(|at| at.0), Some(PHYS + offset * BLOCK));
        }
        for at in order {
            machine.unload(ring[at].handle).expect("a map");
            machine.unload(ring[at].handle).expect("nothing to do");
            assert_eq!(load(&mut machine, ring[at].handle, 0, BLOCK), Err(LoadError::Unflushed));
        }
        let batch = machine.channels[0].batch();
        assert_eq!((batch.pages(), batch.maps()), (4 * 512, 4));
        machine.sync(0);
        assert!(ring.iter().all(|map| machine.touch(map.base.as_u64()).is_none()));
    }
}

/// Would miss: a map of pages that takes a block, as the map did that was at its place before.
#[test]
fn a_place_of_a_block_is_none_of_the_next_map() {
    const BLOCK: u64 = 2 << 20;
    let mut machine = Machine::new(DmamapStrategy::Reserve);
    let packet = MapParams::new(4096, 1);
    let [_, hole, _] = [0; 3].map(|_| machine.create(0, &packet).expect("room").handle);
    let block = machine.create(0, &MapParams { align: BLOCK, ..MapParams::new(BLOCK, 1) }).expect("room");
    for handle in [hole, block.handle] {
        machine.destroy(handle).expect("a map");
    }
    machine.sync(0);
    let next = machine.create(0, &packet).expect("room").handle;
    assert_eq!(next.place(), block.handle.place());
    assert!(machine.load(next, Direction::Both, &mut [segment(0, BLOCK)]).is_err());
    assert!(machine.mapped().is_empty());
    assert_eq!(machine.load(next, Direction::Both, &mut [segment(0, 4096)]), Ok(1));
    machine.unload(next).expect("a map");
    assert_eq!((machine.channels[0].batch().pages(), machine.mapped().len()), (1, 0));
}

/// Would miss: a state that the types show wrongly.
#[test]
fn states_are_types() {
    let mut machine = Machine::new(DmamapStrategy::Reserve);
    let handle = machine.create(0, &MapParams::new(4096, 1)).expect("room").handle;
    let Ok(AnyMap::Empty(map)) = machine.channels[0].map(handle) else { panic!("created") };
    let (map, error) = map.load(Direction::Both, &mut []).expect_err("nothing to load");
    assert_eq!(error, LoadError::BadCount(0));
    let map = map.load(Direction::Both, &mut [segment(0, 1)]).expect("fits");
    let map = map.unload().expect("a map").settle().expect_err("no SYNC");
    let handle = map.handle();
    machine.sync(0);
    assert!(matches!(machine.channels[0].map(handle), Ok(AnyMap::Empty(_))));
}

/// Would miss: a page that is let go while a second map has it.
#[test]
fn a_page_in_two_maps_is_held_until_the_last_is_flushed() {
    let mut machine = Machine::new(DmamapStrategy::Reserve);
    let maps = [0, 1].map(|_| machine.create(0, &MapParams::new(4096, 1)).expect("room").handle);
    let page = segment(0x5000, 1);
    for handle in maps {
        machine.load(handle, Direction::Both, &mut [page]).expect("fits");
    }
    assert_eq!(machine.channels[0].holds(page.ipa).loaded, 2);
    assert_eq!(machine.channels[0].holds(segment(0x6000, 1).ipa).loaded, 0);
    machine.unload(maps[0]).expect("a map");
    let holds = machine.channels[0].holds(page.ipa);
    assert_eq!((holds.loaded, holds.has_unflushed), (1, true));
    machine.unload(maps[1]).expect("a map");
    assert!(machine.channels[0].holds(page.ipa).has_unflushed);
    machine.sync(0);
    let holds = machine.channels[0].holds(page.ipa);
    assert_eq!((holds.loaded, holds.has_unflushed), (0, false));
}
