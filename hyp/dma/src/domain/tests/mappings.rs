//! Sizes, bounds, tables.

use bulkhead_core::{
    addr::{BLOCK_1G, BLOCK_2M, Iova, PAGE_SIZE, PhysAddr},
    stage2::Access,
};

use super::machine::{Machine, PHYS, RAM, RAM_BYTES, RW};
use crate::{
    domain::{DomainError, MapError, STEPS, SplitsMapping},
    flush::{Kind, Mode},
};

const TOP: u64 = 1 << 39;

/// Would miss: pages where a block would do, a block that reaches past the mapping, a wrong frame in the middle.
#[test]
fn leaves_are_as_large_as_both_addresses_allow() {
    let mut machine = Machine::range();
    let first = BLOCK_1G - BLOCK_2M - 3 * PAGE_SIZE;
    let bytes = 3 * PAGE_SIZE + BLOCK_2M + BLOCK_1G + BLOCK_2M + PAGE_SIZE;
    let ipa = RAM + BLOCK_1G - BLOCK_2M - 3 * PAGE_SIZE;
    machine.map(first, bytes, ipa, RW).expect("mapped");
    assert_eq!(machine.domain().leaves(), 3 + 1 + 1 + 1 + 1);
    for (offset, block) in [
        (0, PAGE_SIZE),
        (3 * PAGE_SIZE, BLOCK_2M),
        (3 * PAGE_SIZE + BLOCK_2M + 0x1234_5678, BLOCK_1G),
        (3 * PAGE_SIZE + BLOCK_2M + BLOCK_1G, BLOCK_2M),
        (bytes - 1, PAGE_SIZE),
    ] {
        let reached = machine.domain.as_ref().expect("there").resolve(&machine.arena, Iova::new(first + offset));
        let reached = reached.expect("mapped");
        assert_eq!((reached.phys, reached.block_bytes), (PhysAddr::new(PHYS + ipa - RAM + offset), block));
    }
    assert_eq!((machine.access(first - 1), machine.access(first + bytes)), (None, None));
    // An offset of a page between the two: pages alone.
    machine.map(BLOCK_1G * 8, BLOCK_2M, RAM + PAGE_SIZE, RW).expect("mapped");
    assert_eq!(machine.domain().leaves(), 7 + 512);
}

/// Would miss: an access that was not asked for.
#[test]
fn an_endpoint_may_do_what_was_asked_for() {
    let mut machine = Machine::range();
    for (page, access) in [(0, Access::READ), (1, Access::WRITE), (2, RW), (3, Access::empty())] {
        machine.map(page * PAGE_SIZE, PAGE_SIZE, RAM, access).expect("mapped");
        assert_eq!(machine.access(page * PAGE_SIZE), Some((PHYS, access)));
        assert_eq!(machine.domain.as_ref().expect("there").access(&machine.arena, Iova::new(page * PAGE_SIZE)), access);
    }
}

/// Would miss: memory that is not the VM's, in whole or at an end; addresses past the table; sums that wrap.
#[test]
fn bounds() {
    let mut machine = Machine::range();
    let largest = u64::MAX - 0xfff;
    for (first, bytes, ipa, error) in [
        (0, PAGE_SIZE, RAM - PAGE_SIZE, MapError::NotRam),
        (0, 2 * PAGE_SIZE, RAM - PAGE_SIZE, MapError::NotRam),
        (0, PAGE_SIZE, RAM + RAM_BYTES, MapError::NotRam),
        (0, 2 * PAGE_SIZE, RAM + RAM_BYTES - PAGE_SIZE, MapError::NotRam),
        (0, PAGE_SIZE, largest, MapError::NotRam),
        (0, TOP, largest, MapError::NotRam),
        (0, PAGE_SIZE, 0, MapError::NotRam),
        (TOP, PAGE_SIZE, RAM, MapError::BadRange),
        (TOP - PAGE_SIZE, 2 * PAGE_SIZE, RAM, MapError::BadRange),
        (largest, PAGE_SIZE, RAM, MapError::BadRange),
        (largest, largest, RAM, MapError::BadRange),
        (8, PAGE_SIZE, RAM, MapError::BadRange),
        (0, PAGE_SIZE + 8, RAM, MapError::BadRange),
        (0, PAGE_SIZE, RAM + 8, MapError::BadRange),
    ] {
        assert_eq!(machine.map(first, bytes, ipa, RW), Err(error), "{first:#x} {bytes:#x} {ipa:#x}");
    }
    assert_eq!(machine.domain().leaves(), 0);
    assert_eq!(machine.arena.left(), 63);
    machine.map(TOP - PAGE_SIZE, PAGE_SIZE, RAM + RAM_BYTES - PAGE_SIZE, RW).expect("the last page of both");
    assert_eq!(machine.access(TOP - 1), Some((PHYS + RAM_BYTES - PAGE_SIZE, RW)));
    machine.unmap(0, u64::MAX).expect("whole");
    assert_eq!((machine.domain().leaves(), machine.domain().is_flushed()), (0, false));
}

