//! Ways to have IOVA, to be compared on one trace. `reserve` is the product; the others are what it is measured against.
//!
//! | strategy | a lease is taken | by | like |
//! |---|---|---|---|
//! | `reserve` | when a map is created | size-class lists | OpenBSD smmu(4) today |
//! | `per-load` | by each load, for all segments | the same | OpenBSD smmu(4) of 2021 |
//! | `per-segment` | by each load, for each segment | the same | apldart(4) |
//! | `magazine` | by each load, for all segments, a power of two of pages | stacks of leases of the channel, the space behind | Peleg et al., ATC'15 |
//! | `one-to-one` | by a load, for a segment whose own addresses are taken | IOVA = IPA, counted in the entry; else the lists | dynamic 1:1 |
//! | `bitmap` | by each load, for all segments, in slots of 16 pages | first fit in a bit map | bounce pools |
//!
//! The interface is one for all: [`Channel::load`], and where it answers [`LoadError::NeedsSpace`],
//! [`Space::load`](crate::map::Space::load) under the VM's lock. What a load leased returns in
//! [`Space::reap`](crate::map::Space::reap), after the flush. Tables are held and released with the leases, as ever.

mod bitmap;
mod leases;
mod load;
mod magazine;
mod one_to_one;

pub(crate) use self::{leases::Leases, load::owner, magazine::Magazine, one_to_one::leave};
#[cfg(doc)]
use crate::map::{Channel, LoadError};
