//! What a hostile guest tries.

use bulkhead_core::{
    addr::{Iova, Ipa},
    bundle::DmamapStrategy,
};

use super::{
    STRATEGIES,
    harness::{Machine, RAM, RAM_BYTES, segment},
};
use crate::{
    iova::IovaError,
    map::{CreateError, Direction, Found, Handle, LoadError, MapParams, Segment},
    tree::TreeError,
};

/// Would miss: a length that wraps, a segment outside the VM's RAM, a load longer than its lease: each would map
/// memory of another. The tables are as they were.
#[test]
fn segments_are_checked_before_the_first_store() {
    for strategy in STRATEGIES {
        let mut machine = Machine::new(strategy);
        let handle = machine.create(0, &MapParams::new(0x4000, 3)).expect("room").handle;
        let raw = |ipa, bytes| Segment::new(Ipa::new(ipa), bytes);
        let good = segment(0, 1);
        for (bad, error) in [
            (segment(0x1000, 0), LoadError::NotRam(1)),
            (segment(0x1010, 0), LoadError::NotRam(1)),
            (raw(RAM - 1, 1), LoadError::NotRam(1)),
            (raw(RAM - 1, 2), LoadError::NotRam(1)),
            (segment(RAM_BYTES, 1), LoadError::NotRam(1)),
            (segment(RAM_BYTES - 1, 2), LoadError::NotRam(1)),
            (raw(0x0900_0000, 4096), LoadError::NotRam(1)),
            (segment(0x1000, u64::MAX), LoadError::NotRam(1)),
            (segment(0x1000, u64::MAX - 0xfff), LoadError::NotRam(1)),
            (segment(0x1000, u64::MAX - 0xfff - RAM), LoadError::NotRam(1)),
            (segment(0x1fff, u64::MAX - 0x1ffe - RAM), LoadError::NotRam(1)),
            (raw(0, u64::MAX), LoadError::NotRam(1)),
            (raw(u64::MAX - 0xfff, 0x1000), LoadError::NotRam(1)),
            (raw(u64::MAX, 1), LoadError::NotRam(1)),
            (segment(0x1000, 0x8000), LoadError::TooLong(1)),
        ] {
            for mut list in [[good, bad].to_vec(), [good, bad, good].to_vec()] {
                assert_eq!(machine.load(handle, Direction::Both, &mut list), Err(error), "{strategy:?} {bad:?}");
            }
            for at in [0, 2] {
                let mut list = [good; 3];
                list[at] = bad;
                assert!(machine.load(handle, Direction::Both, &mut list).is_err(), "{strategy:?} {bad:?} at {at}");
            }
            let alone = machine.load(handle, Direction::Both, &mut [bad]);
            assert!(alone.is_err(), "{strategy:?} {bad:?}");
        }
        assert_eq!(machine.load(handle, Direction::Both, &mut []), Err(LoadError::BadCount(0)));
        assert_eq!(machine.load(handle, Direction::Both, &mut [good; 4]), Err(LoadError::BadCount(4)));
        assert_eq!(machine.load(handle, Direction::Both, &mut [good; 5]), Err(LoadError::BadCount(5)));
        assert!(machine.mapped().is_empty());
        machine.load(handle, Direction::Both, &mut [good]).expect("the map is as it was");
        assert_eq!(machine.load(handle, Direction::Both, &mut [good]), Err(LoadError::Loaded));
        assert_eq!(machine.channels[0].counters().refused, 15 * 5 + 4);
    }
}

/// Would miss: a segment that ends before it begins, so that its first and its last byte are in the VM's RAM.
#[test]
fn segments_without_bytes_and_segments_that_wrap_end_with_the_address_space() {
    for (ipa, bytes) in [(RAM + 0x1000, 0), (RAM + 0x1010, 0), (RAM + 0x1010, u64::MAX), (0, 0), (u64::MAX, 2)] {
        assert!(Segment::new(Ipa::new(ipa), bytes).is_malformed(), "{ipa:#x} {bytes:#x}");
    }
    for (ipa, bytes) in [(RAM + 0x1010, 1), (u64::MAX - 1, 1), (0, u64::MAX), (RAM, u64::MAX - RAM)] {
        let segment = Segment::new(Ipa::new(ipa), bytes);
        assert_eq!((segment.ipa(), segment.bytes(), segment.is_malformed()), (Ipa::new(ipa), bytes, false));
    }
}

