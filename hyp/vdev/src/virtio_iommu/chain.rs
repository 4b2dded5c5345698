//! A buffer: a chain of descriptors, copied once.

use bulkhead_core::addr::Ipa;
use heapless::Vec;

use super::{bytes, queue::Queue};
use crate::dmamap::GuestMemory;

/// Most descriptors of a chain; Linux uses two.
pub const LINKS_MAX: usize = 8;
/// Bytes that are read of one: as many as the longest request has (PROBE).
pub const READ_MAX: usize = 72;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// The part of a buffer that the device writes.
#[derive(Clone, Default, Debug)]
pub struct Answer {
    parts: Vec<(Ipa, u32), LINKS_MAX>,
}

/// A buffer as it was read: nothing of it is read again.
#[derive(Debug)]
pub struct Chain {
    read: Vec<u8, READ_MAX>,
    /// What may be written.
    pub answer: Answer,
}

impl Chain {
    /// Follows the chain from `head` on. `None` when it is none: too long, a loop, past the queue's end, indirect, out
    /// of RAM, or with something to read after something to write.
    pub fn read(queue: &Queue, memory: &mut impl GuestMemory, head: u16) -> Option<Self> {
        let mut chain = Self { read: Vec::new(), answer: Answer::default() };
        let mut number = head;
        for _ in 0..LINKS_MAX {
            let link = queue.descriptor(memory, number)?;
            if link.flags & INDIRECT != 0 {
                return None;
            }
            if link.flags & WRITE != 0 {
                chain.answer.parts.push((link.at, link.bytes)).ok()?;
            } else if chain.answer.parts.is_empty() {
                chain.copy(memory, link.at, link.bytes)?;
            } else {
                return None;
            }
            if link.flags & NEXT == 0 {
                return Some(chain);
            }
            number = link.next;
        }
        None
    }

    /// What the driver wrote, as far as a request goes.
    pub fn request(&self) -> &[u8] {
        &self.read
    }

    fn copy(&mut self, memory: &mut impl GuestMemory, at: Ipa, bytes: u32) -> Option<()> {
        let start = self.read.len();
        let end = start.saturating_add(usize::try_from(bytes).ok()?).min(READ_MAX);
        self.read.resize(end, 0).ok()?;
        bytes::read(memory, at, self.read.get_mut(start..)?)
    }
}

impl Answer {
    /// Bytes that can be written.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|(_, bytes)| u64::from(*bytes)).sum()
    }

    /// Writes `what`, `offset` bytes into it; `None` where there is no room or no RAM.
    pub fn write(&self, memory: &mut impl GuestMemory, offset: u64, what: &[u8]) -> Option<()> {
        let (mut skip, mut rest) = (offset, what);
        for (at, bytes) in &self.parts {
            let bytes = u64::from(*bytes);
            if skip >= bytes {
                skip -= bytes;
                continue;
            }
            let room = usize::try_from(bytes - skip).unwrap_or(usize::MAX).min(rest.len());
            let (part, more) = rest.split_at_checked(room)?;
            bytes::write(memory, at.checked_add(skip)?, part)?;
            (skip, rest) = (0, more);
        }
        rest.is_empty().then_some(())
    }
}
