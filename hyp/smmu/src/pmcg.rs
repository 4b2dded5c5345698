//! A performance monitor counter group: how often a stream's translations are found in the TLB (IHI 0070 chapter 10).

use bulkhead_core::ids::StreamId;
use tock_registers::register_bitfields;

/// Registers of one group, in 32-bit accesses, which 64-bit registers permit too (10.5).
pub trait PmcgRegisters {
    /// Reads at `offset` of page 0, or of page 1 where the counters are relocated to it.
    fn read32(&mut self, is_page1: bool, offset: u32) -> u32;
    /// Writes at `offset` of page 0, or of page 1.
    fn write32(&mut self, is_page1: bool, offset: u32, value: u32);
}

const EVCNTR: u32 = 0x000;
const EVTYPER: u32 = 0x400;
const SMR: u32 = 0xa00;
const CNTENSET0: u32 = 0xc00;
const CNTENCLR0: u32 = 0xc20;
const INTENCLR0: u32 = 0xc60;
const CFGR_OFFSET: u32 = 0xe00;
const CR: u32 = 0xe04;
const CEID0: u32 = 0xe20;

register_bitfields![u32,
    CFGR [
        NCTR OFFSET(0) NUMBITS(6) [],
        SIZE OFFSET(8) NUMBITS(6) [],
        RELOC_CTRS OFFSET(20) NUMBITS(1) []
    ],
    EVTYPE [
        EVENT OFFSET(0) NUMBITS(16) [Transaction = 1, TlbMiss = 2, WalkAccess = 4],
        FILTER_SID_SPAN OFFSET(29) NUMBITS(1) []
    ]
];

/// Events counted, by the counter that counts them (10.3).
const EVENTS: [u32; 3] = [1, 2, 4];
/// SMR that matches every stream, with FILTER_SID_SPAN (10.4).
const EVERY_STREAM: u32 = u32::MAX;

/// Why a group cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PmcgError {
    /// Secure firmware hides it (SCR.NSRA), or the size of its counters is reserved.
    #[error("the counter group is hidden or unknown (PMCG_CFGR {cfgr:#x})")]
    Hidden {
        /// PMCG_CFGR.
        cfgr: u32,
    },
    /// It has fewer counters than are needed.
    #[error("the counter group has {counters} counters, {} are needed", EVENTS.len())]
    TooFew {
        /// Its counters.
        counters: u32,
    },
    /// It does not count transactions, TLB misses or walks.
    #[error("the counter group does not count translations (PMCG_CEID0 {ceid0:#x})")]
    NoEvent {
        /// Low half of PMCG_CEID0.
        ceid0: u32,
    },
}

/// What was counted since the group was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Translations {
    /// Transactions.
    pub transactions: u64,
    /// Those that the TLB had no translation for.
    pub misses: u64,
    /// Accesses of table walks.
    pub walk_accesses: u64,
}

impl Translations {
    /// Transactions whose translation was in the TLB.
    pub const fn hits(&self) -> u64 {
        self.transactions.saturating_sub(self.misses)
    }
}

/// A group that counts.
pub struct Pmcg<R> {
    registers: R,
    is_relocated: bool,
    is_wide: bool,
    /// Mask of a counter's bits.
    mask: u64,
    last: [u64; 3],
    total: [u64; 3],
}

impl<R: PmcgRegisters> Pmcg<R> {
    /// Starts the first three counters for `stream`, or for every stream. No interrupts.
    pub fn start(mut registers: R, stream: Option<StreamId>) -> Result<Self, PmcgError> {
        let cfgr = registers.read32(false, CFGR_OFFSET);
        let size_bits = CFGR::SIZE.read(cfgr) + 1;
        if !matches!(size_bits, 32 | 36 | 40 | 44 | 48 | 64) {
            return Err(PmcgError::Hidden { cfgr });
        }
        let counters = CFGR::NCTR.read(cfgr) + 1;
        if (counters as usize) < EVENTS.len() {
            return Err(PmcgError::TooFew { counters });
        }
        let ceid0 = registers.read32(false, CEID0);
        if EVENTS.iter().any(|event| ceid0 & 1 << event == 0) {
            return Err(PmcgError::NoEvent { ceid0 });
        }
        let mut group = Self {
            registers,
            is_relocated: CFGR::RELOC_CTRS.is_set(cfgr),
            is_wide: size_bits > 32,
            mask: u64::MAX >> (64 - size_bits),
            last: [0; 3],
            total: [0; 3],
        };
        // Nothing counts while it is set up; what the counters hold after reset is unknown (10.5.2.1).
        group.registers.write32(false, CR, 0);
        for half in [0, 4] {
            group.registers.write32(false, CNTENCLR0 + half, u32::MAX);
            group.registers.write32(false, INTENCLR0 + half, u32::MAX);
        }
        for (counter, event) in (0u32..).zip(EVENTS) {
            let span = if stream.is_none() { EVTYPE::FILTER_SID_SPAN::SET } else { EVTYPE::FILTER_SID_SPAN::CLEAR };
            let kind = EVTYPE::EVENT.val(event) + span;
            group.registers.write32(false, EVTYPER + 4 * counter, kind.into());
            group.registers.write32(false, SMR + 4 * counter, stream.map_or(EVERY_STREAM, |stream| stream.0));
            let at = group.counter(counter);
            group.registers.write32(group.is_relocated, at, 0);
            if group.is_wide {
                group.registers.write32(group.is_relocated, at + 4, 0);
            }
        }
        group.registers.write32(false, CNTENSET0, (1 << EVENTS.len()) - 1);
        group.registers.write32(false, CR, 1);
        Ok(group)
    }

    /// Reads the counters. To be called before a counter can have gone round twice.
    pub fn read(&mut self) -> Translations {
        for index in 0..EVENTS.len() {
            let now = self.value(u32::try_from(index).unwrap_or(0));
            self.total[index] = self.total[index].wrapping_add(now.wrapping_sub(self.last[index]) & self.mask);
            self.last[index] = now;
        }
        let [transactions, misses, walk_accesses] = self.total;
        Translations { transactions, misses, walk_accesses }
    }

    const fn counter(&self, index: u32) -> u32 {
        EVCNTR + index * if self.is_wide { 8 } else { 4 }
    }

    fn value(&mut self, index: u32) -> u64 {
        let at = self.counter(index);
        let mut half = |offset| u64::from(self.registers.read32(self.is_relocated, at + offset));
        if !self.is_wide {
            return half(0);
        }
        // The halves are not read at once: where the upper one moved, the lower one has just gone round.
        let (before, low) = (half(4), half(0));
        let after = half(4);
        if before == after { after << 32 | low } else { after << 32 | half(0) }
    }
}

#[cfg(test)]
mod tests;
