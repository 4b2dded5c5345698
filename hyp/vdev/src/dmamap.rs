//! DMA maps as a guest calls for them: decoding, rings, answers.
//!
//! [`answer`] takes x0 to x6 of a call that [`owns`] says is ours, checks what can be checked without the maps, and
//! drives a [`Backend`] for the rest. The calls are those of [`bulkhead_abi`]. Whatever the guest's values are, nothing
//! here panics, waits or takes more than [`RUN_MAX`](bulkhead_abi::ring::RUN_MAX) steps.

mod answer;
mod backend;
mod call;
mod entries;
mod memory;
#[cfg(any(test, feature = "model"))]
pub mod model;
mod ring;
#[cfg(test)]
mod tests;

pub use crate::memory::{GuestMemory, Word};
pub use answer::answer;
pub use backend::{Backend, Channel, Lease, Loaded, MapInfo};
pub use call::{Call, owns};
pub use entries::{Entries, Maps, Refusal};
pub use ring::Ring;
