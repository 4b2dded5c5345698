//! Domains as lists of mappings, which hold the device to its side of the trait.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::{collections::BTreeMap, rc::Rc, vec::Vec};

use bulkhead_core::{addr::PAGE_SIZE, vplat::DEVICES_MAX};

use super::{
    super::{Domains, Failed, MapRefused, Mapping, NoTables, Range, Reach, Splits},
    ENDPOINTS, LAST, MSI, RAM, RAM_BYTES, USED,
};

/// Bytes that one step maps or unmaps.
const STEP: u64 = 4 * PAGE_SIZE;

/// A mapping: its last address, the first guest-physical one, whether it may be read and written, and how much of it is
/// made.
pub type Made = (u64, u64, bool, bool, u64);

pub struct Naive {
    words: Rc<Vec<AtomicU64>>,
    pub domains: [Option<BTreeMap<u64, Made>>; DEVICES_MAX],
    pub reach: BTreeMap<u32, Reach>,
    /// Domains that there may be.
    pub tables: usize,
    /// `sync` fails from now on.
    pub is_stuck: bool,
    /// What was unmapped since the last sync, and what the used ring's `idx` was then.
    unflushed: Option<u16>,
    pub syncs: u32,
    pub attaches: u32,
}

impl Naive {
    pub fn new(words: Rc<Vec<AtomicU64>>) -> Self {
        Self {
            words,
            domains: [const { None }; DEVICES_MAX],
            reach: ENDPOINTS.iter().map(|endpoint| (*endpoint, Reach::Nothing)).collect(),
            tables: DEVICES_MAX,
            is_stuck: false,
            unflushed: None,
            syncs: 0,
            attaches: 0,
        }
    }

    fn used_index(&self) -> u16 {
        let word = self.words[usize::try_from((USED - RAM) / 8).expect("small")].load(Relaxed);
        u16::try_from(word >> 16 & 0xffff).expect("16 bits")
    }

    fn at(&mut self, place: usize) -> &mut BTreeMap<u64, Made> {
        self.domains[place].as_mut().expect("a domain that was created")
    }
}

impl Domains for Naive {
    fn create(&mut self, place: usize) -> Result<(), NoTables> {
        assert!(self.domains[place].is_none(), "place {place} is in use");
        if self.domains.iter().flatten().count() == self.tables {
            return Err(NoTables);
        }
        self.domains[place] = Some(BTreeMap::new());
        Ok(())
    }

    fn destroy(&mut self, place: usize) -> Result<(), Failed> {
        assert!(!self.reach.values().any(|reach| *reach == Reach::Domain(place)), "an endpoint walks it");
        assert!(self.domains[place].take().is_some(), "no domain in place {place}");
        Ok(())
    }

    fn attach(&mut self, endpoint: u32, reach: Reach) -> Result<(), Failed> {
        if let Reach::Domain(place) = reach {
            assert!(self.domains[place].is_some(), "no domain in place {place}");
        }
        *self.reach.get_mut(&endpoint).expect("an endpoint of the VM") = reach;
        self.attaches += 1;
        if self.is_stuck { Err(Failed) } else { Ok(()) }
    }

    fn map(&mut self, place: usize, mapping: &Mapping, done: u64) -> Result<u64, MapRefused> {
        let Mapping { range: Range { first, last }, ipa, is_readable, is_writable } = *mapping;
        assert!(first <= last && last <= LAST && (first | ipa | (last + 1)) % PAGE_SIZE == 0, "{mapping:x?}");
        assert!(last < MSI.first || first > MSI.last, "{mapping:x?} takes MSIs");
        let made = (done + STEP).min(last - first + 1);
        let in_ram = ipa >= RAM && ipa.checked_add(made).is_some_and(|end| end <= RAM + RAM_BYTES);
        let domain = self.at(place);
        let end = first + made - 1;
        if domain.range(..=end).any(|(other, (last, ..))| *other != first && *last >= first)
            || (done == 0 && domain.contains_key(&first))
        {
            return Err(MapRefused::Mapped);
        }
        if !in_ram {
            return Err(MapRefused::NotRam);
        }
        domain.insert(first, (last, ipa, is_readable, is_writable, made));
        // As it is made: nobody else's mapping can lie in the rest meanwhile.
        domain.get_mut(&first).expect("inserted").0 = end;
        Ok(made)
    }

    fn check_unmap(&mut self, place: usize, range: Range) -> Result<(), Splits> {
        let splits = |(first, (last, ..)): (&u64, &Made)| {
            let is_touched = *first <= range.last && range.first <= *last;
            is_touched && !(range.first <= *first && *last <= range.last)
        };
        if self.at(place).iter().any(splits) { Err(Splits) } else { Ok(()) }
    }

    fn unmap(&mut self, place: usize, range: Range, from: u64) -> Option<u64> {
        assert!((range.first..=range.last).contains(&from));
        let end = from.saturating_add(STEP - 1).min(range.last);
        let index = self.used_index();
        let domain = self.at(place);
        let before = domain.len();
        domain.retain(|first, _| !(from..=end).contains(first));
        // The rest of a long mapping goes with its first page: nothing else tells them apart here.
        let has_more = end < range.last && domain.range(end..=range.last).next().is_some();
        if domain.len() != before {
            self.unflushed = Some(index);
        }
        has_more.then(|| end + 1)
    }

    fn sync(&mut self) -> Result<(), Failed> {
        if let Some(index) = self.unflushed.take() {
            assert_eq!(self.used_index(), index, "the driver was told of an unmap that is not flushed");
        }
        self.syncs += 1;
        if self.is_stuck { Err(Failed) } else { Ok(()) }
    }
}

impl Drop for Naive {
    fn drop(&mut self) {
        if !std::thread::panicking()
            && !self.is_stuck
            && let Some(index) = self.unflushed
        {
            assert_eq!(self.used_index(), index, "the driver was told of an unmap that is not flushed");
        }
    }
}
