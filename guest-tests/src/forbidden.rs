//! Addresses that a VM of the attack scenarios has no business at.

use bulkhead_core::vplat::{ECAM_BASE, GICD_BASE, UART_BASE};

use crate::{edu::Edu, params};

/// One of them.
#[derive(Clone, Copy)]
pub struct Target {
    /// What is there.
    pub name: &'static str,
    /// Where.
    pub at: u64,
}

/// Those that are the same for all, the four first unlike each other, then `further` ones.
pub fn targets(further: [(&'static str, u64); 2]) -> impl Iterator<Item = Target> {
    let common = [
        // Behind it in the machine's memory lies the other VM.
        ("past the end", params::ram_end()),
        ("the other VM", 0x6000_0000),
        ("UART", UART_BASE.as_u64()),
        ("above the address space", 0x0fff_ffff_f000),
        ("bundle", 0x4800_0000),
        ("hole", 0x3000_0000),
        ("GICD", GICD_BASE.as_u64()),
        ("ECAM", ECAM_BASE.as_u64()),
        ("own registers", Edu::first().base()),
    ];
    common.into_iter().chain(further).map(|(name, at)| Target { name, at })
}
