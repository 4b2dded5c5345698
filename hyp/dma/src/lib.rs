//! What a device may reach of a VM, and when memory that it could reach is free again.
//!
//! - [`space`]: mode `identity`. The table that an SMMU walks for a VM, an object of its own beside the CPU's.
//! - [`map`]: mode `dmamap`. A VM's IOVA space, the leases in it, and the maps that buffers are loaded into; [`iova`] is
//!   where leases lie, [`tree`] the tables below them.
//! - [`domain`]: mode `virtio-iommu`. A table for each of a guest's domains, mapped as it asks.
//! - [`flush`]: what unloads leave behind, gathered until a SYNC and flushed as the stream pays least.
//! - [`retire`]: the way out of a table, for all of them: unmapped, then flushed, then free.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod domain;
pub mod flush;
pub mod iova;
pub mod map;
pub mod retire;
pub mod space;
mod strategy;
pub mod tree;

pub use retire::{FlushWitness, Flushed, Quarantined, RetireError, Unflushed};
pub use space::{DmaSpace, Place};
