//! What a device may reach of a VM, and when memory that it could reach is free again.
//!
//! [`space`] is the table that an SMMU walks for a VM, an object of its own beside the CPU's; [`retire`] is the way
//! out of it: unmapped, then flushed, then free. In this state of the project every device is in `identity` mode.
//! IOVA leases and DMA maps will stand between the two, the flush policy behind `retire`, bounce pools beside them.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod flush;
pub mod iova;
pub mod retire;
pub mod space;

pub use retire::{FlushWitness, Flushed, Quarantined, RetireError, Unflushed};
pub use space::{DmaSpace, Place};
