//! Registers and memory of any values: no panic, and nothing that the trait does not allow.

use bulkhead_core::addr::Ipa;
use proptest::prelude::{any, proptest};

use super::{
    super::{Fault, transport::offset},
    AVAILABLE, BUFFERS, DESCRIPTORS, ENDPOINTS, EVENT_AVAILABLE, EVENT_USED, Guest, RAM, RAM_BYTES, SIZE, USED,
};
use crate::{dmamap::model::Slab, mmio::Width};

/// A number of the kinds that parsers stumble over.
fn number(kind: u8, detail: u8) -> u64 {
    let bit = 1u64.rotate_left(detail.into());
    let detail = u64::from(detail);
    match kind % 10 {
        0 => detail,
        1 => u64::MAX - detail,
        2 => bit,
        3 => bit.wrapping_sub(1),
        4 => RAM + detail * 0x1000,
        5 => RAM + RAM_BYTES - detail * 8,
        6 => detail << 12,
        7 => (detail << 12) | 0xfff,
        8 => u64::from(ENDPOINTS[usize::try_from(detail % 3).expect("small")]),
        _ => BUFFERS + detail * 4,
    }
}

/// A fuzzer's bytes as a guest: 8 bytes a step.
fn guest(bytes: &[u8]) {
    let mut guest = Guest::new();
    for step in bytes.chunks_exact(8) {
        let value = number(step[2], step[3]);
        let low = u32::try_from(value & 0xffff_ffff).expect("half");
        match step[0] % 8 {
            // A store to any register, of any width.
            0 => {
                let width = Width::ALL[usize::from(step[1]) % 4];
                let at = u64::from(step[4]) << 1 & 0x1ff;
                let mut memory = Slab::new(Ipa::new(RAM), &guest.words);
                let _ = guest.device.write(at, width, value, &mut memory, &mut guest.domains);
                let _ = guest.device.read(at, width);
            }
            1 => drop(guest.step(offset::STATUS, [0, 3, 0xb, 0xf][usize::from(step[1]) % 4])),
            2 => guest.negotiate(super::FEATURES),
            3 => guest.set_up(u32::from(step[1]) % 2, DESCRIPTORS, AVAILABLE, USED),
            // What lies in memory changes.
            4 => {
                let at = [DESCRIPTORS, AVAILABLE, USED, BUFFERS, EVENT_AVAILABLE, EVENT_USED][usize::from(step[1]) % 6];
                guest.put(at + u64::from(step[4]), &value.to_le_bytes());
            }
            // A request that is one but for its values.
            5 => {
                let kind = 1 + step[1] % 5;
                let fields =
                    [u32::from(step[4] % 3), u32::from(step[5]), low, u32::from(step[6]), low, 0, 0x4000_0000, 0, 3];
                let mut request = super::words(kind, &fields);
                request.resize(72, step[7]);
                guest.queue(&request, u32::from(step[7] % 64));
            }
            6 => {
                let fault = Fault { endpoint: low, address: Some(value), is_write: step[1] & 1 == 1 };
                let mut memory = Slab::new(Ipa::new(RAM), &guest.words);
                let _ = guest.device.report(&fault, &mut memory);
            }
            _ => drop(guest.step(offset::QUEUE_NOTIFY, u32::from(step[1] % 4 == 0))),
        }
        guest.sent %= SIZE * 1000;
    }
}

const CORPUS: &[&[u8]] = &[
    // ATTACH, MAP, kick, a reset in the middle of the MAP, kick.
    &[
        5, 0, 8, 0, 1, 8, 0, 4, 5, 2, 7, 99, 1, 0, 0, 4, 7, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 1, 0, 0, 0,
        0, 0, 0,
    ],
    &[0xff; 256],
    &[0; 256],
    &[7; 256],
];

/// Would miss: what was found before.
#[test]
fn the_corpus_replays() {
    CORPUS.iter().for_each(|bytes| guest(bytes));
}

proptest! {
    /// Would miss: a value of a register, an index, a descriptor or a request that panics or breaks the trait's rules.
    #[test]
    fn any_guest_is_answered(bytes in proptest::collection::vec(any::<u8>(), 0..2400)) {
        guest(&bytes);
    }
}
