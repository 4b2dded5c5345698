//! The layout to the byte, and every number both ways.

use core::mem::offset_of;
use std::{collections::BTreeSet, vec::Vec};

use zerocopy::IntoBytes;

use crate::{
    Counter, Direction, Error, Function, Handle, MapState, OWNER_MASK, OWNER_VENDOR_HYP, Segment, UID, VERSION,
    ring::{self, Entry, Header, Op},
};

/// Would miss: a function whose number moves under a guest that was built before.
#[test]
fn functions_have_their_numbers() {
    for (number, function) in (0xc600_0000u32..).zip(&Function::ALL[..11]) {
        assert_eq!((function.id(), Function::from_id(number)), (number, Some(*function)));
        assert_eq!(number & OWNER_MASK, OWNER_VENDOR_HYP);
    }
    assert_eq!(Function::from_id(0x8600_ff01), Some(Function::CallUid));
    assert_eq!(Function::from_id(0x8600_ff03), Some(Function::Revision));
    for id in [0xc600_000b, 0x8600_0000, 0x8600_ff00, 0x8600_ff02, 0xc600_ff01, 0x4600_0000, 0, u32::MAX] {
        assert_eq!(Function::from_id(id), None, "{id:#x}");
    }
    assert_eq!(VERSION, 0x1_0000);
}

/// Would miss: words of the UID in another order than its text.
#[test]
fn the_uid_is_its_text() {
    let bytes: Vec<u8> = UID.iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(bytes, 0x1586_a374_83f1_4b28_b257_76d4_7e43_b3d8u128.to_be_bytes());
}

/// Would miss: two errors with one number, or one that reads as success.
#[test]
fn errors_are_negative_and_distinct() {
    let numbers: BTreeSet<i32> = Error::ALL.iter().map(|error| error.number()).collect();
    assert_eq!(numbers.len(), Error::ALL.len());
    for error in Error::ALL {
        assert!(error.number() < 0);
        assert_eq!(Error::from_number(error.number()), Some(*error));
        assert_eq!(Error::from_register(error.register()), Err(Some(*error)));
    }
    assert_eq!(Error::NotSupported.register(), u64::MAX);
    assert_eq!((Error::Invalid.number(), Error::NoChannel.number(), Error::Quarantined.number()), (-3, -16, -32));
    assert_eq!(Error::from_register(0), Ok(()));
    // A positive value, and a 32-bit -1 that was not extended, are errors that nobody knows.
    assert_eq!(Error::from_register(1), Err(None));
    assert_eq!(Error::from_register(0xffff_ffff), Err(None));
}

/// Would miss: a field that moves, padding that slips in.
#[test]
fn entries_are_128_bytes_in_this_order() {
    let segment = |n: u64| Segment { ipa: 0x4000_0000 + n, bytes: 0x10 + n, iova: 0x8000_0000 + n };
    let entry = Entry {
        op: Op::Load.number(),
        direction: Direction::Both.number(),
        count: 4,
        status: Error::NotRam.number(),
        handle: 0x0102_0304_0506_0708,
        cookie: 0x1112_1314_1516_1718,
        flags: 0x2122_2324_2526_2728,
        segments: [segment(0), segment(1), segment(2), segment(3)],
    };
    #[rustfmt::skip]
    let golden = [
        1, 0, 3, 4, 0xe4, 0xff, 0xff, 0xff, 8, 7, 6, 5, 4, 3, 2, 1,
        0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21,
        0, 0, 0, 0x40, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0,
        1, 0, 0, 0x40, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0x80, 0, 0, 0, 0,
        2, 0, 0, 0x40, 0, 0, 0, 0, 0x12, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0x80, 0, 0, 0, 0,
        3, 0, 0, 0x40, 0, 0, 0, 0, 0x13, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0x80, 0, 0, 0, 0,
    ];
    assert_eq!(entry.as_bytes(), golden);
    assert_eq!(u64::try_from(size_of::<Entry>()), Ok(ring::ENTRY_BYTES));
    assert_eq!(u64::try_from(offset_of!(Entry, status)), Ok(ring::STATUS_OFFSET));
    assert_eq!(u64::try_from(offset_of!(Entry, segments)), Ok(ring::SEGMENTS_OFFSET));
}

/// Would miss: an index that shares a line with the other side's.
#[test]
fn the_header_has_a_line_for_each_index() {
    let mut header = Header::NEW;
    (header.producer, header.consumer) = (0x0403_0201, 0x0807_0605);
    let bytes = header.as_bytes();
    assert_eq!(bytes.len(), 256);
    assert_eq!(&bytes[..12], b"BHDMRING\x01\0\0\0");
    assert_eq!((&bytes[64..68], &bytes[128..132]), (&[1, 2, 3, 4][..], &[5, 6, 7, 8][..]));
    let others = bytes.iter().enumerate().filter(|(at, _)| !matches!(at, 0..12 | 64..68 | 128..132));
    assert!(others.into_iter().all(|(_, byte)| *byte == 0));
    assert_eq!(u64::try_from(offset_of!(Header, producer)), Ok(ring::PRODUCER_OFFSET));
    assert_eq!(u64::try_from(offset_of!(Header, consumer)), Ok(ring::CONSUMER_OFFSET));
}

/// Would miss: an entry beyond the ring's end.
#[test]
fn entries_stay_in_their_ring() {
    assert_eq!((ring::ring_bytes(0), ring::ring_bytes(5)), (Some(384), Some(256 + 32 * 128)));
    assert_eq!((ring::ring_bytes(10), ring::ring_bytes(11), ring::ring_bytes(64)), (Some(131_328), None, None));
    assert_eq!(ring::entry_offset(u32::MAX, 3), 256 + 7 * 128);
    assert_eq!(ring::entry_offset(0, 0), ring::entry_offset(77, 0));
}

/// Would miss: a handle whose parts run into each other.
#[test]
fn handles_keep_their_parts() {
    let handle = Handle::new(7, 0xab_cdef, 0x1234_5678).expect("fits");
    assert_eq!(handle.register(), 0xabcd_ef07_1234_5678);
    assert_eq!((handle.channel(), handle.place(), handle.generation()), (7, 0xab_cdef, 0x1234_5678));
    assert_eq!(Handle::from_register(handle.register()), handle);
    assert_eq!(Handle::new(0, 0, 0), None);
    assert_eq!(Handle::new(0, Handle::PLACES, 1), None);
}

/// Would miss: a number that is read as another value than it was written for.
#[test]
fn small_numbers_go_both_ways() {
    for number in 0..10u16 {
        let wide = u64::from(number);
        assert!(Op::from_number(number).is_none_or(|op| op.number() == number));
        assert!(Direction::from_number(wide).is_none_or(|direction| u64::from(direction.number()) == wide));
        assert!(MapState::from_number(wide).is_none_or(|state| state.number() == wide));
    }
    assert_eq!((Direction::from_number(0), Direction::from_number(4), MapState::from_number(3)), (None, None, None));
    assert_eq!(Op::from_number(3), None);
    for (number, counter) in (0..).zip(Counter::ALL) {
        assert_eq!((counter.number(), Counter::from_number(number)), (number, Some(*counter)));
    }
    assert_eq!((Counter::from_number(22), Counter::from_number(u64::MAX)), (None, None));
    assert_eq!((Counter::Syncs.number(), Counter::CallNsMax.number(), Counter::TouchedPages.number()), (12, 19, 21));
}
