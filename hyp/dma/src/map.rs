//! DMA maps: leases of IOVA, made once, into which a guest's buffers are loaded and out of which they are unloaded.
//!
//! The words are bus_dma(9)'s. [`Space::create`] leases IOVA for a map and provides every table that it can need;
//! [`Channel::load`] only stores leaves, and [`Channel::unload`] only clears them and adds the pages to the channel's
//! [`Batch`](crate::flush::Batch). After the batch's SYNC the map can be loaded again. [`Space::destroy`] takes it away.
//!
//! # Who holds what
//! A map belongs to a [`Channel`], a queue of a driver. Work on it needs `&mut Channel`, which the platform claims once
//! for a hypercall or for a ring's run; loads and unloads take no lock beyond that, allocate nothing, and read no table:
//! the map keeps a reference to its own entries. Creating and destroying need `&mut Space` as well: the VM's one lock.
//!
//! # States
//! *Created* (nothing mapped), *loaded*, *unflushed* (cleared, but an SMMU may still know), and created again. A map's
//! record says loaded or not, and the stamp of the batch that its last unload went into: it is unflushed until its
//! channel's batch has settled that stamp, so a SYNC costs a map nothing. [`Channel::map`] shows the state as a type,
//! [`Map`], and each step from one to the next is a method that only the right state has.
//!
//! # Pages
//! A page of the VM's RAM may be in several maps. Nobody counts them as they are loaded: that would be an atomic
//! read-modify-write for each page, on a line that all CPUs share, for an answer that is wanted only when a page leaves
//! the VM. [`Channel::holds`] derives it from the tables when it is asked: a page is let go when no channel holds it.
//! (One-to-one IOVAs are counted in their entries: there, two maps share one entry.)

mod blocks;
mod channel;
mod create;
mod destroy;
mod error;
mod find;
mod handle;
pub(crate) mod load;
#[cfg(all(test, feature = "model"))]
mod model;
mod params;
pub(crate) mod piece;
pub(crate) mod record;
mod sample;
mod space;
mod state;
#[cfg(all(test, not(feature = "model")))]
mod tests;
mod unload;
mod view;

pub use self::{
    channel::{Channel, ChannelStorage, Counters},
    create::Created,
    error::{CreateError, HandleError, LoadError, SpaceError},
    find::{Found, Holds},
    handle::Handle,
    params::{Direction, MapParams, Segment},
    piece::Piece,
    record::Record,
    sample::SAMPLED_EVERY,
    space::{Space, SpaceConfig, SpaceStorage},
    state::{AnyMap, Empty, Loaded, Map, State, Unflushed},
    view::View,
};
