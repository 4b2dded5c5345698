//! Each call by hand: what it returns, what devices then reach, what its errors leave alone.

use bulkhead_abi::{CHANNELS, Counter, Direction, Error, Function, MapState, NO_LIMIT, SEGMENTS_MAX, UID, VERSION};

use super::{ARRAY, BOUNDARY, RAM, RAM_BYTES, RING, Vm};
use crate::dmamap::{Backend, model::WINDOW_START, owns};

/// Would miss: a guest that cannot find out what it talks to, or takes another hypervisor for this one.
#[test]
fn says_who_it_is() {
    let vm = Vm::new();
    assert_eq!(vm.call(Function::Version, &[]), Ok([VERSION, 0, 0]));
    assert_eq!(vm.raw([0x8600_ff01, 0, 0, 0, 0, 0, 0]), UID.map(u64::from));
    assert_eq!(vm.raw([0x8600_ff03, 0, 0, 0, 0, 0, 0]), [1, 0, 0, 0]);
    assert_eq!(vm.call(Function::Features, &[0]), Ok([1, 0x7ff, CHANNELS]));
    assert_eq!(vm.call(Function::Features, &[1]), Ok([8, SEGMENTS_MAX, 128]));
    assert_eq!(vm.call(Function::Features, &[2]), Ok([WINDOW_START, 1 << 39, 4096]));
    assert_eq!(vm.call(Function::Features, &[3]), Err(Error::Invalid));
}

/// Would miss: a function id taken from more than W0, an unknown one that is answered otherwise than DEN 0028 says.
#[test]
fn the_function_id_is_w0() {
    let vm = Vm::new();
    assert_eq!(vm.raw([0xdead_beef_c600_0000, 0, 0, 0, 0, 0, 0]), [0, VERSION, 0, 0]);
    for id in [0xc600_000bu64, 0x8600_0000, 0x8600_ff00, 0x8600_ff02, 0xc600_ffff, 0xc600_ff01] {
        assert!(owns(id), "{id:#x}");
        assert_eq!(vm.raw([id, 1, 2, 3, 4, 5, 6]), [u64::MAX, 0, 0, 0], "{id:#x}");
    }
    for id in [0x8400_0000u64, 0xc400_0003, 0x8000_0000, 0x4600_0000, 0x8601_0000, 0x8500_0000, 0, 0xffff_ffff] {
        assert!(!owns(id), "{id:#x}");
    }
    assert!(owns(0xffff_ffff_c600_0001));
}

/// Would miss: an offset in a page that is lost, a segment that lands on another's page, a direction that grants more.
#[test]
fn a_map_lives_from_create_to_destroy() {
    let vm = Vm::new();
    let [handle, base, bytes] = vm.create(3 * 4096, 3);
    assert_eq!((base, bytes), (WINDOW_START, 7 * 4096));
    let segments = [(RAM + 0x2ff0, 0x20), (RAM + 0x5000, 0x1000), (RAM + 0x8123, 1)];
    let iovas = vm.load(handle, Direction::DeviceReads, &segments).expect("loaded");
    assert_eq!(iovas, [base + 0xff0, base + 0x2000, base + 0x3123]);
    assert_eq!(vm.call(Function::Query, &[handle]), Ok([MapState::Loaded.number(), base, 4]));
    for (iova, ipa) in [(base, RAM + 0x2000), (base + 0x100f, RAM + 0x300f), (base + 0x3123, RAM + 0x8123)] {
        assert_eq!((vm.model.reach(iova, false), vm.model.reach(iova, true)), (Some(ipa), None));
    }
    assert_eq!(vm.model.reach(base + 0x4000, false), None);
    assert_eq!(vm.call(Function::Sync, &[handle, 0b1010, 0x20, 0x1001]), Ok([0; 3]));
    for _ in 0..2 {
        assert_eq!(vm.call(Function::Unload, &[handle]), Ok([0; 3]));
        assert_eq!(vm.model.reachable_pages(), 0);
    }
    assert_eq!(vm.call(Function::Query, &[handle]), Ok([MapState::Created.number(), base, 0]));
    vm.load(handle, Direction::Both, &segments[..1]).expect("loaded again");
    assert_eq!(vm.model.reach(base + 0xff0, true), Some(RAM + 0x2ff0));
    assert_eq!(vm.call(Function::Destroy, &[handle]), Ok([0; 3]));
    assert_eq!((vm.model.reachable_pages(), vm.model.maps()), (0, 0));
    assert_eq!(vm.call(Function::Query, &[handle]), Err(Error::NoMap));
    let [again, ..] = vm.create(4096, 1);
    assert_ne!(again, handle, "an old handle must not name a new map");
}

