//! DMA maps for a guest's drivers, in the words of bus_dma(9).
//!
//! A driver attaches to the [`Bus`] once, says in a [`Tag`] what its device can address, creates a [`Map`] for each
//! slot of its queues, and from then on only loads and unloads: creating is what costs, loading allocates nothing.
//!
//! What is loaded owns its memory: [`Map::load`] takes the buffers, [`Loaded::unload`] returns them when no device
//! reaches them any more. A [`Ring`] does the same for many maps with one call. Buffers are `'static`: a borrow would end
//! with a `Loaded` that is forgotten, and the device would still be there.
//!
//! The hypervisor is behind the trait [`Hypervisor`]: the HVC instruction in a guest, a model in tests.
#![no_std]
#![forbid(unsafe_code)]
#![expect(clippy::result_large_err, reason = "what is refused comes back, and there is no heap for it")]

mod buffers;
mod bus;
mod error;
mod map;
mod raw;
mod ring;
mod tag;

pub use buffers::{Buffers, Span};
pub use bulkhead_abi as abi;
pub use bulkhead_abi::{Counter, Direction, MapState, Segment, SyncOp};
pub use bus::{Bus, Hypervisor};
pub use error::{Error, Refused};
pub use map::{Loaded, Map};
pub use raw::{RawRing, Run, Segments};
pub use ring::{Done, Ring};
pub use tag::Tag;
