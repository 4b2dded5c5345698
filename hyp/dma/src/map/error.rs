//! Why a space, a map or a load was refused.

use core::num::NonZeroU64;

use bulkhead_core::addr::PhysAddr;
use thiserror::Error;

use super::Handle;
use crate::{iova::IovaError, tree::TreeError};

/// Why a VM cannot have a space.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SpaceError {
    /// No memory for the tables that every space has.
    #[error("{0}")]
    Tree(#[from] TreeError),
    /// A reserved range could not be taken out, or there are too few nodes.
    #[error("reserved ranges: {0}")]
    Iova(#[from] IovaError),
    /// The VM's RAM lies where an SMMU cannot reach.
    #[error("{size_bytes:#x} bytes of RAM at {phys} are past the {bits} address bits that the SMMU can put out")]
    OutputTooWide {
        /// Where the RAM is.
        phys: PhysAddr,
        /// How much.
        size_bytes: u64,
        /// Bits of the SMMU.
        bits: u8,
    },
    /// RAM that does not start and end on page boundaries.
    #[error("{size_bytes:#x} bytes of RAM at {phys}: not all on page boundaries")]
    Unaligned {
        /// Where the RAM is.
        phys: PhysAddr,
        /// How much.
        size_bytes: u64,
    },
    /// A tree whose root is one table at level 1 translates 35 to 39 bits.
    #[error("input addresses of {0} bits: a root at level 1 translates 35 to 39")]
    BadInputBits(u8),
}

/// Why a map was not created.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum CreateError {
    /// A size or a number of segments of 0 or too large, or an alignment or a boundary that is no power of two.
    #[error("no map has {max_size:#x} bytes in {max_segments} segments so aligned and bounded")]
    BadParams {
        /// Bytes.
        max_size: u64,
        /// Segments.
        max_segments: u32,
    },
    /// The VM's quota of maps, or its channel's room for them, is used up.
    #[error("all {0} maps are in use")]
    TooManyMaps(u32),
    /// No room for what a map that lies in several tables needs to keep.
    #[error("no room for a map in {0} leaf tables")]
    TooManyPieces(u32),
    /// No address space is left.
    #[error(transparent)]
    Iova(#[from] IovaError),
    /// No tables are left.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// A handle that names no map of the channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("no map {0:#x}")]
pub struct HandleError(NonZeroU64);

impl HandleError {
    /// For this handle; one of 0 is said as its complement, so that the error fits a register.
    #[inline]
    pub(super) const fn new(handle: Handle) -> Self {
        Self(match NonZeroU64::new(handle.as_u64()) {
            Some(number) => number,
            None => NonZeroU64::MAX,
        })
    }
}

/// Why nothing was loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum LoadError {
    /// The handle names no map of the channel.
    #[error("no such map")]
    NoMap,
    /// The map is loaded.
    #[error("map is loaded")]
    Loaded,
    /// What it had loaded is not flushed: a SYNC comes first.
    #[error("map is not flushed yet")]
    Unflushed,
    /// More segments than the map was made for, or none.
    #[error("{0} segments are not what the map was made for")]
    BadCount(u32),
    /// A segment that is not all in the VM's RAM.
    #[error("segment {0} is not in the VM's RAM")]
    NotRam(u32),
    /// A segment that does not consist of whole blocks, for a map of blocks.
    #[error("segment {0} is not made of whole blocks of 2 MiB")]
    NotBlocks(u32),
    /// More pages than the map was made for.
    #[error("longer than the map at segment {0}")]
    TooLong(u32),
    /// The strategy needs the space for a load: to be tried with it.
    #[error("the load needs the space")]
    NeedsSpace,
    /// No address space, where the strategy takes it at load.
    #[error("no iova space left for the load")]
    NoSpace,
    /// No tables, where the strategy takes them at load.
    #[error("no table pages left for the load")]
    NoTables,
}

impl From<CreateError> for LoadError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Tree(_) => Self::NoTables,
            _ => Self::NoSpace,
        }
    }
}
