//! Why a table was not changed.

use thiserror::Error;

use super::{IPA_BITS_MAX, IPA_BITS_MIN};
use crate::addr::PhysAddr;

/// Why a mapping could not be made or removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[repr(u64)]
pub enum Stage2Error {
    /// A tree of a size that one root page at level 1 cannot have.
    #[error("input addresses of {0} bits: a stage-2 tree translates {IPA_BITS_MIN} to {IPA_BITS_MAX}")]
    BadInputBits(u8),
    /// An address or a size that is no multiple of 4 KiB.
    #[error("{size_bytes:#x} bytes at {input:#x} to {phys}: not all on page boundaries")]
    Unaligned {
        /// First input address.
        input: u64,
        /// First output address.
        phys: PhysAddr,
        /// Bytes.
        size_bytes: u64,
    },
    /// Input addresses past the tree's end.
    #[error("input up to {end:#x} is past {bits} address bits")]
    InputTooWide {
        /// One past the last address.
        end: u64,
        /// Bits of the tree.
        bits: u8,
    },
    /// Output addresses that the walker cannot put out.
    #[error("{size_bytes:#x} bytes at {phys} are past the {bits} address bits that the walker can put out")]
    OutputTooWide {
        /// First output address.
        phys: PhysAddr,
        /// Bytes.
        size_bytes: u64,
        /// Bits of the walker.
        bits: u8,
    },
    /// Something is mapped there.
    #[error("{0:#x} is mapped already")]
    AlreadyMapped(u64),
    /// Nothing is mapped there.
    #[error("{0:#x} is not mapped")]
    NotMapped(u64),
    /// A part of a block would be unmapped.
    #[error("{input:#x} is inside a block of {block_bytes:#x} bytes, which is not split while it is in use")]
    SplitsBlock {
        /// First address of the block.
        input: u64,
        /// Its size.
        block_bytes: u64,
    },
    /// The table memory is used up.
    #[error("no memory for {needed} translation tables")]
    OutOfTables {
        /// Tables that the mapping needs.
        needed: u64,
    },
}
