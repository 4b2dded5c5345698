//! What a device cannot do: alignments, limits, boundaries.

use std::vec;

use bulkhead_core::bundle::DmamapStrategy;

use super::{
    STRATEGIES,
    harness::{Machine, segment},
};
use crate::map::{Direction, LoadError, MapParams};

/// Would miss: a device of 32 bits, or fewer, that cannot reach its lease; a segment over a boundary.
#[test]
fn constraints_hold() {
    for strategy in STRATEGIES {
        let mut machine = Machine::new(strategy);
        let params = MapParams { align: 0x8000, boundary: 0x1_0000, limit: 0xff_ffff, ..MapParams::new(0x1_0000, 17) };
        let handle = machine.create(0, &params).expect("room").handle;
        let mut list = [segment(0x800, 0x7000), segment(0x1_0000, 0xf000), segment(0x4_0000, 0x2000)];
        machine.load(handle, Direction::Both, &mut list).expect("fits");
        for segment in list {
            let (first, last) = (segment.iova.as_u64(), segment.iova.as_u64() + segment.bytes() - 1);
            assert_eq!(first >> 16, last >> 16, "{strategy:?} {segment:?}");
            assert!(last <= 0xff_ffff, "{strategy:?} {segment:?}");
        }
        machine.unload(handle).expect("a map");
        machine.sync(0);
        let crossing = machine.load(handle, Direction::Both, &mut [segment(0x800, 0x1_0000)]);
        assert_eq!(crossing, Err(LoadError::TooLong(0)), "{strategy:?}");
    }
}

/// Would miss: a boundary that a map made like the last one, in the hole that it has left, does not keep.
#[test]
fn a_map_like_the_last_one_keeps_its_boundary() {
    for strategy in STRATEGIES {
        let mut machine = Machine::new(strategy);
        let params = MapParams { boundary: 4096, ..MapParams::new(4096, 1) };
        let _below = machine.create(0, &params).expect("room");
        let first = machine.create(0, &params).expect("room").handle;
        let _above = machine.create(0, &params).expect("room");
        machine.destroy(first).expect("a map");
        machine.sync(0);
        let again = machine.create(0, &params).expect("room").handle;
        let crossing = machine.load(again, Direction::Both, &mut [segment(0x800, 4096)]);
        assert_eq!(crossing, Err(LoadError::TooLong(0)), "{strategy:?}");
        assert!(machine.mapped().is_empty());
    }
}

/// Would miss: blocks of 2 MiB that lie across a boundary, of less than a block or between two of them.
#[test]
fn a_map_of_blocks_crosses_no_boundary() {
    for boundary in [4096, 1 << 20, 2 << 20, 4 << 20, 8 << 20] {
        let mut machine = Machine::new(DmamapStrategy::Reserve);
        let params = MapParams { align: 2 << 20, boundary, ..MapParams::new(6 << 20, 2) };
        let handle = machine.create(0, &params).expect("room").handle;
        for mut list in [vec![segment(0, 2 << 20)], vec![segment(0, 2 << 20), segment(4 << 20, 4 << 20)]] {
            if machine.load(handle, Direction::Both, &mut list).is_ok() {
                for segment in &list {
                    let (first, last) = (segment.iova.as_u64(), segment.iova.as_u64() + segment.bytes() - 1);
                    assert_eq!(first / boundary, last / boundary, "boundary {boundary:#x}: {segment:x?}");
                }
                machine.unload(handle).expect("a map");
                machine.sync(0);
            }
        }
    }
}
