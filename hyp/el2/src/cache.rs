//! Cache maintenance by address: for guests that start with caches off, and for non-coherent walkers.

use bulkhead_core::addr::PhysAddr;

use crate::sysreg;

/// Bytes of the smallest data cache line (CTR_EL0.DminLine).
fn line_bytes() -> u64 {
    4 << (sysreg::read!("ctr_el0") >> 16 & 0xf)
}

/// Applies one maintenance operation to each line of `size_bytes` bytes at `address` (mapped at EL2).
fn for_each_line(address: u64, size_bytes: u64, operation: impl Fn(u64)) {
    let line = line_bytes();
    let mut at = address & !(line - 1);
    while at < address + size_bytes {
        operation(at);
        at += line;
    }
    sysreg::dsb_sy();
}

/// Cleans and invalidates to the point of coherency.
pub fn clean_invalidate(address: u64, size_bytes: u64) {
    for_each_line(address, size_bytes, |line| {
        // SAFETY: cleaning and invalidating loses no data; the address is mapped.
        unsafe { core::arch::asm!("dc civac, {}", in(reg) line, options(nostack)) }
    });
}

/// Cleans to the point of coherency: what a device or a CPU without caches will read.
pub fn clean(address: PhysAddr, size_bytes: u64) {
    for_each_line(address.as_u64(), size_bytes, |line| {
        // SAFETY: cleaning loses no data; the address is mapped.
        unsafe { core::arch::asm!("dc cvac, {}", in(reg) line, options(nostack)) }
    });
}