/// Would miss: a mapping over another, larger, smaller or the same; one that is found only in a later step.
#[test]
fn nothing_is_mapped_twice() {
    let mut machine = Machine::range();
    machine.map(BLOCK_2M, PAGE_SIZE, RAM, RW).expect("mapped");
    machine.map(BLOCK_1G, BLOCK_2M, RAM, RW).expect("mapped");
    let left = machine.arena.left();
    for (first, bytes, ipa) in [
        (BLOCK_2M, PAGE_SIZE, RAM + PAGE_SIZE),
        (BLOCK_2M - PAGE_SIZE, 3 * PAGE_SIZE, RAM),
        (BLOCK_2M, BLOCK_2M, RAM),
        (0, BLOCK_1G, RAM),
        (BLOCK_1G, BLOCK_1G, RAM),
        (BLOCK_1G + 7 * PAGE_SIZE, PAGE_SIZE, RAM),
        (BLOCK_1G - 5 * BLOCK_2M, 8 * BLOCK_2M, RAM + PAGE_SIZE),
    ] {
        assert_eq!(machine.map(first, bytes, ipa, RW), Err(MapError::Mapped), "{first:#x}");
        machine.flush().expect("flushed");
        assert_eq!((machine.domain().leaves(), machine.arena.left()), (2, left), "{first:#x}");
    }
    assert_eq!(machine.access(BLOCK_2M), Some((PHYS, RW)));
}

/// Would miss: tables that a refused mapping keeps, more than the quota, a domain without a root.
#[test]
fn tables_are_a_quota_and_come_back() {
    let mut machine = Machine::new(4, Mode::Auto);
    // The root, one at level 2, two leaf tables: the last mapping needs one more.
    machine.map(0, PAGE_SIZE, RAM, RW).expect("mapped");
    assert_eq!(machine.map(BLOCK_1G, PAGE_SIZE, RAM, RW), Err(MapError::NoTables));
    assert_eq!(machine.map(BLOCK_2M - PAGE_SIZE, 4 * BLOCK_2M, RAM, RW), Err(MapError::NoTables));
    assert_eq!((machine.arena.left(), machine.domain().is_flushed()), (0, false), "a table waits for its flush");
    machine.flush().expect("flushed");
    assert_eq!((machine.arena.left(), machine.domain().leaves()), (1, 1));
    machine.unmap(0, BLOCK_1G).expect("whole");
    assert_eq!(machine.arena.left(), 1);
    machine.flush().expect("flushed");
    assert_eq!(machine.arena.left(), 3);
    machine.map(0, 3 * PAGE_SIZE, RAM, RW).expect("mapped");
    machine.unmap(0, 3 * PAGE_SIZE - 1).expect("whole");
    machine.map(BLOCK_1G * 7, PAGE_SIZE, RAM, RW).expect_err("no table is used again before the flush");
    machine.destroy();
    assert_eq!(machine.arena.left(), 4);
    machine.create(Mode::Auto);
    machine.map(0, PAGE_SIZE, RAM, RW).expect("mapped");
    machine.destroy();
    machine.create(Mode::Auto);
    assert_eq!(machine.access(0), None, "a table that was not zeroed");
    let mut full = Machine::new(1, Mode::Auto);
    let config = super::super::DomainConfig {
        ram: bulkhead_core::addr::AddrRange::new(bulkhead_core::addr::Ipa::new(RAM), RAM_BYTES).expect("ram"),
        phys: PhysAddr::new(PHYS),
        input_bits: 39,
        output_bits: 44,
        vmid: super::machine::VMID,
    };
    let mut make = |config| {
        let policy = crate::flush::Policy::new(Mode::Auto, true, crate::flush::Costs::START);
        super::super::Domain::new(&config, policy, [], true, &mut full.arena).map(|_| ())
    };
    assert_eq!(make(config), Err(DomainError::NoTables(1)));
    assert_eq!(make(super::super::DomainConfig { input_bits: 34, ..config }), Err(DomainError::BadInputBits(34)));
    assert!(matches!(make(super::super::DomainConfig { output_bits: 33, ..config }), Err(DomainError::BadRam { .. })));
}