/// Would miss: a handle of old, of another channel, of a map that is on its way out, or made up.
#[test]
fn handles_are_not_forged() {
    for strategy in STRATEGIES {
        let mut machine = Machine::new(strategy);
        let other = machine.create(1, &MapParams::new(4096, 1)).expect("room").handle;
        let handle = machine.create(0, &MapParams::new(4096, 1)).expect("room").handle;
        machine.load(handle, Direction::Both, &mut [segment(0, 1)]).expect("fits");
        machine.destroy(handle).expect("a map");
        let forged = [
            0,
            1,
            u64::MAX,
            1 << 23,
            1 << 32 | 1 << 23,
            1 << 32 | 5,
            2 << 32,
            3 << 32,
            other.as_u64(),
            handle.as_u64(),
        ];
        for forged in forged.into_iter().chain((0..64).map(|bit| handle.as_u64() ^ 1 << bit)) {
            let forged = Handle::from_u64(forged);
            let channel = &mut machine.channels[0];
            assert_eq!(
                channel.load(forged, Direction::Both, &mut [segment(0, 1)]),
                Err(LoadError::NoMap),
                "{forged:?}"
            );
            assert!(channel.unload(forged).is_err());
            assert!(channel.view(forged).is_err());
            assert!(machine.space.destroy(channel, forged).is_err());
        }
        machine.sync(0);
        let again = machine.create(0, &MapParams::new(4096, 1)).expect("room").handle;
        assert_eq!((again.place(), again.generation()), (handle.place(), handle.generation() + 1));
        assert!(machine.unload(handle).is_err());
    }
}

/// Would miss: a create that takes something and then fails.
#[test]
fn a_create_that_fails_takes_nothing() {
    let mut machine = Machine::with(DmamapStrategy::Reserve, 4, 2, 64);
    let small = MapParams::new(4096, 1);
    for params in [
        MapParams::new(0, 1),
        MapParams::new(4096, 0),
        MapParams::new(u64::MAX, 1),
        MapParams::new(4096, u32::MAX),
        MapParams { align: 3, ..small },
        MapParams { align: 0, ..small },
        MapParams { align: 1 << 63, ..small },
        MapParams { boundary: 12, ..small },
        MapParams { boundary: 2048, ..small },
    ] {
        assert!(matches!(machine.create(0, &params), Err(CreateError::BadParams { .. })), "{params:?}");
    }
    let no_table = Err(CreateError::Tree(TreeError::NoTable { linked: 2, quota: 2 }));
    assert_eq!(machine.create(0, &MapParams::new(5 << 20, 1)), no_table);
    let too_low = MapParams { limit: 0x3fff, ..MapParams::new(0x8000, 1) };
    assert_eq!(machine.create(0, &too_low), Err(CreateError::Iova(IovaError::NoRange { pages: 10 })));
    assert!(matches!(machine.create(0, &MapParams::new(16 << 30, 1)), Err(CreateError::Iova(_))));
    assert_eq!((machine.pool.out(), machine.space.leased_pages(), machine.space.leaf_tables()), (3, 0, (0, 0)));
    let maps = [0; 4].map(|_| machine.create(0, &small).expect("room").handle);
    assert_eq!(machine.create(0, &small), Err(CreateError::TooManyMaps(4)));
    machine.destroy(maps[2]).expect("a map");
    machine.create(0, &small).expect("its place");
}

/// Would miss: a guard page that is mapped; a fault named after the wrong map.
#[test]
fn guard_pages_fault_and_are_named() {
    let mut machine = Machine::new(DmamapStrategy::Reserve);
    let maps = [0, 1].map(|_| machine.create(1, &MapParams::new(0x2000, 1)).expect("room"));
    for map in maps {
        machine.load(map.handle, Direction::Both, &mut [segment(1, 0x2000)]).expect("fits");
        let guard = map.base.as_u64() + map.bytes - 4096;
        assert_eq!(machine.touch(guard), None);
        assert!(machine.touch(guard - 1).is_some());
    }
    assert_eq!(machine.touch(maps[0].base.as_u64() - 1), None, "page 0");
    let find = |iova: u64| machine.space.find(Iova::new(iova));
    let (base, end) = (maps[1].base.as_u64(), maps[1].base.as_u64() + maps[1].bytes);
    let place = maps[1].handle.place();
    assert_eq!(find(base + 0x1fff), Some(Found { channel: 1, place, page: 1, past: None }));
    assert_eq!(find(end - 4096), Some(Found { channel: 1, place, page: 3, past: None }));
    assert_eq!(find(end + 4096), Some(Found { channel: 1, place, page: 5, past: Some(2) }));
    assert_eq!(find(0), None);
}
