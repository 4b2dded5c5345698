//! Sampled maps: the flags tell what was touched, and nothing else changes.

use bulkhead_core::bundle::DmamapStrategy;

use super::harness::{ACCESS_FLAG, Machine, segment};
use crate::map::{Direction, Handle, MapParams, SAMPLED_EVERY};

/// A VM whose SMMUs set access flags, and its first map, which is sampled.
fn sampled(params: &MapParams) -> (Machine, Handle) {
    let mut machine = Machine::new(DmamapStrategy::Reserve);
    machine.sample();
    let handle = machine.create(0, params).expect("room").handle;
    (machine, handle)
}

fn counted(machine: &Machine) -> (u64, u64) {
    let counters = machine.channels[0].counters();
    (counters.sampled, counters.touched)
}

/// Would miss: a page that was reached and does not count, one that counts and was not, a gap that counts.
#[test]
fn what_was_touched_is_counted() {
    for boundary in [0, 0x4000] {
        let (mut machine, handle) = sampled(&MapParams { boundary, ..MapParams::new(0x1_0000, 8) });
        let mut list = [segment(0x1_0000, 0x3000), segment(0x5004, 0x1800), segment(0x8000, 1)];
        machine.load(handle, Direction::Both, &mut list).expect("fits");
        assert!(list.iter().all(|segment| {
            let (_, leaf) = machine.leaf(segment.iova.as_u64() / 4096).expect("mapped");
            leaf.load() & ACCESS_FLAG == 0
        }));
        for iova in [list[0].iova.as_u64() + 0x2000, list[1].iova.as_u64()] {
            assert!(machine.touch(iova).is_some() && machine.touch(iova + 1).is_some());
        }
        machine.unload(handle).expect("a map");
        assert_eq!(counted(&machine), (6, 2), "boundary {boundary:#x}");
        assert!(machine.mapped().is_empty());
        machine.sync(0);
        // Other loads begin anew.
        machine.load(handle, Direction::Both, &mut list[..1]).expect("fits");
        machine.destroy(handle).expect("a map");
        assert_eq!(counted(&machine), (9, 2));
    }
}

/// Would miss: a flush policy that counts pages which no device ever looked at, or that believes a handful.
#[test]
fn pages_in_use_are_those_that_are_reached() {
    let (mut machine, handle) = sampled(&MapParams::new(0x1_0000, 1));
    for round in 0..8 {
        let in_use = machine.channels[0].in_use(1000);
        assert_eq!(in_use, if round < 4 { 1000 } else { 250 }, "after {} pages", round * 16);
        let mut list = [segment(0, 0x1_0000)];
        machine.load(handle, Direction::Both, &mut list).expect("fits");
        for page in 0..4 {
            assert!(machine.touch(list[0].iova.as_u64() + page * 0x4000).is_some());
        }
        machine.unload(handle).expect("a map");
        machine.sync(0);
    }
    assert_eq!(machine.channels[0].in_use(u64::MAX), u64::MAX / 128);
    assert_eq!(machine.channels[1].in_use(1000), 1000);
}

/// Would miss: a load that an SMMU without access flags faults for, in maps that nobody samples: other maps of the
/// channel, blocks, every map of another strategy or of a VM that samples nothing.
#[test]
fn one_map_in_many_is_sampled() {
    let mut machine = Machine::with(DmamapStrategy::Reserve, 256, 64, 64);
    machine.sample();
    let params = MapParams::new(0x3000, 3);
    let mut without = 0;
    for _ in 0..2 * SAMPLED_EVERY + 1 {
        let handle = machine.create(0, &params).expect("room").handle;
        let mut list = [segment(0, 0x3000)];
        machine.load(handle, Direction::Both, &mut list).expect("fits");
        let (_, leaf) = machine.leaf(list[0].iova.as_u64() / 4096).expect("mapped");
        without += u32::from(leaf.load() & ACCESS_FLAG == 0);
    }
    assert_eq!(without, 3);
    for strategy in DmamapStrategy::ALL {
        let mut machine = Machine::new(strategy);
        if strategy != DmamapStrategy::Reserve {
            machine.sample();
        }
        machine.has_access_flags = false;
        let handle = machine.create(0, &params).expect("room").handle;
        let mut list = [segment(0, 0x3000)];
        machine.load(handle, Direction::Both, &mut list).expect("fits");
        assert!(machine.touch(list[0].iova.as_u64()).is_some(), "{strategy:?}");
    }
    let (mut machine, _) = sampled(&params);
    machine.has_access_flags = false;
    let handle = machine.create(1, &MapParams { align: 2 << 20, ..MapParams::new(4 << 20, 1) }).expect("room").handle;
    let mut list = [segment(0, 4 << 20)];
    machine.load(handle, Direction::Both, &mut list).expect("fits");
    assert!(machine.touch(list[0].iova.as_u64()).is_some(), "blocks");
}
