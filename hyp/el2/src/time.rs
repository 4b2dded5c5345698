//! The system counter: time since power-on, bounded waits, EL2's own timer.

use aarch64_cpu::registers::{CNTFRQ_EL0, CNTPCT_EL0, Readable};

use crate::sysreg;

/// How long a guest's unfinished line waits for its end before it is shown all the same (a prompt), in milliseconds.
pub const QUIET_MS: u64 = 200;

/// Ticks of the system counter since power-on.
pub fn ticks() -> u64 {
    sysreg::isb();
    CNTPCT_EL0.get()
}

/// As [`ticks`], without waiting for earlier instructions: for statistics.
pub fn ticks_relaxed() -> u64 {
    CNTPCT_EL0.get()
}

/// Ticks a second; 1 MHz where the firmware left CNTFRQ_EL0 at zero, so that waits stay bounded.
pub fn frequency() -> u64 {
    match CNTFRQ_EL0.get() {
        0 => 1_000_000,
        hertz => hertz,
    }
}

/// Ticks as microseconds, without overflow for 584,000 years.
pub fn to_us(ticks: u64) -> u64 {
    let hertz = frequency();
    (ticks / hertz) * 1_000_000 + (ticks % hertz) * 1_000_000 / hertz
}

/// Ticks as nanoseconds, for times below some minutes.
pub fn to_ns(ticks: u64) -> u64 {
    ticks.saturating_mul(1_000_000_000) / frequency()
}

/// Microseconds since power-on.
pub fn now_us() -> u64 {
    to_us(ticks())
}

/// Waits for at least `us` microseconds.
pub fn delay_us(us: u64) {
    let start = now_us();
    while now_us() - start < us {
        core::hint::spin_loop();
    }
}

/// Arms EL2's physical timer once, `ms` from now, or leaves it where it is armed for an earlier time.
pub fn arm_ms(ms: u64) {
    let at = ticks() + frequency() * ms / 1000;
    if sysreg::read!("cnthp_ctl_el2") & 1 == 1 && sysreg::read!("cnthp_cval_el2") <= at {
        return;
    }
    sysreg::write!("cnthp_cval_el2", at);
    sysreg::write!("cnthp_ctl_el2", 1);
    sysreg::isb();
}

/// Stops EL2's physical timer.
pub fn disarm() {
    sysreg::write!("cnthp_ctl_el2", 0);
    sysreg::isb();
}
