//! Memory as the CPU sees it and as the SMMU sees it: caches and write buffers between the two.

use std::{boxed::Box, collections::BTreeMap, ops::Range, vec::Vec};

use super::{
    Visibility,
    shared::{SharedFrame, SharedFrames},
};

const LINE_BYTES: u64 = 64;
/// What memory holds before it is zeroed, as the SMMU sees it: a valid bypass entry, should it be taken for one.
const GARBAGE: u64 = 0b1001;

#[derive(Default, Clone)]
struct Line {
    words: [Option<u64>; 8],
    dirty: [bool; 8],
}

/// Memory just allocated, whose zeroes the SMMU may not see yet.
struct Fresh {
    range: Range<u64>,
    is_cleaned: bool,
}

pub(super) struct Memory {
    exists: Range<u64>,
    is_coherent: bool,
    visibility: Visibility,
    /// What the SMMU sees; a word that was never written is zero.
    words: Words,
    /// Written (and cleaned), not yet ordered by a barrier.
    unordered: BTreeMap<u64, u64>,
    /// The CPU's cache, where the SMMU is not coherent with it.
    lines: BTreeMap<u64, Line>,
    fresh: Vec<Fresh>,
    /// Frames whose words are elsewhere: `words` has them as of the last barrier.
    shared: SharedFrames,
}

/// A page of words, and which of them were written, a bit each.
struct Page {
    values: [u64; 512],
    written: [u64; 8],
}

/// Words by address, in pages: every step of a long run goes through here.
#[derive(Default)]
struct Words(BTreeMap<u64, Box<Page>>);

impl Words {
    fn get(&self, at: u64) -> Option<u64> {
        let page = self.0.get(&(at / 4096))?;
        let word = usize::try_from(at % 4096 / 8).ok()?;
        (page.written[word / 64] & 1 << (word % 64) != 0).then_some(page.values[word])
    }

    fn insert(&mut self, at: u64, value: u64) {
        let Ok(word) = usize::try_from(at % 4096 / 8) else { return };
        let page = self.page(at / 4096);
        page.values[word] = value;
        page.written[word / 64] |= 1 << (word % 64);
    }

    fn page(&mut self, number: u64) -> &mut Page {
        self.0.entry(number).or_insert_with(|| Box::new(Page { values: [0; 512], written: [0; 8] }))
    }
}

/// A line index within 0..8.
fn word_of(at: u64) -> usize {
    usize::try_from(at % LINE_BYTES / 8).unwrap_or(0)
}

impl Memory {
    pub(super) fn new(exists: Range<u64>, is_coherent: bool, visibility: Visibility) -> Self {
        Self {
            exists,
            is_coherent,
            visibility,
            words: Words::default(),
            unordered: BTreeMap::new(),
            lines: BTreeMap::new(),
            fresh: Vec::new(),
            shared: SharedFrames::default(),
        }
    }

    pub(super) fn has(&self, at: u64) -> bool {
        self.exists.contains(&at) && at.is_multiple_of(8)
    }

    /// Memory that the CPU has just zeroed.
    pub(super) fn add_fresh(&mut self, range: Range<u64>) {
        self.fresh.push(Fresh { range, is_cleaned: self.is_coherent });
    }

    /// From now on the frame's words are those of `frame`, which a coherent SMMU sees.
    pub(super) fn share(&mut self, at: u64, frame: Box<dyn SharedFrame>) {
        self.shared.insert(at / 4096, frame);
        self.publish_shared();
    }

    fn publish_shared(&mut self) {
        for (number, frame) in self.shared.iter() {
            let page = self.words.page(number);
            frame.copy_to(&mut page.values);
            page.written = [u64::MAX; 8];
        }
    }

    pub(super) fn cpu_write(&mut self, at: u64, value: u64) {
        if self.is_coherent {
            self.unordered.insert(at, value);
        } else {
            let line = self.lines.entry(at / LINE_BYTES).or_default();
            line.words[word_of(at)] = Some(value);
            line.dirty[word_of(at)] = true;
        }
        if self.visibility == Visibility::Early {
            self.words.insert(at, value);
        }
    }

    pub(super) fn cpu_read(&mut self, at: u64) -> u64 {
        let below = self.below_cache(at);
        if self.is_coherent {
            return below;
        }
        let line = self.lines.entry(at / LINE_BYTES).or_default();
        *line.words[word_of(at)].get_or_insert(below)
    }