/// Would miss: an error that leaves something behind, or another error than the one that says what is wrong.
#[test]
fn errors_say_why_and_change_nothing() {
    let vm = Vm::new();
    let [loaded, ..] = vm.create(4096, 2);
    vm.load(loaded, Direction::Both, &[(RAM, 1)]).expect("loaded");
    let [empty, ..] = vm.create(4096, 2);
    let before = vm.model.state();
    let create = |arguments: &[u64]| vm.call(Function::Create, arguments);
    for (arguments, error) in [
        ([8, 4096, 1, 0, 0, NO_LIMIT], Error::NoChannel),
        ([u64::MAX, 4096, 1, 0, 0, NO_LIMIT], Error::NoChannel),
        ([0, 0, 1, 0, 0, NO_LIMIT], Error::Invalid),
        ([0, 4096, 0, 0, 0, NO_LIMIT], Error::Invalid),
        ([0, 4096, 65, 0, 0, NO_LIMIT], Error::TooManySegments),
        ([0, 4096, 1, 0x1800, 0, NO_LIMIT], Error::Invalid),
        ([0, 4096, 1, 2048, 0, NO_LIMIT], Error::Invalid),
        ([0, 4096, 1, 0, 3, NO_LIMIT], Error::Invalid),
        ([0, u64::MAX, 1, 0, 0, NO_LIMIT], Error::NoSpace),
        ([0, 1 << 40, 1, 0, 0, NO_LIMIT], Error::NoSpace),
        ([0, 4096, 1, 0, 1 << 63, NO_LIMIT], Error::NoSpace),
        ([0, 4096, 1, 0, 0, WINDOW_START], Error::NoSpace),
    ] {
        assert_eq!(create(&arguments), Err(error), "{arguments:x?}");
    }
    let load = |segments: &[(u64, u64)]| vm.load(empty, Direction::Both, segments);
    let end = RAM + RAM_BYTES;
    for (segments, error) in [
        (&[(RAM, 0)][..], Error::BadSegment),
        (&[(u64::MAX, 2)], Error::BadSegment),
        (&[(RAM, u64::MAX)], Error::BadSegment),
        (&[(RAM - 1, 1)], Error::NotRam),
        (&[(RAM - 1, 2)], Error::NotRam),
        (&[(end, 1)], Error::NotRam),
        (&[(end - 1, 2)], Error::NotRam),
        (&[(RAM, 1), (0x0900_0000, 1)], Error::NotRam),
        (&[(0x0800_0000, 1)], Error::NotRam),
        (&[(RAM, 3 * 4096 + 1)], Error::TooLong),
        (&[(RAM, 8192), (RAM + 1, 4096)], Error::TooLong),
        (&[(RAM, 1), (RAM, 1), (RAM, 1)], Error::TooManySegments),
    ] {
        assert_eq!(load(segments), Err(error), "{segments:x?}");
    }
    assert_eq!(vm.load(loaded, Direction::Both, &[(RAM, 1)]), Err(Error::Loaded));
    for (arguments, error) in [
        ([empty, ARRAY, 0, 1], Error::Invalid),
        ([empty, ARRAY, 65, 1], Error::TooManySegments),
        ([empty, ARRAY, u64::MAX, 1], Error::TooManySegments),
        ([empty, ARRAY, 1, 0], Error::Invalid),
        ([empty, ARRAY, 1, 4], Error::Invalid),
        ([empty, ARRAY + 4, 1, 1], Error::BadAddress),
        ([empty, end - 16, 1, 1], Error::BadAddress),
        ([empty, RAM - 8, 1, 1], Error::BadAddress),
        ([empty, 0, 1, 1], Error::BadAddress),
        ([empty, u64::MAX - 7, 64, 1], Error::BadAddress),
        ([empty, BOUNDARY - 16, 1, 1], Error::BadAddress),
        ([empty, BOUNDARY - 63 * 24, 64, 1], Error::BadAddress),
    ] {
        assert_eq!(vm.call(Function::Load, &arguments), Err(error), "{arguments:x?}");
    }
    for (arguments, error) in [
        ([loaded, 0, 0, 1], Error::Invalid),
        ([loaded, 16, 0, 1], Error::Invalid),
        ([loaded, 1, 1, u64::MAX], Error::TooLong),
        ([loaded, 1, 1, 1], Error::TooLong),
        ([empty, 1, 0, 0], Error::NotLoaded),
    ] {
        assert_eq!(vm.call(Function::Sync, &arguments), Err(error), "{arguments:x?}");
    }
    assert_eq!(vm.call(Function::Stats, &[Counter::ALL.len() as u64]), Err(Error::Invalid));
    assert_eq!(vm.call(Function::RingSetup, &[8, RING, 3]), Err(Error::NoChannel));
    assert_eq!(vm.call(Function::RingRun, &[0]), Err(Error::NoRing));
    assert_eq!(vm.call(Function::RingRun, &[9]), Err(Error::NoChannel));
    assert_eq!(vm.model.state(), before);
}

