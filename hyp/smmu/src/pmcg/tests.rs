//! Groups of each shape, and those that cannot be used.

use std::collections::BTreeMap;

use bulkhead_core::ids::StreamId;

use super::{Pmcg, PmcgError, PmcgRegisters, Translations};

/// PMCG_CFGR.SID_FILTER_TYPE.
const ONE_FILTER: u32 = 1 << 23;
/// PMCG_CFGR.RELOC_CTRS.
const RELOCATED: u32 = 1 << 20;

/// A register file; a counter's low half runs on by `step` with each read.
struct Fake {
    words: BTreeMap<(bool, u32), u32>,
    step: u32,
    has_page1: bool,
}

impl PmcgRegisters for &mut Fake {
    fn has_page1(&self) -> bool {
        self.has_page1
    }
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
    Fake { words: BTreeMap::from([((false, 0xe00), cfgr), ((false, 0xe20), ceid0)]), step: 0, has_page1: true }
}

/// Would miss: an event, filter or enable at another register's place (10.5.1), counters read from the wrong page.
#[test]
fn a_group_is_set_up_by_the_register_map() {
    for (size, stride) in [(31, 4), (47, 8)] {
        for is_page1 in [false, true] {
            let relocated = if is_page1 { RELOCATED } else { 0 };
            let mut fake = fake(3 | size << 8 | relocated, 0x06);
            let mut group = Pmcg::start(&mut fake, [StreamId(0x108), StreamId(0x110)]).expect("usable");
            for (index, value) in (0..).zip([100, 7, 21, 2]) {
                group.registers.write32(is_page1, index * stride, value);
            }
            group.refresh();
            assert_eq!(group.all(), Translations { transactions: 100, misses: 7 });
            assert_eq!(group.all().hits(), 93);
            assert_eq!(group.of(StreamId(0x108)), Some(Translations { transactions: 21, misses: 2 }));
            assert_eq!(group.of(StreamId(0x110)), None, "four counters are two pairs");
            let word = |offset| fake.words[&(false, offset)];
            let span = 1 << 29;
            assert_eq!([0x400, 0x404, 0x408, 0x40c].map(word), [1 | span, 2 | span, 1, 2]);
            assert_eq!([0xa00, 0xa04, 0xa08, 0xa0c].map(word), [u32::MAX, u32::MAX, 0x108, 0x108]);
            assert_eq!((word(0xc00), word(0xe04), word(0xc60), word(0xc64)), (0xf, 1, u32::MAX, u32::MAX));
        }
    }
}

/// Would miss: one stream's count told for every stream's, where all counters have the first one's filter (MMU-600).
#[test]
fn one_filter_is_for_every_stream() {
    let mut fake = fake(3 | 31 << 8 | ONE_FILTER, 0x06);
    let group = Pmcg::start(&mut fake, [StreamId(8)]).expect("usable");
    assert_eq!(group.of(StreamId(8)), None);
    let word = |offset| fake.words.get(&(false, offset)).copied();
    assert_eq!([0x400, 0x404, 0x408].map(word), [Some(1 | 1 << 29), Some(2), None]);
    assert_eq!([0xa00, 0xa04].map(word), [Some(u32::MAX), None]);
    assert_eq!(word(0xc00), Some(3));
}

/// Would miss: a total that jumps when a counter goes round, or when its halves are read apart.
#[test]
fn counters_that_go_round_go_on() {
    let mut narrow = fake(1 | 31 << 8, 0x06);
    let mut group = Pmcg::start(&mut narrow, []).expect("usable");
    assert!(group.is_quick_to_wrap());
    group.registers.write32(false, 0, u32::MAX);
    group.refresh();
    assert_eq!(group.all().transactions, u64::from(u32::MAX));
    group.registers.write32(false, 0, 4);
    group.refresh();
    assert_eq!(group.all().transactions, u64::from(u32::MAX) + 5);

    let mut wide = fake(1 | 63 << 8, 0x06);
    wide.step = 8;
    let mut group = Pmcg::start(&mut wide, []).expect("usable");
    assert!(!group.is_quick_to_wrap());
    group.registers.write32(false, 0, u32::MAX - 3);
    group.refresh();
    let transactions = group.all().transactions;
    assert!((1 << 32..(1 << 32) + 32).contains(&transactions), "{transactions:#x}");
}

/// Would miss: a group that is used although it is hidden, too small, or blind to what is wanted.
#[test]
fn every_reason_to_refuse() {
    let relocated = 1 | 31 << 8 | RELOCATED;
    for (cfgr, ceid0, expected) in [
        (0, 0, PmcgError::Hidden { cfgr: 0 }),
        (31 << 8, 0x06, PmcgError::TooFew { counters: 1 }),
        (1 | 31 << 8, 0x14, PmcgError::NoEvent { ceid0: 0x14 }),
        (relocated, 0x06, PmcgError::NoPage1 { cfgr: relocated }),
    ] {
        let mut fake = Fake { has_page1: false, ..fake(cfgr, ceid0) };
        assert_eq!(Pmcg::start(&mut fake, []).err(), Some(expected));
    }
}
