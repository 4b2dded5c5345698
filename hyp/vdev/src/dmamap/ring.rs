//! A run through a channel's ring: at most 128 entries, each read once, one flush, then the statuses.

use bulkhead_abi::{
    Error,
    ring::{Header, LAYOUT, MAGIC, RUN_MAX, ring_bytes},
};
use bulkhead_core::addr::Ipa;

use super::{Channel, Entries, GuestMemory, entries::Outcome, memory};
use crate::memory::{WORD_BYTES, Word};

/// A ring that was in the VM's RAM, whole, when it was set up: the VM's RAM stays where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ring {
    pub(super) at: Ipa,
    pub(super) bytes: u64,
    /// The hypervisor's own: what the guest does to the copy in memory changes nothing.
    pub(super) consumer: u32,
}

/// What a run did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Entries consumed.
    pub consumed: u32,
    /// Entries left in the ring.
    pub left: u32,
    /// Entries of those consumed that got an error.
    pub failed: u32,
}

const HEADER_WORDS: usize = size_of::<Header>() / WORD_BYTES;

/// The place of a field in the header's words.
macro_rules! word {
    ($field:ident) => {
        const { core::mem::offset_of!(Header, $field) / WORD_BYTES }
    };
}

impl Ring {
    /// The ring at `at`, and its bytes.
    pub(super) fn setup(memory: &mut impl GuestMemory, at: Ipa, log2_entries: u64) -> Result<(Self, u64), Error> {
        let bytes = ring_bytes(log2_entries).ok_or(Error::Invalid)?;
        let words = memory::words(memory, at, bytes)?;
        let header = words.first_chunk::<HEADER_WORDS>().ok_or(Error::BadRing)?;
        let magic = header[word!(magic)].get();
        let layout = low_half(header[word!(layout)].get());
        let producer = low_half(header[word!(producer)].get());
        if (magic, layout, producer) != (MAGIC, LAYOUT, 0) {
            return Err(Error::BadRing);
        }
        header[word!(consumer)].set(0);
        Ok((Self { at, bytes, consumer: 0 }, bytes))
    }

    /// Takes what is in the ring, which is `words`; `each` does the entries on `channel`.
    pub(super) fn run<C: Channel, W: Word>(
        &mut self,
        words: &[W],
        channel: &mut C,
        each: impl FnOnce(&mut C, &mut Entries<'_, W>),
    ) -> Result<Run, Error> {
        let (header, lines) = words.split_first_chunk::<HEADER_WORDS>().ok_or(Error::BadRing)?;
        let (lines, _) = lines.as_chunks();
        // The entries are read after the index that says they are there (DDI 0487 B2.3, Load-Acquire): one barrier for all.
        let producer = low_half(header[word!(producer)].get_acquire());
        let pending = producer.wrapping_sub(self.consumer);
        if pending as usize > lines.len() {
            return Err(Error::BadRing);
        }
        let mut outcomes = [Outcome::Done; RUN_MAX as usize];
        let outcomes = outcomes.get_mut(..pending.min(RUN_MAX) as usize).unwrap_or_default();
        let mut entries = Entries::new(lines, self.consumer, outcomes);
        each(channel, &mut entries);
        // The one flush: no status says that a page is gone before it is.
        let flushed = channel.finish();
        let (consumed, failed) = entries.settle(flushed);
        self.consumer = self.consumer.wrapping_add(consumed);
        header[word!(consumer)].set_release(self.consumer.into());
        Ok(Run { consumed, left: pending - consumed, failed })
    }
}

/// Takes what is in the channel's ring.
pub(super) fn run<C: Channel>(channel: &mut C, memory: &mut impl GuestMemory) -> Result<Run, Error> {
    let mut ring = (*channel.ring()).ok_or(Error::NoRing)?;
    let words = memory::words(memory, ring.at, ring.bytes)?;
    let run = ring.run(words, channel, C::entries)?;
    *channel.ring() = Some(ring);
    Ok(run)
}

fn low_half(word: u64) -> u32 {
    let [a, b, c, d, ..] = word.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
