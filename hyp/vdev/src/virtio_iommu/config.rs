//! The device's configuration space (virtio 1.3, 5.13.4).

use bulkhead_core::addr::{BLOCK_1G, BLOCK_2M, PAGE_SIZE};

use super::{domains::Range, probe};

/// Page sizes: the granule, and what makes large mappings cheap.
pub const PAGE_SIZES: u64 = PAGE_SIZE | BLOCK_2M | BLOCK_1G;
/// Largest number of a domain.
pub const DOMAIN_LAST: u32 = 0xffff;
/// Place of `bypass`.
pub const BYPASS: u64 = 36;
/// Bytes of the configuration.
const BYTES: u64 = 40;

/// What the machine allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ability {
    /// Last address that can be mapped.
    pub last: u64,
    /// Where the guest's interrupt controller would take MSIs: never mapped.
    pub msi: Range,
}

impl Ability {
    /// `bytes` bytes of the configuration from `offset` on, both within one of its 64-bit words; 0 past its end.
    pub fn read(&self, offset: u64, has_bypass: bool) -> u64 {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let word = match offset / 8 {
            0 => PAGE_SIZES,
            1 => 0,
            2 => self.last,
            3 => pair(0, DOMAIN_LAST),
            4 => pair(probe::BYTES, has_bypass.into()),
            _ => 0,
        };
        if offset < BYTES { word >> (8 * (offset % 8)) } else { 0 }
    }
}
