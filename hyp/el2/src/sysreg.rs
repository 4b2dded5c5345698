//! System registers that aarch64-cpu has no name for, and barriers.
//!
//! aarch64-cpu's writes carry no barrier and no memory clobber; callers put the `isb` or `dsb` that the
//! architecture asks for beside the write, with the reason.

/// Reads a system register by name or encoding. Reading has no side effect for the registers used here.
macro_rules! read {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: the register exists at EL2 on every CPU that gets here, and reading it changes nothing.
        unsafe { core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nostack)) };
        value
    }};
}

/// Writes a system register by name or encoding.
macro_rules! write {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the caller's module is the register's only owner; its comment says what the value does.
        unsafe { core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack)) };
    }};
}

/// One instruction without operands.
macro_rules! instruction {
    ($text:literal) => {
        // SAFETY: barriers and TLB or cache maintenance touch no Rust object.
        unsafe { core::arch::asm!($text, options(nostack)) }
    };
}

pub(crate) use {instruction, read, write};

/// Completes all earlier memory accesses and maintenance, for the whole system.
pub fn dsb_sy() {
    instruction!("dsb sy");
}

/// Completes earlier stores to tables before a TLB invalidation (DDI 0487, TLB maintenance).
pub fn dsb_ishst() {
    instruction!("dsb ishst");
}

/// Completes earlier maintenance on all CPUs of the inner shareable domain.
pub fn dsb_ish() {
    instruction!("dsb ish");
}

/// Synchronises this CPU's context: later instructions see earlier register writes.
pub fn isb() {
    instruction!("isb");
}

/// Sleeps until an interrupt is pending, masked or not.
pub fn wfi() {
    instruction!("dsb sy");
    instruction!("wfi");
}
