//! Why a domain was not made or not changed.

use bulkhead_core::addr::PhysAddr;
use thiserror::Error;

/// Why there is no domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum DomainError {
    /// A root at level 1 translates 35 to 39 bits.
    #[error("input addresses of {0} bits: a root at level 1 translates 35 to 39")]
    BadInputBits(u8),
    /// RAM that the SMMU cannot reach, or that is not made of pages.
    #[error("{size_bytes:#x} bytes of RAM at {phys}: not whole pages within the {bits} address bits of the smmu")]
    BadRam {
        /// Where the RAM is.
        phys: PhysAddr,
        /// How much.
        size_bytes: u64,
        /// Bits of the SMMU.
        bits: u8,
    },
    /// The VM's quota is used up.
    #[error("all {0} table pages are in use")]
    NoTables(u32),
}

/// Why nothing more was mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum MapError {
    /// Addresses or a size that are not made of pages, or past the input addresses.
    #[error("not whole pages within the input addresses")]
    BadRange,
    /// Not all of it is the VM's RAM.
    #[error("not all of it is in the vm's ram")]
    NotRam,
    /// Something is mapped there.
    #[error("something is mapped there")]
    Mapped,
    /// What was mapped there is not flushed: a flush comes first.
    #[error("what was mapped there is not flushed yet")]
    Unflushed,
    /// The VM's quota is used up.
    #[error("all table pages are in use")]
    NoTables,
}

/// A range that begins or ends inside a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the range would split a mapping")]
pub struct SplitsMapping;
