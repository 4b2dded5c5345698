//! Sizes, alignments and places, for both kinds of table.

use std::collections::BTreeSet;

use bulkhead_core::ids::StreamId;

use super::{MAX_LEVEL2_TABLES, StreamTable, log2_of_count};
use crate::{
    error::Error,
    features::Features,
    model::{Model, ModelConfig},
};

fn features(is_two_level: bool, sid_bits: u8) -> Features {
    let features = Features::from_idr(&ModelConfig::QEMU, 40).expect("features");
    Features { has_two_level_table: is_two_level, sid_bits, ..features }
}

fn model() -> Model {
    Model::new(ModelConfig::new(ModelConfig::QEMU))
}

#[test]
fn the_size_is_that_of_the_highest_stream() {
    for (last, log2) in [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (0xff, 8), (0x100, 9), (u32::MAX, 32)] {
        assert_eq!(log2_of_count(last), log2);
    }
}

#[test]
fn linear_tables_are_aligned_to_their_whole_size() {
    for last in [0u32, 7, 0x3f, 0x40, 0xfff, 0xffff] {
        let model = model();
        let _ = model.alloc(1, 4096);
        let features = features(false, 16);
        let table = StreamTable::new(&mut model.clone(), &features, last).expect("a table");
        let log2 = log2_of_count(last);
        let size = 64u64 << log2;
        assert_eq!(table.base_register() & (size - 1), 0);
        // FMT linear, LOG2SIZE.
        assert_eq!(table.config_register(), u32::from(log2));
        let first = table.find(StreamId(0)).expect("an entry").as_u64();
        let end = table.find(StreamId(last)).expect("an entry").as_u64() + 64;
        assert!(end - first <= size);
        assert_eq!(table.find(StreamId(table.last_stream().saturating_add(1))), None);
    }
}

#[test]
fn two_levels_are_used_where_they_gain_something() {
    let model = model();
    let features = features(true, 32);
    let table = StreamTable::new(&mut model.clone(), &features, 0xff).expect("a table");
    assert_eq!(table.config_register(), 8, "one level-2 table's worth: linear");
    let table = StreamTable::new(&mut model.clone(), &features, 0x4fff).expect("a table");
    assert_eq!(table.config_register(), 15 | 8 << 6 | 1 << 16);
    assert_eq!(table.find(StreamId(0)), None, "nothing is allocated before it is needed");
}

#[test]
fn entries_of_two_levels_never_overlap() {
    let model = model();
    let features = features(true, 16);
    let mut table = StreamTable::new(&mut model.clone(), &features, 0xffff).expect("a table");
    let mut places = BTreeSet::new();
    for stream in [0, 1, 0xff, 0x100, 0x1ff, 0x200, 0xff00, 0xffff] {
        let place = table.find_or_add(&mut model.clone(), &features, StreamId(stream)).expect("a place");
        assert!(places.insert(place.entry));
        assert_eq!(place.entry.as_u64() % (64 << 8) / 64, u64::from(stream) & 0xff);
        let (at, descriptor) = place.new_descriptor.expect("not found yet");
        assert_eq!(at.as_u64(), table.base_register() + u64::from(stream >> 8) * 8);
        assert_eq!(descriptor & 31, 9);
        assert_eq!(descriptor & !31, place.entry.as_u64() & !0x3fff, "aligned to its whole size");
    }
    table.set_found(StreamId(0));
    let place = table.find_or_add(&mut model.clone(), &features, StreamId(5)).expect("a place");
    assert_eq!(place.new_descriptor, None);
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = model();
    let narrow = features(true, 8);
    let made = StreamTable::new(&mut model.clone(), &narrow, 0x100).map(drop);
    assert_eq!(made, Err(Error::StreamIdTooWide { last: 0x100, sid_bits: 8 }));
    let features = features(true, 16);
    let mut table = StreamTable::new(&mut model.clone(), &features, 0x7fff).expect("a table");
    let stream = StreamId(0x8000);
    let place = table.find_or_add(&mut model.clone(), &features, stream).map(drop);
    assert_eq!(place, Err(Error::StreamOutOfRange { stream, last: 0x7fff }));
    for bus in 0..64 {
        let place = table.find_or_add(&mut model.clone(), &features, StreamId(bus << 8));
        assert!(place.is_ok());
    }
    let place = table.find_or_add(&mut model.clone(), &features, StreamId(64 << 8)).map(drop);
    let full = Error::Full { what: "level-2 stream table", capacity: MAX_LEVEL2_TABLES };
    assert_eq!(place, Err(full));
}

#[test]
fn a_table_larger_than_memory_is_an_error() {
    let model = model();
    let features = features(false, 32);
    let made = StreamTable::new(&mut model.clone(), &features, u32::MAX).map(drop);
    let (pages, alignment) = (1 << 26, 1 << 38);
    assert_eq!(made, Err(Error::NoMemory { what: "stream table", pages, alignment }));
}