    /// What the CPU would read, without filling its cache.
    pub(super) fn cpu_peek(&self, at: u64) -> u64 {
        let cached = self.lines.get(&(at / LINE_BYTES)).and_then(|line| line.words[word_of(at)]);
        cached.unwrap_or_else(|| self.below_cache(at))
    }

    fn below_cache(&self, at: u64) -> u64 {
        let ordered = self.words.get(at).unwrap_or(0);
        self.unordered.get(&at).copied().unwrap_or(ordered)
    }

    pub(super) fn clean(&mut self, range: Range<u64>) {
        for fresh in &mut self.fresh {
            fresh.is_cleaned |= range.start <= fresh.range.start && fresh.range.end <= range.end;
        }
        let lines = range.start / LINE_BYTES..range.end.div_ceil(LINE_BYTES);
        for (index, line) in self.lines.range_mut(lines) {
            for (word, (value, is_dirty)) in (0u64..).zip(line.words.iter().zip(&mut line.dirty)) {
                if let (Some(value), true) = (value, *is_dirty) {
                    let at = index * LINE_BYTES + word * 8;
                    self.unordered.insert(at, *value);
                    if self.visibility == Visibility::Early {
                        self.words.insert(at, *value);
                    }
                    *is_dirty = false;
                }
            }
        }
    }

    /// Drops the lines. Returns the address of a line that was dirty, whose writes are lost.
    pub(super) fn invalidate(&mut self, range: Range<u64>) -> Option<u64> {
        let lines: Vec<u64> = self
            .lines
            .range(range.start / LINE_BYTES..range.end.div_ceil(LINE_BYTES))
            .map(|(index, _)| *index)
            .collect();
        let mut lost = None;
        for index in lines {
            let line = self.lines.remove(&index);
            if line.is_some_and(|line| line.dirty.contains(&true)) {
                lost = Some(index * LINE_BYTES);
            }
        }
        lost
    }

    pub(super) fn barrier(&mut self) {
        for (at, value) in core::mem::take(&mut self.unordered) {
            self.words.insert(at, value);
        }
        self.publish_shared();
        self.fresh.retain(|fresh| !fresh.is_cleaned);
    }

    /// What the SMMU reads; `None` where there is no memory.
    pub(super) fn device_read(&self, at: u64) -> Option<u64> {
        if !self.has(at) {
            return None;
        }
        if self.visibility == Visibility::Early
            && let Some(value) = self.shared.load(at)
        {
            return Some(value);
        }
        // Stores are not ordered: a pointer to fresh memory may be seen before its zeroes.
        let is_garbage = self.fresh.iter().any(|fresh| fresh.range.contains(&at));
        let default = if is_garbage { GARBAGE } else { 0 };
        Some(self.words.get(at).unwrap_or(default))
    }

    /// The SMMU writes. False where there is no memory.
    pub(super) fn device_write(&mut self, at: u64, value: u64) -> bool {
        let has = self.has(at);
        if has {
            self.words.insert(at, value);
            if self.is_coherent {
                self.unordered.remove(&at);
            }
        }
        has
    }

    /// The SMMU replaces `old`, which it has read at `at`, by `new`, atomically; false if something else is there by now.
    /// A plain store of the CPU that is not ordered yet comes after it.
    pub(super) fn device_update(&mut self, at: u64, old: u64, new: u64) -> bool {
        let is_updated = self.shared.update(at, old, new).unwrap_or(true);
        if is_updated {
            self.words.insert(at, new);
        }
        is_updated
    }

    /// The CPU's atomic exchange, in memory that the SMMU is coherent with: all have seen the new value when it is done.
    pub(super) fn cpu_exchange(&mut self, at: u64, value: u64) -> u64 {
        let old = self.below_cache(at);
        self.unordered.remove(&at);
        self.words.insert(at, value);
        old
    }

    /// Whether the SMMU is sure to see what the CPU wrote there.
    pub(super) fn is_published(&self, at: u64) -> bool {
        let is_dirty = self.lines.get(&(at / LINE_BYTES)).is_some_and(|line| line.dirty[word_of(at)]);
        let is_fresh = self.fresh.iter().any(|fresh| fresh.range.contains(&at)) && self.words.get(at).is_none();
        !is_dirty && !is_fresh && !self.unordered.contains_key(&at)
    }
}
