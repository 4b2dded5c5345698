//! What a guest and the hypervisor say to each other about DMA maps.
//!
//! Calls follow the SMC calling convention (DEN 0028), conduit HVC or SMC with immediate 0: the function id is in W0, arguments
//! are in x1 to x6, results come in x0 to x3, and x4 to x30 are kept. x0 is 0 or an [`Error`]'s number, sign-extended;
//! after an error x1 to x3 are 0 and nothing has changed, unless the error's own words say otherwise.
//!
//! | [`Function`] | id | x1 | x2 | x3 | x4 | x5 | x6 | results |
//! |---|---|---|---|---|---|---|---|---|
//! | VERSION | `c600_0000` | | | | | | | x1 = [`VERSION`] |
//! | FEATURES | `c600_0001` | page | | | | | | x1 to x3 as [`Features`] says |
//! | CREATE | `c600_0002` | channel | max_size | max_segments | boundary | align | limit | x1 = [`Handle`], x2 = the lease's first IOVA, x3 = its bytes |
//! | LOAD | `c600_0003` | handle | IPA of an array of [`Segment`] | count | [`Direction`] | | | x1 = first segment's IOVA, x2 = pages; each `iova` of the array |
//! | UNLOAD | `c600_0004` | handle | | | | | | |
//! | DESTROY | `c600_0005` | handle | | | | | | |
//! | SYNC | `c600_0006` | handle | [`SyncOp`] | offset | bytes | | | |
//! | QUERY | `c600_0007` | handle | | | | | | x1 = [`MapState`], x2 = the lease's first IOVA, x3 = loaded pages |
//! | STATS | `c600_0008` | first [`Counter`] | | | | | | x1 to x3 = that counter and the two after it |
//! | RING_SETUP | `c600_0009` | channel | IPA of the ring | log2 of its entries | | | | x1 = the ring's bytes |
//! | RING_RUN | `c600_000a` | channel | | | | | | x1 = entries consumed, x2 = entries left, x3 = consumed with an error |
//! | CALL_UID | `8600_ff01` | | | | | | | W0 to W3 = [`UID`] |
//! | REVISION | `8600_ff03` | | | | | | | W0 = major, W1 = minor version |
//!
//! An array, a ring too, is within the VM's RAM, aligned, and crosses no multiple of [`BLOCK_BYTES`].
//!
//! Sizes, offsets and lengths are in bytes; an IPA is an address as the guest sees physical memory; an IOVA is what the
//! guest gives to its device. Everything in memory is little-endian.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod call;
mod error;
mod features;
mod handle;
mod map;
pub mod ring;
mod stats;
#[cfg(test)]
mod tests;

pub use call::{Function, OWNER_MASK, OWNER_VENDOR_HYP, UID, VERSION, VERSION_MAJOR, VERSION_MINOR};
pub use error::Error;
pub use features::{Features, Flags, Limits, Window};
pub use handle::Handle;
pub use map::{Constraints, Direction, MapState, NO_LIMIT, SEGMENTS_MAX, Segment, SyncOp};
pub use stats::{Counter, STATS_PER_CALL};

/// Channels of a VM: a channel is a queue of a driver, whose maps two CPUs do not work on at the same time.
pub const CHANNELS: u64 = 8;

/// An array of segments or a ring crosses no multiple of this: the hypervisor opens one block of a guest's memory at a time.
pub const BLOCK_BYTES: u64 = 2 << 20;

const _: () = assert!(cfg!(target_endian = "little"));
