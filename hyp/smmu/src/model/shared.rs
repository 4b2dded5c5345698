//! Frames that CPUs store to as atomics, without a word to the model: tables that belong to another crate.

use std::{boxed::Box, collections::BTreeMap};

/// A frame of 512 words that are somewhere else.
pub trait SharedFrame {
    /// What a CPU reads.
    fn load(&self, word: usize) -> u64;

    /// Replaces `old` by `new` atomically, as an SMMU does that sets an access flag; false if something else is there.
    fn update(&self, word: usize, old: u64, new: u64) -> bool;

    /// All words, as a barrier makes them visible.
    fn copy_to(&self, words: &mut [u64; 512]) {
        for (place, word) in words.iter_mut().enumerate() {
            *word = self.load(place);
        }
    }
}

/// The shared frames, by page number.
#[derive(Default)]
pub(super) struct SharedFrames(BTreeMap<u64, Box<dyn SharedFrame>>);

impl SharedFrames {
    pub(super) fn insert(&mut self, page: u64, frame: Box<dyn SharedFrame>) {
        self.0.insert(page, frame);
    }

    pub(super) fn load(&self, at: u64) -> Option<u64> {
        let frame = self.0.get(&(at / 4096))?;
        Some(frame.load(usize::try_from(at % 4096 / 8).ok()?))
    }

    pub(super) fn update(&self, at: u64, old: u64, new: u64) -> Option<bool> {
        let frame = self.0.get(&(at / 4096))?;
        Some(frame.update(usize::try_from(at % 4096 / 8).ok()?, old, new))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &dyn SharedFrame)> {
        self.0.iter().map(|(page, frame)| (*page, &**frame))
    }
}
