//! Cache maintenance by address: for guests that start with caches off, and for non-coherent walkers.

use bulkhead_core::addr::PhysAddr;

use crate::sysreg;

/// Bytes of the smallest data cache line (CTR_EL0.DminLine).
fn line_bytes() -> u64 {
    4 << (sysreg::read!("ctr_el0") >> 16 & 0xf)
}

/// One maintenance instruction for each line of `size_bytes` bytes, at least 1, at `address`; complete when it is over.
macro_rules! each_line {
    ($operation:literal, $address:expr, $size_bytes:expr) => {{
        let (address, line) = ($address, line_bytes());
        // SAFETY: cleaning loses no data, and what is invalidated is cleaned first; the addresses are mapped.
        unsafe {
            core::arch::asm!(
                ".p2align 4",
                concat!("2: ", $operation, ", {at}"),
                "add {at}, {at}, {line}",
                "cmp {at}, {end}",
                "b.lo 2b",
                at = inout(reg) address & !(line - 1) => _,
                line = in(reg) line,
                end = in(reg) address + $size_bytes,
                options(nostack),
            );
        }
        sysreg::dsb_sy();
    }};
}

/// Cleans and invalidates to the point of coherency.
pub fn clean_invalidate(address: u64, size_bytes: u64) {
    each_line!("dc civac", address, size_bytes);
}

/// Cleans to the point of coherency: what a device or a CPU without caches will read.
pub fn clean(address: PhysAddr, size_bytes: u64) {
    each_line!("dc cvac", address.as_u64(), size_bytes);
}
