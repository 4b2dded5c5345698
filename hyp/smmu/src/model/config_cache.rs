//! The cache of stream table entries and level-1 descriptors, and the fetch behind it.

use std::{collections::BTreeMap, ops::Range, vec::Vec};

use super::{Caching, State};
use crate::registers::STRTAB_BASE_ADDR;

/// A valid entry that bypasses: what firmware may leave in the cache.
const BYPASS_WORD: u64 = 0b1001;

#[derive(Default)]
pub(super) struct ConfigCache {
    entries: BTreeMap<u32, [Option<u64>; 8]>,
    descriptors: BTreeMap<u32, u64>,
    /// Context descriptors by stream.
    contexts: BTreeMap<u32, [u64; 8]>,
    /// Level-2 tables that were ever put into the stream table: address, bytes, first stream.
    tables: Vec<(u64, u64, u32)>,
}

impl ConfigCache {
    pub(super) fn leave_bypass(&mut self, streams: Range<u32>) {
        for stream in streams {
            let mut words = [Some(0); 8];
            words[0] = Some(BYPASS_WORD);
            self.entries.insert(stream, words);
        }
    }

    pub(super) fn forget(&mut self, stream: u32, is_leaf: bool) {
        self.entries.remove(&stream);
        self.forget_contexts(stream);
        if !is_leaf {
            self.descriptors.clear();
        }
    }

    pub(super) fn forget_range(&mut self, first: u32, log2: u32) {
        let last = first | u32::try_from((1u64 << log2) - 1).unwrap_or(u32::MAX);
        self.entries.retain(|stream, _| !(first..=last).contains(stream));
        self.contexts.retain(|stream, _| !(first..=last).contains(stream));
        self.descriptors.clear();
    }

    pub(super) fn forget_all(&mut self) {
        self.entries.clear();
        self.descriptors.clear();
        self.contexts.clear();
    }

    pub(super) fn forget_contexts(&mut self, stream: u32) {
        self.contexts.remove(&stream);
    }

    pub(super) fn context(&self, stream: u32) -> Option<[u64; 8]> {
        self.contexts.get(&stream).copied()
    }

    pub(super) fn keep_context(&mut self, stream: u32, words: [u64; 8]) {
        self.contexts.insert(stream, words);
    }

    pub(super) fn forget_tables(&mut self) {
        self.tables.clear();
    }

    pub(super) fn add_table(&mut self, at: u64, bytes: u64, first_stream: u32) {
        self.tables.push((at, bytes, first_stream));
    }

    /// Whether a valid copy of the entry is cached.
    pub(super) fn has_valid(&self, stream: u32) -> bool {
        let word0 = self.entries.get(&stream).and_then(|words| words[0]);
        word0.is_some_and(|word0| word0 & 1 != 0)
    }

    /// Streams with something cached, and their words where all are known.
    pub(super) fn valid_entries(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.entries.iter().filter_map(|(stream, words)| {
            // With stage 1 or without.
            let is_stage2 = words[0]? & 0b1101 == 0b1101;
            is_stage2.then_some((*stream, words[3]?))
        })
    }
}

/// Why there is no entry for a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoEntry {
    BadStream,
    Fetch(u64),
}

impl State {
    fn table_log2(&self) -> u32 {
        self.regs.strtab_cfg & 0x3f
    }

    fn split(&self) -> Option<u32> {
        (self.regs.strtab_cfg >> 16 & 3 == 1).then_some(self.regs.strtab_cfg >> 6 & 0x1f)
    }

    pub(super) fn stream_table_bytes(&self) -> u64 {
        match self.split() {
            Some(split) => 8u64 << self.table_log2().saturating_sub(split),
            None => 64u64 << self.table_log2().min(32),
        }
    }

    /// Where the hardware takes the stream table to be.
    fn table_base(&self) -> u64 {
        self.regs.strtab_base & STRTAB_BASE_ADDR & !(self.stream_table_bytes().max(64) - 1)
    }

    /// Address of a stream's entry, from a level-1 descriptor where there are two levels.
    fn entry_at(&self, stream: u32, descriptor: impl Fn(u64) -> Option<u64>) -> Result<u64, NoEntry> {
        if u64::from(stream) >> self.table_log2() != 0 {
            return Err(NoEntry::BadStream);
        }
        let Some(split) = self.split() else {
            return Ok(self.table_base() + u64::from(stream) * 64);
        };
        let at = self.table_base() + u64::from(stream >> split) * 8;
        let descriptor = descriptor(at).ok_or(NoEntry::Fetch(at))?;
        let span = u32::try_from(descriptor & 31).unwrap_or(0);
        let index = u64::from(stream & ((1 << split) - 1));
        if span == 0 || span > split + 1 || index >> (span - 1) != 0 {
            return Err(NoEntry::BadStream);
        }
        let bytes = 64u64 << (span - 1);
        Ok((descriptor & STRTAB_BASE_ADDR & !(bytes - 1)) + index * 64)
    }

