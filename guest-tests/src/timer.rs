//! The two EL1 timers, time, and waits that end.

use crate::sysreg::{CNTFRQ_EL0, CNTP_CTL_EL0, CNTP_CVAL_EL0, CNTPCT_EL0, CNTV_CTL_EL0, CNTV_CVAL_EL0, CNTVCT_EL0};

const ENABLE: u64 = 1;

/// An EL1 timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// The virtual timer, PPI 27.
    Virtual,
    /// The physical timer, PPI 30.
    Physical,
}

impl Timer {
    /// The counter that it compares with, in ticks.
    pub fn count(self) -> u64 {
        match self {
            Self::Virtual => CNTVCT_EL0.read(),
            Self::Physical => CNTPCT_EL0.read(),
        }
    }

    /// Fires `ticks` from now.
    pub fn set(self, ticks: u64) {
        let deadline = self.count().wrapping_add(ticks);
        match self {
            Self::Virtual => {
                CNTV_CVAL_EL0.write(deadline);
                CNTV_CTL_EL0.write(ENABLE);
            }
            Self::Physical => {
                CNTP_CVAL_EL0.write(deadline);
                CNTP_CTL_EL0.write(ENABLE);
            }
        }
    }

    /// Stops it; its interrupt goes down.
    pub fn stop(self) {
        match self {
            Self::Virtual => CNTV_CTL_EL0.write(0),
            Self::Physical => CNTP_CTL_EL0.write(0),
        }
    }

    /// Whether its condition is met, ISTATUS.
    pub fn is_due(self) -> bool {
        let control = match self {
            Self::Virtual => CNTV_CTL_EL0.read(),
            Self::Physical => CNTP_CTL_EL0.read(),
        };
        control & 1 << 2 != 0
    }
}

/// Ticks of `us` microseconds.
pub fn ticks(us: u64) -> u64 {
    CNTFRQ_EL0.read() * us / 1_000_000
}

/// Milliseconds of the virtual counter.
pub fn now_ms() -> u64 {
    CNTVCT_EL0.read() / (CNTFRQ_EL0.read() / 1000)
}

/// Seconds of the physical counter, which goes on through a VM's reset: RAM is scrubbed, so that this tells its boots apart.
pub fn seconds() -> u64 {
    CNTPCT_EL0.read() / CNTFRQ_EL0.read()
}

/// Spins for `ms` milliseconds.
pub fn delay_ms(ms: u64) {
    wait_until(ms, || false);
}

/// Spins until `condition` holds, `ms` milliseconds at most; whether it came to hold.
pub fn wait_until(ms: u64, condition: impl Fn() -> bool) -> bool {
    let start = CNTVCT_EL0.read();
    let limit = ticks(ms * 1000);
    while CNTVCT_EL0.read().wrapping_sub(start) < limit {
        if condition() {
            return true;
        }
        core::hint::spin_loop();
    }
    condition()
}
