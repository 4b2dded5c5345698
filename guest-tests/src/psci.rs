//! PSCI by HVC (DEN 0022), every register of the call visible.

use core::arch::asm;

/// PSCI_VERSION.
pub const VERSION: u32 = 0x8400_0000;
/// CPU_SUSPEND, 32-bit.
pub const CPU_SUSPEND_32: u32 = 0x8400_0001;
/// CPU_SUSPEND, 64-bit.
pub const CPU_SUSPEND_64: u32 = 0xc400_0001;
/// CPU_OFF.
pub const CPU_OFF: u32 = 0x8400_0002;
/// CPU_ON, 32-bit.
pub const CPU_ON_32: u32 = 0x8400_0003;
/// CPU_ON, 64-bit.
pub const CPU_ON_64: u32 = 0xc400_0003;
/// AFFINITY_INFO, 32-bit.
pub const AFFINITY_INFO_32: u32 = 0x8400_0004;
/// AFFINITY_INFO, 64-bit.
pub const AFFINITY_INFO_64: u32 = 0xc400_0004;
/// MIGRATE_INFO_TYPE.
pub const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
/// SYSTEM_OFF.
pub const SYSTEM_OFF: u32 = 0x8400_0008;
/// SYSTEM_RESET.
pub const SYSTEM_RESET: u32 = 0x8400_0009;
/// PSCI_FEATURES.
pub const FEATURES: u32 = 0x8400_000a;
/// SMCCC_VERSION.
pub const SMCCC_VERSION: u32 = 0x8000_0000;
/// SMCCC_ARCH_FEATURES.
pub const SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;

/// The call succeeded.
pub const SUCCESS: i64 = 0;
/// No such function.
pub const NOT_SUPPORTED: i64 = -1;
/// A parameter makes no sense.
pub const INVALID_PARAMETERS: i64 = -2;
/// The CPU is on already.
pub const ALREADY_ON: i64 = -4;
/// The entry point is no place to start at.
pub const INVALID_ADDRESS: i64 = -9;

macro_rules! conduit {
    ($(#[$doc:meta])* $name:ident, $text:literal) => {
        $(#[$doc])*
        /// Returns x0 to x3; the compiler is told that x4 to x17 may change.
        pub fn $name(function: u64, arguments: [u64; 3]) -> [u64; 4] {
            let [mut x1, mut x2, mut x3] = arguments;
            let mut x0 = function;
            // SAFETY: the calls that programs make touch no Rust object; SMCCC keeps x18-x30 and the stack.
            unsafe {
                asm!(
                    $text,
                    inout("x0") x0, inout("x1") x1, inout("x2") x2, inout("x3") x3,
                    out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _,
                    out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _,
                    options(nostack),
                );
            }
            [x0, x1, x2, x3]
        }
    };
}

conduit!(
    /// A hypervisor call, immediate 0.
    hvc, "hvc #0"
);
conduit!(
    /// A hypervisor call with an immediate that no convention uses.
    hvc_odd, "hvc #0x1234"
);
conduit!(
    /// A secure monitor call, immediate 0.
    smc, "smc #0"
);

/// Calls a 64-bit function; its status.
pub fn call(function: u32, arguments: [u64; 3]) -> i64 {
    hvc(u64::from(function), arguments)[0].cast_signed()
}

/// Calls a function whose result is 32 bits; its status.
pub fn call32(function: u32, arguments: [u64; 3]) -> i32 {
    // The upper half of x0 is unspecified for SMC32 calls (DEN 0028 3.1).
    #[allow(clippy::cast_possible_truncation, reason = "the result is W0")]
    let status = hvc(u64::from(function), arguments)[0] as u32;
    status.cast_signed()
}

/// Starts `cpu` at `entry` with `context` in its x0.
pub fn cpu_on(cpu: u64, entry: u64, context: u64) -> i64 {
    call(CPU_ON_64, [cpu, entry, context])
}

/// State of `cpu`: 0 on, 1 off, 2 on its way.
pub fn affinity_info(cpu: u64) -> i64 {
    call(AFFINITY_INFO_64, [cpu, 0, 0])
}

/// Turns this CPU off; returns only when that fails.
pub fn cpu_off() -> i32 {
    call32(CPU_OFF, [0; 3])
}

/// Ends this VM.
pub fn system_off() -> ! {
    hvc(u64::from(SYSTEM_OFF), [0; 3]);
    crate::cpu::halt()
}

/// Starts this VM anew.
pub fn system_reset() -> ! {
    hvc(u64::from(SYSTEM_RESET), [0; 3]);
    crate::cpu::halt()
}
