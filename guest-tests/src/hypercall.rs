//! Calls to the hypervisor by HVC: up to six arguments, four results.

use core::arch::asm;

/// Calls `function` with `arguments` in x1 and on; absent ones are 0. Returns x0 to x3.
pub fn hvc(function: u32, arguments: &[u64]) -> [u64; 4] {
    let argument = |place: usize| arguments.get(place).copied().unwrap_or(0);
    let mut x0 = u64::from(function);
    let [mut x1, mut x2, mut x3] = [argument(0), argument(1), argument(2)];
    // SAFETY: what the hypervisor writes to memory is what the arguments name, which is no Rust object's; x4 to x30 are
    // kept, and what it does to registers of the system, it does to nobody's here.
    unsafe {
        asm!(
            "hvc #0",
            inout("x0") x0, inout("x1") x1, inout("x2") x2, inout("x3") x3,
            in("x4") argument(3), in("x5") argument(4), in("x6") argument(5),
            options(nostack),
        );
    }
    [x0, x1, x2, x3]
}
