//! A performance monitor counter group: how often translations are found in the TLB (IHI 0070 chapter 10).

use bulkhead_core::ids::StreamId;
use heapless::Vec;
use tock_registers::register_bitfields;

/// Registers of one group, in 32-bit accesses, which 64-bit registers permit too (10.5).
pub trait PmcgRegisters {
    /// Whether the group has a page 1.
    fn has_page1(&self) -> bool;
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
        RELOC_CTRS OFFSET(20) NUMBITS(1) [],
        SID_FILTER_TYPE OFFSET(23) NUMBITS(1) []
    ],
    EVTYPE [
        EVENT OFFSET(0) NUMBITS(16) [Transaction = 1, TlbMiss = 2],
        FILTER_SID_SPAN OFFSET(29) NUMBITS(1) []
    ]
];

/// Events of a pair of counters (10.3): transactions or translation requests, TLB misses.
const EVENTS: [u32; 2] = [1, 2];
/// SMR that matches every stream, with FILTER_SID_SPAN (10.4).
const EVERY_STREAM: u32 = u32::MAX;
/// Pairs of counters that are used at most: the first for every stream together.
const PAIRS_MAX: usize = 4;

/// Why a group cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[repr(u64)]
pub enum PmcgError {
    /// Secure firmware hides it (SCR.NSRA), or the size of its counters is reserved.
    #[error("the counter group is hidden or unknown (PMCG_CFGR {cfgr:#x})")]
    Hidden {
        /// PMCG_CFGR.
        cfgr: u32,
    },
    /// Its counters are in a page that is not described.
    #[error("the counter group's counters are in page 1, which the device tree does not name (PMCG_CFGR {cfgr:#x})")]
    NoPage1 {
        /// PMCG_CFGR.
        cfgr: u32,
    },
    /// It has fewer counters than are needed.
    #[error("the counter group has {counters} counters, {} are needed", EVENTS.len())]
    TooFew {
        /// Its counters.
        counters: u32,
    },
    /// It does not count transactions, or not TLB misses.
    #[error("the counter group does not count translations (PMCG_CEID0 {ceid0:#x})")]
    NoEvent {
        /// Low half of PMCG_CEID0.
        ceid0: u32,
    },
}

/// What was counted since the group was started.
///
/// In a group of a walker (TCU) that serves several TLBs (TBUs), transactions are the requests of those TLBs: their misses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Translations {
    /// Transactions, or requests for a translation.
    pub transactions: u64,
    /// Those that the TLB had no translation for.
    pub misses: u64,
}

impl Translations {
    /// Transactions whose translation was in the TLB. 0 where the counters, which are read one after the other, say
    /// more misses.
    pub const fn hits(&self) -> u64 {
        self.transactions.saturating_sub(self.misses)
    }
}

/// Two counters, of transactions and of misses.
#[derive(Clone, Copy, Debug)]
struct Pair {
    /// Whose; `None` for every stream's.
    stream: Option<StreamId>,
    last: [u64; 2],
    total: [u64; 2],
}

impl Pair {
    const fn translations(&self) -> Translations {
        let [transactions, misses] = self.total;
        Translations { transactions, misses }
    }
}

/// A group that counts.
#[derive(Debug)]
pub struct Pmcg<R> {
    registers: R,
    is_relocated: bool,
    size_bits: u32,
    pairs: Vec<Pair, PAIRS_MAX>,
}

