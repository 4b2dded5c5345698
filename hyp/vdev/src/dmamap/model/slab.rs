//! A guest's RAM as words that both sides reach.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bulkhead_core::addr::{AddrRange, BLOCK_2M, Ipa};

use crate::dmamap::GuestMemory;

/// RAM from an IPA on.
#[derive(Clone, Copy, Debug)]
pub struct Slab<'m> {
    base: Ipa,
    words: &'m [AtomicU64],
}

impl<'m> Slab<'m> {
    /// `words` as RAM at `base`, which is a multiple of 8.
    pub fn new(base: Ipa, words: &'m [AtomicU64]) -> Self {
        Self { base, words }
    }

    /// Where it is.
    pub fn ram(&self) -> Option<AddrRange<Ipa>> {
        AddrRange::new(self.base, u64::try_from(self.words.len()).ok()?.checked_mul(8)?)
    }

    /// Place of the first byte of `bytes` bytes at `at`, if they are all there.
    fn place(&self, at: Ipa, bytes: usize) -> Option<usize> {
        let start = usize::try_from(at.checked_sub(self.base)?).ok()?;
        (start.checked_add(bytes)? <= self.words.len().checked_mul(8)?).then_some(start)
    }
}

impl Slab<'_> {
    /// Copies memory at `at` out; `None` if not all of it is there.
    pub fn read(&self, at: Ipa, into: &mut [u8]) -> Option<()> {
        let start = self.place(at, into.len())?;
        for (place, byte) in (start..).zip(into) {
            *byte = *self.words.get(place / 8)?.load(Relaxed).to_ne_bytes().get(place % 8)?;
        }
        Some(())
    }

    /// Copies to memory at `at`; `None`, and nothing written, if not all of it is there.
    pub fn write(&self, at: Ipa, from: &[u8]) -> Option<()> {
        let start = self.place(at, from.len())?;
        for (place, byte) in (start..).zip(from) {
            let word = self.words.get(place / 8)?;
            let mut bytes = word.load(Relaxed).to_ne_bytes();
            *bytes.get_mut(place % 8)? = *byte;
            word.store(u64::from_ne_bytes(bytes), Relaxed);
        }
        Some(())
    }
}

impl GuestMemory for Slab<'_> {
    fn words(&mut self, at: Ipa, count: usize) -> Option<&[AtomicU64]> {
        let bytes = count.checked_mul(8)?;
        let start = self.place(at, bytes)?;
        // What the hypervisor opens at a time.
        assert!(at.is_aligned(8) && at.as_u64() % BLOCK_2M + bytes as u64 <= BLOCK_2M, "{at} is not for {count} words");
        self.words.get(start / 8..)?.get(..count)
    }
}
