//! Groups of each shape, and those that cannot be used.

use std::collections::BTreeMap;

use bulkhead_core::ids::StreamId;

use super::{Pmcg, PmcgError, PmcgRegisters, Translations};

/// A register file; a counter's low half runs on by `step` with each read.
struct Fake {
    words: BTreeMap<(bool, u32), u32>,
    step: u32,
}

impl PmcgRegisters for &mut Fake {
    fn read32(&mut self, is_page1: bool, offset: u32) -> u32 {
        let value = self.words.get(&(is_page1, offset)).copied().unwrap_or(0);
        if offset < 0x200 && offset.is_multiple_of(8) {
            let (low, carry) = value.overflowing_add(self.step);
            self.words.insert((is_page1, offset), low);
            *self.words.entry((is_page1, offset + 4)).or_default() += u32::from(carry && self.step != 0);
        }
        value
    }
    fn write32(&mut self, is_page1: bool, offset: u32, value: u32) {
        self.words.insert((is_page1, offset), value);
    }
}

fn fake(cfgr: u32, ceid0: u32) -> Fake {
    Fake { words: BTreeMap::from([((false, 0xe00), cfgr), ((false, 0xe20), ceid0)]), step: 0 }
}

/// Would miss: an event, filter or enable at another register's place (10.5.1), counters read from the wrong page.
#[test]
fn a_group_is_set_up_by_the_register_map() {
    for (size, stride) in [(31, 4), (47, 8)] {
        for is_page1 in [false, true] {
            for stream in [None, Some(StreamId(0x108))] {
                let mut fake = fake(3 | size << 8 | u32::from(is_page1) << 20, 0x17);
                let mut group = Pmcg::start(&mut fake, stream).expect("usable");
                for (index, value) in (0..).zip([100, 7, 21]) {
                    group.registers.write32(is_page1, index * stride, value);
                }
                let read = group.read();
                assert_eq!(read, Translations { transactions: 100, misses: 7, walk_accesses: 21 });
                assert_eq!(read.hits(), 93);
                let word = |offset| fake.words[&(false, offset)];
                let span = u32::from(stream.is_none()) << 29;
                assert_eq!([0x400, 0x404, 0x408].map(word), [1 | span, 2 | span, 4 | span]);
                assert_eq!(word(0xa08), stream.map_or(u32::MAX, |stream| stream.0));
                assert_eq!((word(0xc00), word(0xe04), word(0xc60), word(0xc64)), (7, 1, u32::MAX, u32::MAX));
            }
        }
    }
}

/// Would miss: a total that jumps when a counter goes round, or when its halves are read apart.
#[test]
fn counters_that_go_round_go_on() {
    let mut narrow = fake(2 | 31 << 8, 0x16);
    let mut group = Pmcg::start(&mut narrow, None).expect("usable");
    group.registers.write32(false, 0, u32::MAX);
    assert_eq!(group.read().transactions, u64::from(u32::MAX));
    group.registers.write32(false, 0, 4);
    assert_eq!(group.read().transactions, u64::from(u32::MAX) + 5);

    let mut wide = fake(2 | 63 << 8, 0x16);
    wide.step = 8;
    let mut group = Pmcg::start(&mut wide, None).expect("usable");
    group.registers.write32(false, 0, u32::MAX - 3);
    let transactions = group.read().transactions;
    assert!((1 << 32..(1 << 32) + 32).contains(&transactions), "{transactions:#x}");
}

/// Would miss: a group that is used although it is hidden, too small, or blind to what is wanted.
#[test]
fn every_reason_to_refuse() {
    for (cfgr, ceid0, expected) in [
        (0, 0, PmcgError::Hidden { cfgr: 0 }),
        (1 | 31 << 8, 0x16, PmcgError::TooFew { counters: 2 }),
        (2 | 31 << 8, 0x06, PmcgError::NoEvent { ceid0: 0x06 }),
    ] {
        assert_eq!(Pmcg::start(&mut fake(cfgr, ceid0), None).err(), Some(expected));
    }
}
