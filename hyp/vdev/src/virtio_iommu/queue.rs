//! A split virtqueue (virtio 1.3, 2.7), without indirect descriptors and without EVENT_IDX.

use core::sync::atomic::{Ordering::SeqCst, fence};

use bulkhead_core::addr::Ipa;

use super::bytes;
use crate::dmamap::GuestMemory;

/// Most descriptors of a queue.
pub const SIZE_MAX: u16 = 64;
/// VIRTQ_AVAIL_F_NO_INTERRUPT.
const NO_INTERRUPT: u16 = 1;
/// Bytes before the entries of the available and of the used ring.
const RING_HEADER: u64 = 4;
/// Bytes from a ring's start to its `idx`.
const RING_INDEX: u64 = 2;

/// The queue is not one: it is not in RAM, or its indices cannot be. The device needs a reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken;

/// One queue of a device.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    /// Descriptors, as the driver has it.
    pub size: u32,
    /// QueueReady.
    pub is_ready: bool,
    /// Descriptor area.
    pub descriptors: u64,
    /// Driver area: the available ring.
    pub available: u64,
    /// Device area: the used ring.
    pub used: u64,
    /// The next entry of the available ring.
    next: u16,
    /// Entries of the used ring that the driver knows of.
    published: u16,
    /// Entries of the used ring that were written.
    filled: u16,
}

/// A descriptor as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// Where the buffer is.
    pub at: Ipa,
    /// Its bytes.
    pub bytes: u32,
    /// VIRTQ_DESC_F_*.
    pub flags: u16,
    /// The next one's number.
    pub next: u16,
}

impl Queue {
    /// A queue that is not set up.
    pub const fn new() -> Self {
        Self {
            size: SIZE_MAX as u32,
            is_ready: false,
            descriptors: 0,
            available: 0,
            used: 0,
            next: 0,
            published: 0,
            filled: 0,
        }
    }

    /// QueueReady is written. A queue of no sound size or place does not become ready (2.7: sizes and alignments).
    pub fn set_ready(&mut self, is_ready: bool) {
        if is_ready && self.is_ready {
            return;
        }
        let is_sound = self.size.is_power_of_two()
            && self.size <= SIZE_MAX.into()
            && self.descriptors.is_multiple_of(16)
            && self.available.is_multiple_of(2)
            && self.used.is_multiple_of(4);
        self.is_ready = is_ready && is_sound;
        (self.next, self.published, self.filled) = (0, 0, 0);
    }

    /// How many buffers wait.
    pub fn waiting(&self, memory: &mut impl GuestMemory) -> Result<u16, Broken> {
        let index = field(self.available, RING_INDEX).and_then(|at| bytes::read_u16(memory, at)).ok_or(Broken)?;
        let waiting = index.wrapping_sub(self.next);
        if u32::from(waiting) > self.size { Err(Broken) } else { Ok(waiting) }
    }

    /// Takes the next buffer, which waits: the number of its first descriptor.
    pub fn take(&mut self, memory: &mut impl GuestMemory) -> Result<u16, Broken> {
        let at = field(self.available, RING_HEADER + 2 * self.place(self.next)).ok_or(Broken)?;
        let head = bytes::read_u16(memory, at).filter(|head| u32::from(*head) < self.size).ok_or(Broken)?;
        self.next = self.next.wrapping_add(1);
        Ok(head)
    }

    /// A descriptor, read once; `None` for a number that there is not, or where there is no RAM.
    pub fn descriptor(&self, memory: &mut impl GuestMemory, number: u16) -> Option<Descriptor> {
        if u32::from(number) >= self.size {
            return None;
        }
        let mut raw = [0; 16];
        bytes::read(memory, field(self.descriptors, 16 * u64::from(number))?, &mut raw)?;
        let (address, rest) = raw.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (flags, rest) = rest.split_first_chunk::<2>()?;
        let (next, _) = rest.split_first_chunk::<2>()?;
        Some(Descriptor {
            at: Ipa::new(u64::from_le_bytes(*address)),
            bytes: u32::from_le_bytes(*length),
            flags: u16::from_le_bytes(*flags),
            next: u16::from_le_bytes(*next),
        })
    }

    /// Gives a buffer back, of which `written` bytes were written. The driver learns of it by [`Self::publish`].
    pub fn fill(&mut self, memory: &mut impl GuestMemory, head: u16, written: u32) -> Result<(), Broken> {
        let at = field(self.used, RING_HEADER + 8 * self.place(self.filled)).ok_or(Broken)?;
        let [a, b, c, d] = u32::from(head).to_le_bytes();
        let [e, f, g, h] = written.to_le_bytes();
        bytes::write(memory, at, &[a, b, c, d, e, f, g, h]).ok_or(Broken)?;
        self.filled = self.filled.wrapping_add(1);
        Ok(())
    }

    /// Whether there is something to publish.
    pub const fn has_filled(&self) -> bool {
        self.filled != self.published
    }

    /// Tells the driver of what was given back. Whether it wants an interrupt for it.
    pub fn publish(&mut self, memory: &mut impl GuestMemory) -> Result<bool, Broken> {
        let at = field(self.used, RING_INDEX).ok_or(Broken)?;
        bytes::publish_u16(memory, at, self.filled).ok_or(Broken)?;
        self.published = self.filled;
        // The driver allows interrupts, then looks at `idx`; the other way round here (2.7.7).
        fence(SeqCst);
        let flags = field(self.available, 0).and_then(|at| bytes::read_u16(memory, at)).ok_or(Broken)?;
        Ok(flags & NO_INTERRUPT == 0)
    }

    /// Place of an entry in a ring.
    fn place(&self, index: u16) -> u64 {
        u64::from(u32::from(index).checked_rem(self.size).unwrap_or(0))
    }
}

/// The address `offset` bytes into a ring.
fn field(base: u64, offset: u64) -> Option<Ipa> {
    Ipa::new(base).checked_add(offset)
}
