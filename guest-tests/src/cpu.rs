//! This CPU: its number, barriers, the interrupt mask, sleeping.

use core::arch::asm;

use crate::sysreg::{CURRENT_EL, DAIF, MPIDR_EL1};

/// Number of this CPU: affinity level 0.
pub fn index() -> usize {
    (MPIDR_EL1.read() & 0xff) as usize
}

/// Exception level, 0 to 3.
pub fn exception_level() -> u64 {
    CURRENT_EL.read() >> 2 & 3
}

macro_rules! instruction {
    ($(#[$doc:meta])* $name:ident, $text:literal) => {
        $(#[$doc])*
        pub fn $name() {
            // SAFETY: changes no memory and no register that compiled code keeps values in.
            unsafe { asm!($text, options(nostack, preserves_flags)) }
        }
    };
}

instruction!(
    /// Waits for an interrupt, masked or not.
    wfi, "wfi"
);
instruction!(
    /// Waits for an event.
    wfe, "wfe"
);
instruction!(
    /// Sends an event to all CPUs.
    sev, "sev"
);
instruction!(
    /// Completes all memory accesses, in the whole system.
    dsb, "dsb sy"
);
instruction!(
    /// Synchronises the instruction stream with the system registers.
    isb, "isb"
);
instruction!(
    /// Lets interrupts in.
    unmask, "msr daifclr, #2"
);
instruction!(
    /// Keeps interrupts out.
    mask, "msr daifset, #2"
);

/// Whether interrupts are kept out.
pub fn is_masked() -> bool {
    DAIF.read() & 1 << 7 != 0
}

/// Sleeps for ever.
pub fn halt() -> ! {
    mask();
    loop {
        wfi();
    }
}
