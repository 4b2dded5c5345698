//! Instructions that a CPU has retired at EL2, where it can count them: for statistics of calls.
//!
//! Event counter 0 of the PMU (DDI 0487 D13), which guests do not see: INST_RETIRED at EL2 alone.

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::sysreg;

const UNKNOWN: u8 = 0;
const COUNTED: u8 = 1;
const NOT_COUNTED: u8 = 2;

/// Whether every CPU that came up counts; settled before a guest runs.
static STATE: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Starts the counter of this CPU, which has `counters` event counters (0 without a PMU).
pub fn start(counters: u64) {
    const INST_RETIRED: u64 = 0x08;
    /// Not at EL1 (P), not at EL0 (U), at EL2 (NSH).
    const EL2_ALONE: u64 = 1 << 31 | 1 << 30 | 1 << 27;
    /// All counters enabled (E), event counters zeroed (P), 64-bit cycles (LC).
    const ENABLE: u64 = 1 << 0 | 1 << 1 | 1 << 6;
    if counters == 0 || sysreg::read!("pmceid0_el0") >> INST_RETIRED & 1 == 0 {
        STATE.store(NOT_COUNTED, Relaxed);
        return;
    }
    sysreg::write!("pmintenclr_el1", 0xffff_ffff);
    sysreg::write!("pmcntenclr_el0", 0xffff_ffff);
    sysreg::write!("pmevtyper0_el0", INST_RETIRED | EL2_ALONE);
    sysreg::write!("pmcr_el0", ENABLE);
    sysreg::write!("pmcntenset_el0", 1);
    if STATE.load(Relaxed) == UNKNOWN {
        STATE.store(COUNTED, Relaxed);
    }
}

/// Whether there is something to show.
pub fn are_counted() -> bool {
    STATE.load(Relaxed) == COUNTED
}

/// The counter of this CPU, 32 bits that wrap; 0 where nothing counts.
pub fn now() -> u32 {
    if !are_counted() {
        return 0;
    }
    // Without PMUv3p5 the upper half reads as zero; with it the lower half is what is asked for.
    u32::try_from(sysreg::read!("pmevcntr0_el0") & 0xffff_ffff).unwrap_or(0)
}
