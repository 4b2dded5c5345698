//! FP/SIMD registers: fill all of them, see what became of them.

use core::arch::global_asm;

global_asm!(include_str!("fp/registers.S"));

unsafe extern "C" {
    safe fn fp_fill(seed: u64);
    safe fn fp_check(seed: u64) -> u64;
}

/// Gives every vector register a value made of `seed` and its number.
pub fn fill(seed: u64) {
    fp_fill(seed);
}

/// How many of the 64 halves are not what [`fill`] left there.
pub fn changed(seed: u64) -> u64 {
    fp_check(seed)
}