/// Would miss: a handle made up by the guest that names a map: every bit of it counts.
#[test]
fn forged_handles_name_nothing() {
    let vm = Vm::new();
    let [handle, ..] = vm.create(4096, 1);
    vm.load(handle, Direction::Both, &[(RAM, 1)]).expect("loaded");
    let before = vm.model.state();
    let forged = (0..64).map(|bit| handle ^ 1 << bit).chain([0, u64::MAX]);
    for forged in forged {
        for function in [Function::Unload, Function::Destroy, Function::Query] {
            assert_eq!(vm.call(function, &[forged]), Err(Error::NoMap), "{forged:#x}");
        }
        assert_eq!(vm.load(forged, Direction::Both, &[(RAM, 1)]), Err(Error::NoMap));
        assert_eq!(vm.call(Function::Sync, &[forged, 1, 0, 1]), Err(Error::NoMap));
    }
    assert_eq!(vm.model.state(), before);
}

/// Would miss: a create past the manifest's maps that takes something, a destroy that does not give it back.
#[test]
fn too_many_maps_are_refused() {
    let vm = Vm::new();
    let handles: [u64; 8] = core::array::from_fn(|_| vm.create(4096, 1)[0]);
    let before = vm.model.state();
    assert_eq!(vm.call(Function::Create, &[0, 4096, 1, 0, 0, NO_LIMIT]), Err(Error::TooManyMaps));
    assert_eq!(vm.model.state(), before);
    assert_eq!(vm.call(Function::Stats, &[Counter::Maps.number()]), Ok([8, 8 * 3 * 4096, 0]));
    for handle in handles {
        assert_eq!(vm.call(Function::Destroy, &[handle]), Ok([0; 3]));
    }
    assert_eq!(vm.call(Function::Stats, &[18]), Ok([0; 3]));
    assert_eq!(vm.call(Function::Stats, &[Counter::Creates.number()]), Ok([8, 8, 0]));
    assert_eq!(vm.create(4096, 1)[1], WINDOW_START, "space is returned");
}

/// Would miss: a call that waits for, or works beside, another CPU's on the same channel; a claim that is kept.
#[test]
fn a_claimed_channel_is_busy() {
    let vm = Vm::new();
    let [handle, ..] = vm.create(4096, 1);
    vm.model.set_claimed(0, true);
    for (function, arguments) in [
        (Function::Create, &[0, 4096, 1, 0, 0, NO_LIMIT][..]),
        (Function::Load, &[handle, ARRAY, 1, 1]),
        (Function::Unload, &[handle]),
        (Function::Destroy, &[handle]),
        (Function::Sync, &[handle, 1, 0, 0]),
        (Function::Query, &[handle]),
        (Function::RingSetup, &[0, RING, 3]),
        (Function::RingSetup, &[0, 0, 0]),
        (Function::RingRun, &[0]),
    ] {
        assert_eq!(vm.call(function, arguments), Err(Error::Busy), "{function:?}");
    }
    vm.call(Function::Create, &[1, 4096, 1, 0, 0, NO_LIMIT]).expect("another channel");
    vm.model.set_claimed(0, false);
    assert_eq!(vm.load(handle, Direction::Both, &[(RAM, 0)]), Err(Error::BadSegment));
    assert!(vm.model.claim(0).is_ok(), "an error lets the channel go");
}

/// Would miss: success said of an unload whose flush was not confirmed, a map used again before it was.
#[test]
fn an_unconfirmed_flush_is_quarantine() {
    let vm = Vm::new();
    let [handle, base, _] = vm.create(4096, 1);
    vm.load(handle, Direction::Both, &[(RAM, 1)]).expect("loaded");
    vm.model.set_stuck(true);
    assert_eq!(vm.call(Function::Unload, &[handle]), Err(Error::Quarantined));
    assert_eq!(vm.call(Function::Query, &[handle]), Ok([MapState::Unflushed.number(), base, 0]));
    assert_eq!(vm.load(handle, Direction::Both, &[(RAM, 1)]), Err(Error::Unflushed));
    assert_eq!(vm.call(Function::Destroy, &[handle]), Err(Error::Quarantined));
    assert_eq!(vm.model.maps(), 1);
}