/// Would miss: the examples (1) to (7) of virtio 1.3, 5.13.6.6; a boundary in a block; ends within a page.
#[test]
fn mappings_are_unmapped_whole() {
    let mut machine = Machine::range();
    assert_eq!(machine.unmap(0, 5 * PAGE_SIZE - 1), Ok(1), "nothing there");
    let page = |number: u64| number * PAGE_SIZE;
    machine.map(0, page(10), RAM, RW).expect("mapped");
    assert_eq!(machine.unmap(0, page(5) - 1), Err(SplitsMapping));
    assert_eq!(machine.unmap(page(5), page(20) - 1), Err(SplitsMapping));
    assert_eq!(machine.unmap(0, page(10) - 2), Err(SplitsMapping));
    assert_eq!(machine.unmap(1, page(10) - 1), Err(SplitsMapping));
    assert_eq!((machine.domain().leaves(), machine.domain().is_flushed()), (10, true));
    machine.map(page(10), page(5), RAM, RW).expect("mapped");
    assert_eq!(machine.unmap(0, page(10) - 1), Ok(1), "the neighbour stays");
    assert_eq!(machine.domain().leaves(), 5);
    assert_eq!(machine.unmap(page(3) + 7, page(20) + 7), Ok(1), "ends in holes, not on pages");
    machine.flush().expect("flushed");
    // A block, and pages behind it, of one mapping.
    machine.map(BLOCK_2M, BLOCK_2M + PAGE_SIZE, RAM, RW).expect("mapped");
    for (first, last) in
        [(BLOCK_2M, 2 * BLOCK_2M - 1), (2 * BLOCK_2M, 3 * BLOCK_2M), (BLOCK_2M + PAGE_SIZE, 3 * BLOCK_2M)]
    {
        assert_eq!(machine.unmap(first, last), Err(SplitsMapping));
    }
    assert_eq!(machine.unmap(BLOCK_2M, 2 * BLOCK_2M + PAGE_SIZE - 1), Ok(1));
    assert_eq!(machine.domain().leaves(), 0);
}

/// Would miss: a translation that survives its flush, or that a new mapping meets; a table that is used again while an
/// SMMU still has the way to it.
#[test]
fn a_mapping_waits_for_the_flush_of_what_was_there() {
    for mode in [Mode::Auto, Mode::Fixed(Kind::Page), Mode::Fixed(Kind::Range), Mode::Fixed(Kind::Context)] {
        let mut machine = Machine::new(8, mode);
        machine.map(0, PAGE_SIZE, RAM, RW).expect("mapped");
        machine.map(BLOCK_1G, PAGE_SIZE, RAM, RW).expect("mapped");
        assert!(machine.access(0).is_some() && machine.access(BLOCK_1G).is_some());
        machine.unmap(0, PAGE_SIZE - 1).expect("whole");
        assert_eq!(machine.map(0, PAGE_SIZE, RAM + PAGE_SIZE, RW), Err(MapError::Unflushed));
        assert_eq!(machine.map(BLOCK_2M, PAGE_SIZE, RAM, RW), Err(MapError::Unflushed), "the table above is unlinked");
        machine.map(2 * BLOCK_1G, PAGE_SIZE, RAM, RW).expect("far away");
        machine.flush().expect("flushed");
        assert_eq!(machine.access(0), None);
        machine.map(0, BLOCK_2M, RAM, RW).expect("a block where a table was");
        assert_eq!(machine.access(PAGE_SIZE), Some((PHYS + PAGE_SIZE, RW)));
        // The table stays: a mapping beside what is unflushed need not wait.
        machine.map(BLOCK_1G + PAGE_SIZE, PAGE_SIZE, RAM, RW).expect("mapped");
        machine.unmap(BLOCK_1G, BLOCK_1G + PAGE_SIZE - 1).expect("whole");
        machine.map(BLOCK_1G + 2 * PAGE_SIZE, PAGE_SIZE, RAM, RW).expect("beside it");
        machine.flush().expect("flushed");
        assert_eq!((machine.access(BLOCK_1G), machine.smmu.syncs), (None, 2));
        machine.flush().expect("nothing to do");
        assert_eq!(machine.smmu.syncs, 2);
    }
}

/// Would miss: memory that is free again though an SMMU did not confirm the flush.
#[test]
fn a_flush_that_fails_frees_nothing() {
    let mut machine = Machine::new(4, Mode::Auto);
    machine.map(0, PAGE_SIZE, RAM, RW).expect("mapped");
    machine.unmap(0, PAGE_SIZE - 1).expect("whole");
    machine.smmu.is_stuck = true;
    machine.flush().expect_err("stuck");
    assert!(machine.domain().is_quarantined());
    assert_eq!(machine.arena.left(), 1);
    machine.smmu.is_stuck = false;
    machine.map(BLOCK_1G, PAGE_SIZE, RAM, RW).expect_err("two tables are still out");
}

/// Would miss: a step that visits as many entries as a guest likes.
#[test]
fn steps_are_bounded() {
    let mut machine = Machine::range();
    assert_eq!(machine.map(0, 5 * BLOCK_2M, RAM + PAGE_SIZE, RW), Ok(5));
    assert_eq!(machine.unmap(0, 5 * BLOCK_2M - 1), Ok(5));
    machine.flush().expect("flushed");
    // Holes count too: pages in the first and the last GiB.
    machine.map(0, PAGE_SIZE, RAM, RW).expect("mapped");
    machine.map(TOP - PAGE_SIZE, PAGE_SIZE, RAM, RW).expect("mapped");
    let steps = u64::from(machine.unmap(0, u64::MAX).expect("whole"));
    assert!((4 * 512 / STEPS..=6).contains(&steps), "{steps}: four tables below the root, and it");
}