    /// The entry of `stream` as the SMMU has it: cached words first, and what is read is kept.
    pub(super) fn fetch_entry(&mut self, stream: u32) -> Result<[u64; 8], NoEntry> {
        if let Some(words) = self.configs.entries.get(&stream)
            && words.iter().all(Option::is_some)
        {
            return Ok(words.map(Option::unwrap_or_default));
        }
        let split = self.split().unwrap_or(0);
        let cached = self.configs.descriptors.get(&(stream >> split)).copied();
        let at = self.entry_at(stream, |at| cached.or_else(|| self.memory.device_read(at)));
        if let Some(split) = self.split() {
            let l1_at = self.table_base() + u64::from(stream >> split) * 8;
            if u64::from(stream) >> self.table_log2() == 0
                && let Some(descriptor) = cached.or_else(|| self.memory.device_read(l1_at))
                && (descriptor & 31 != 0 || self.config.caching == Caching::Whole)
            {
                self.configs.descriptors.insert(stream >> split, descriptor);
            }
        }
        let at = at?;
        let mut words = self.configs.entries.get(&stream).copied().unwrap_or_default();
        let mut entry = [0; 8];
        for ((cached, word), step) in words.iter_mut().zip(&mut entry).zip((0u64..).step_by(8)) {
            let read = self.memory.device_read(at + step).ok_or(NoEntry::Fetch(at))?;
            *word = *cached.get_or_insert(read);
        }
        if self.config.caching == Caching::ByWord && entry[0] & 1 == 0 {
            words[0] = None;
        }
        self.configs.entries.insert(stream, words);
        Ok(entry)
    }

    /// The entry in memory, as the SMMU would read it; nothing is cached by this.
    pub(super) fn peek_entry(&self, stream: u32) -> Option<[u64; 8]> {
        let at = self.entry_at(stream, |at| self.memory.device_read(at)).ok()?;
        let mut entry = [0; 8];
        for (word, step) in entry.iter_mut().zip((0u64..).step_by(8)) {
            *word = self.memory.device_read(at + step)?;
        }
        Some(entry)
    }

    /// Streams that have an entry in memory.
    pub(super) fn streams_in_memory(&self) -> Vec<u32> {
        match self.split() {
            None => (0..1u32 << self.table_log2().min(12)).collect(),
            Some(_) => {
                let tables = self.configs.tables.iter();
                tables
                    .flat_map(|(_, bytes, first)| {
                        let count = u32::try_from(bytes / 64).unwrap_or(0);
                        *first..*first + count
                    })
                    .collect()
            }
        }
    }

    /// The stream and the word index of a stream table word at `at`.
    pub(super) fn entry_word(&self, at: u64) -> Option<(u32, u64, u64)> {
        if !self.regs.is_enabled() && self.regs.strtab_base == 0 {
            return None;
        }
        let in_table = |start: u64, bytes: u64, first: u32| {
            let offset = at.checked_sub(start).filter(|offset| *offset < bytes)?;
            let stream = first + u32::try_from(offset / 64).ok()?;
            Some((stream, offset % 64 / 8, at - offset % 64))
        };
        match self.split() {
            None => in_table(self.table_base(), self.stream_table_bytes(), 0),
            Some(_) => self.configs.tables.iter().find_map(|(start, bytes, first)| in_table(*start, *bytes, *first)),
        }
    }

    /// A level-1 descriptor's write: the stream table grows.
    pub(super) fn note_descriptor(&mut self, at: u64, value: u64) {
        let Some(split) = self.split() else { return };
        let Some(offset) = at.checked_sub(self.table_base()) else { return };
        let span = u32::try_from(value & 31).unwrap_or(0);
        if offset >= self.stream_table_bytes() || span == 0 {
            return;
        }
        let bytes = 64u64 << (span - 1).min(split);
        let table = value & STRTAB_BASE_ADDR;
        if span > split + 1 || value & !(STRTAB_BASE_ADDR | 31) != 0 {
            self.reserved64("level-1 descriptor", value);
        }
        if table & (bytes - 1) != 0 {
            let what = "level-2 stream table";
            self.violations.push(super::Violation::Misaligned { what, base: table, alignment: bytes });
        }
        let first = u32::try_from(offset / 8).unwrap_or(0) << split;
        self.configs.add_table(table & !(bytes - 1), bytes, first);
    }
}
