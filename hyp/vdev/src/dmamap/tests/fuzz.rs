//! Every call with every field out of range: no panic, and no error that changes anything.

use bulkhead_abi::{Error, Function, ring::Header};
use proptest::prelude::{any, proptest};

use super::{ARRAY, RAM, RAM_BYTES, RING, Vm};

/// A number of the kinds that decoders stumble over, chosen by two bytes.
fn number(kind: u8, detail: u8, handles: &[u64]) -> u64 {
    let bit = 1u64.rotate_left(detail.into());
    let (place, detail) = (usize::from(detail), u64::from(detail));
    match kind % 12 {
        0 => detail,
        1 => u64::MAX - detail,
        2 => bit,
        3 => bit.wrapping_sub(1),
        4 => RAM + detail * 0x10,
        5 => RAM + detail * 0x1000,
        6 => RAM + RAM_BYTES - detail * 8,
        7 => ARRAY + detail * 8,
        8 => RING + detail / 16 * 0x1000,
        9 => handles.get(place % handles.len().max(1)).copied().unwrap_or(detail),
        10 => handles.first().map_or(0, |handle| handle ^ bit),
        _ => 0x1000 * detail,
    }
}

/// A fuzzer's bytes as a guest: 16 bytes a step, calls and stores to its memory.
fn guest(bytes: &[u8]) {
    let vm = Vm::new();
    vm.put(RING, &Header::NEW);
    let mut handles = std::vec::Vec::new();
    for step in bytes.chunks_exact(16) {
        let value = |field: usize| number(step[field * 2 + 2], step[field * 2 + 3], &handles);
        if step[0] >= 0xc0 {
            // What the guest's memory holds changes under the calls: arrays, entries, indices.
            let place = [ARRAY, RING + 256, RING][usize::from(step[1]) % 3];
            let at = place + u64::from(step[14]) * 8;
            vm.put(at, &value(0));
            vm.put(at + 8, &value(1));
            continue;
        }
        let function = u64::from(Function::ALL[usize::from(step[0]) % 13].id());
        let id = if step[1] == 0xff { value(0) } else { function | u64::from(step[1]) << 32 };
        let x = core::array::from_fn(|field| if field == 0 { id } else { value(field - 1) });
        let before = vm.model.state();
        let [status, x1, ..] = vm.raw(x);
        match Error::from_register(status) {
            Ok(()) if id & 0xffff_ffff == Function::Create.id().into() => handles.push(x1),
            Ok(()) => {}
            // Queries of DEN 0028 have no status.
            Err(_) if function != Function::Version.id().into() && (id >> 8) & 0xff_ffff == 0x86_00ff => {}
            Err(error) => {
                assert!(error.is_some(), "{status:#x} is no error of the list");
                assert!(vm.model.state() == before, "{x:x?} failed and changed something");
            }
        }
        assert_eq!(vm.model.stale_pages(), 0, "{x:x?} left a page that is not flushed");
    }
}

/// What fuzzing found interesting: life cycles, a ring set up and run over stores, registers at their ends.
const CORPUS: &[&[u8]] = &[
    // CREATE, LOAD of one page, UNLOAD, DESTROY.
    b"\x02\0\0\0\x0b\x01\0\x01\0\0\0\0\x01\0\0\0\xc0\0\x05\x05\0\x10\0\0\0\0\0\0\0\0\0\0\
      \x03\0\x09\0\x07\0\0\x01\0\x03\0\0\0\0\0\0\x04\0\x09\0\0\0\0\0\0\0\0\0\0\0\0\0\
      \x05\0\x09\0\0\0\0\0\0\0\0\0\0\0\0\0",
    // RING_SETUP, producer far ahead, RING_RUN, producer one ahead, RING_RUN.
    b"\x09\0\0\0\x08\0\0\x03\0\0\0\0\0\0\0\0\xc0\x02\x01\0\0\0\0\0\0\0\0\0\0\0\x08\0\
      \x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xc0\x02\0\x01\0\0\0\0\0\0\0\0\0\0\x08\0\
      \x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    &[0xff; 64],
    &[0; 64],
    &[2; 320],
];

/// Would miss: what an earlier run of the fuzzer found.
#[test]
fn the_corpus_replays() {
    for bytes in CORPUS {
        guest(bytes);
    }
}

proptest! {
    /// Would miss: a value of any field of any call, in registers or memory, that panics or changes state with an error.
    #[test]
    fn any_guest_is_answered(bytes in proptest::collection::vec(any::<u8>(), 0..1600)) {
        guest(&bytes);
    }

    /// Would miss: seven registers of no pattern at all that do.
    #[test]
    fn any_registers_are_answered(x in any::<[u64; 7]>(), function in 0..16u64) {
        let vm = Vm::new();
        let before = vm.model.state();
        vm.raw(x);
        vm.raw([0xc600_0000 | function, x[1], x[2], x[3], x[4], x[5], x[6]]);
        assert!(vm.model.state() == before || vm.model.maps() == 1);
    }
}
