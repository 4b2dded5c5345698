//! The event queue's consumer side (IHI 0070 3.5, 7.2, 7.4).

use bulkhead_core::addr::PhysAddr;

use crate::{
    event::{EVENT_BYTES, EVENT_WORDS, Event},
    platform::Platform,
    registers::offset,
};

/// EVENTQ_PROD.OVFLG and EVENTQ_CONS.OVACKFLG: events were dropped while the two differ.
const OVERFLOW: u32 = 1 << 31;

/// The consumer's side of the event queue.
pub(crate) struct Evtq {
    base: PhysAddr,
    log2: u8,
    /// Read index with its wrap bit above, and OVACKFLG.
    cons: u32,
    is_coherent: bool,
}

/// One step of reading.
pub(crate) enum Next {
    Event(Event),
    Empty,
}

impl Evtq {
    /// An empty queue of `2^log2` events at `base`, aligned to its size.
    pub(crate) fn new(base: PhysAddr, log2: u8, is_coherent: bool) -> Self {
        Self { base, log2, cons: 0, is_coherent }
    }

    const fn index_mask(&self) -> u32 {
        (2 << self.log2) - 1
    }

    /// Takes the oldest event out of the queue. The producer's index is believed only as far as the queue is long.
    pub(crate) fn next<P: Platform>(&mut self, platform: &mut P) -> Next {
        let prod = platform.read32(offset::EVENTQ_PROD) & self.index_mask();
        let read = self.cons & self.index_mask();
        if prod == read {
            return Next::Empty;
        }
        // The record is read after PROD (3.5.1).
        platform.barrier();
        let index = u64::from(read & (self.index_mask() >> 1));
        let mut raw = [0; EVENT_WORDS];
        if let Some(slot) = self.base.checked_add(index * EVENT_BYTES) {
            if !self.is_coherent {
                platform.invalidate(slot, EVENT_BYTES);
            }
            for (word, at) in raw.iter_mut().zip((0u64..).step_by(8)) {
                if let Some(at) = slot.checked_add(at) {
                    *word = platform.read_memory(at);
                }
            }
        }
        self.cons = (self.cons & OVERFLOW) | (read.wrapping_add(1) & self.index_mask());
        Next::Event(Event::decode(raw))
    }

    /// Gives the slots read so far back to the SMMU and acknowledges an overflow. Returns whether there was one, and
    /// whether more events are waiting.
    pub(crate) fn release<P: Platform>(&mut self, platform: &mut P) -> (bool, bool) {
        // The records are read before their slots are given back (3.5.1).
        platform.barrier();
        let prod = platform.read32(offset::EVENTQ_PROD);
        let has_overflowed = (prod ^ self.cons) & OVERFLOW != 0;
        self.cons = (self.cons & !OVERFLOW) | (prod & OVERFLOW);
        platform.write32(offset::EVENTQ_CONS, self.cons);
        // What came before the store found the queue not empty, and raised no interrupt.
        let prod = platform.read32(offset::EVENTQ_PROD);
        let has_more = (prod ^ self.cons) & self.index_mask() != 0;
        (has_overflowed, has_more)
    }
}