impl<R: PmcgRegisters> Pmcg<R> {
    /// Starts counters for every stream together, and for as many of `streams` as the group can tell apart. No
    /// interrupts.
    pub fn start(registers: R, streams: impl IntoIterator<Item = StreamId>) -> Result<Self, PmcgError> {
        let mut registers = registers;
        let cfgr = registers.read32(false, CFGR_OFFSET);
        let size_bits = CFGR::SIZE.read(cfgr) + 1;
        if !matches!(size_bits, 32 | 36 | 40 | 44 | 48 | 64) {
            return Err(PmcgError::Hidden { cfgr });
        }
        let is_relocated = CFGR::RELOC_CTRS.is_set(cfgr);
        if is_relocated && !registers.has_page1() {
            return Err(PmcgError::NoPage1 { cfgr });
        }
        let counters = CFGR::NCTR.read(cfgr) + 1;
        if (counters as usize) < EVENTS.len() {
            return Err(PmcgError::TooFew { counters });
        }
        let ceid0 = registers.read32(false, CEID0);
        if EVENTS.iter().any(|event| ceid0 & 1 << event == 0) {
            return Err(PmcgError::NoEvent { ceid0 });
        }
        // With one filter for all counters (10.4) nothing but every stream is of use.
        let has_one_filter = CFGR::SID_FILTER_TYPE.is_set(cfgr);
        let room = if has_one_filter { 1 } else { (counters as usize / EVENTS.len()).min(PAIRS_MAX) };
        let pair = |stream| Pair { stream, last: [0; 2], total: [0; 2] };
        let wanted = [None].into_iter().chain(streams.into_iter().map(Some));
        let mut group = Self { registers, is_relocated, size_bits, pairs: wanted.take(room).map(pair).collect() };
        group.set_up(has_one_filter);
        Ok(group)
    }

    /// Nothing counts while this goes on; what the counters hold after reset is unknown (10.5.2.1).
    fn set_up(&mut self, has_one_filter: bool) {
        self.registers.write32(false, CR, 0);
        for half in [0, 4] {
            self.registers.write32(false, CNTENCLR0 + half, u32::MAX);
            self.registers.write32(false, INTENCLR0 + half, u32::MAX);
        }
        let streams: Vec<Option<StreamId>, PAIRS_MAX> = self.pairs.iter().map(|pair| pair.stream).collect();
        let mut counter = 0;
        for stream in streams {
            for event in EVENTS {
                // RES0 in all counters but the first where there is one filter.
                let has_filter = counter == 0 || !has_one_filter;
                let span = EVTYPE::FILTER_SID_SPAN.val(u32::from(stream.is_none() && has_filter));
                self.registers.write32(false, EVTYPER + 4 * counter, (EVTYPE::EVENT.val(event) + span).into());
                if has_filter {
                    let matched = stream.map_or(EVERY_STREAM, |stream| stream.0);
                    self.registers.write32(false, SMR + 4 * counter, matched);
                }
                let at = self.offset(counter);
                self.registers.write32(self.is_relocated, at, 0);
                if self.is_wide() {
                    self.registers.write32(self.is_relocated, at + 4, 0);
                }
                counter += 1;
            }
        }
        self.registers.write32(false, CNTENSET0, (1 << counter) - 1);
        self.registers.write32(false, CR, 1);
    }

    /// Takes over what the counters say: before one of them can have gone round, see [`Self::is_quick_to_wrap`].
    pub fn refresh(&mut self) {
        let mask = u64::MAX >> (64 - self.size_bits);
        let mut counter = 0;
        for pair in 0..self.pairs.len() {
            for event in 0..EVENTS.len() {
                let now = self.value(counter);
                counter += 1;
                if let Some(pair) = self.pairs.get_mut(pair) {
                    let more = now.wrapping_sub(pair.last[event]) & mask;
                    pair.total[event] = pair.total[event].wrapping_add(more);
                    pair.last[event] = now;
                }
            }
        }
    }

    /// Every stream together, as of the last refresh.
    pub fn all(&self) -> Translations {
        self.pairs.first().map_or(Translations::default(), Pair::translations)
    }

    /// One stream, as of the last refresh; `None` where the group does not tell it apart.
    pub fn of(&self, stream: StreamId) -> Option<Translations> {
        self.pairs.iter().find(|pair| pair.stream == Some(stream)).map(Pair::translations)
    }

    /// Whether a counter can go round within minutes: a transaction a nanosecond takes four seconds for 32 bits.
    pub const fn is_quick_to_wrap(&self) -> bool {
        self.size_bits < 44
    }

    const fn is_wide(&self) -> bool {
        self.size_bits > 32
    }

    const fn offset(&self, counter: u32) -> u32 {
        EVCNTR + counter * if self.is_wide() { 8 } else { 4 }
    }

    fn value(&mut self, counter: u32) -> u64 {
        let at = self.offset(counter);
        let mut half = |offset| u64::from(self.registers.read32(self.is_relocated, at + offset));
        if self.size_bits <= 32 {
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
