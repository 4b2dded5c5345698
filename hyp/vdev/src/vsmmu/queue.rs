//! A circular queue in the guest's memory: where it is, and what its indices say (IHI 0070 3.5.1).

use bulkhead_core::addr::Ipa;

/// A queue as its BASE register describes it.
///
/// A size past the largest is taken as the largest, and the base is aligned to the size in bytes (6.3, CMDQ_BASE): a queue
/// lies in one page.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    base: u64,
    log2: u32,
    entry_log2: u32,
}

/// Bits 55:5 of a queue's base register.
const BASE: u64 = 0x00ff_ffff_ffff_ffe0;

impl Queue {
    /// From the register, the largest size in entries and the size of an entry in bytes, as logarithms.
    #[inline(always)]
    pub fn new(register: u64, log2_max: u32, entry_log2: u32) -> Self {
        let [low, ..] = register.to_le_bytes();
        let log2 = u32::from(low & 0x1f).min(log2_max);
        Self { base: register & BASE & !((1 << (log2 + entry_log2)) - 1), log2, entry_log2 }
    }

    /// The bits of an index: the place, and the wrap flag above it.
    #[inline(always)]
    pub fn index(&self, register: u32) -> u32 {
        register & ((2 << self.log2) - 1)
    }

    /// The index `by` entries on.
    #[inline(always)]
    pub fn advance(&self, index: u32, by: u32) -> u32 {
        self.index(index.wrapping_add(by))
    }

    /// Whether the producer cannot add one.
    pub fn is_full(&self, producer: u32, consumer: u32) -> bool {
        self.index(producer ^ consumer) == 1 << self.log2
    }

    /// Entries from the consumer on to the producer, as far as they lie one after the other. An index that is too far ahead
    /// (CONSTRAINED UNPREDICTABLE) is reached like any other.
    #[inline(always)]
    pub fn run(&self, producer: u32, consumer: u32) -> u32 {
        let size = 1_u32 << self.log2;
        let ahead = self.index(producer.wrapping_sub(consumer));
        ahead.min(size.wrapping_sub(consumer & size.wrapping_sub(1)))
    }

    /// Where the entry of an index is.
    #[inline(always)]
    pub fn at(&self, index: u32) -> Ipa {
        let place = u64::from(index & ((1 << self.log2) - 1));
        Ipa::new(self.base | place << self.entry_log2)
    }
}
