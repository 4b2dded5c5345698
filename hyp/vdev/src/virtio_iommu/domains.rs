//! What stands behind the requests: tables, and which of them each endpoint walks.

use thiserror::Error;

/// Addresses of endpoints, the last one included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// First address.
    pub first: u64,
    /// Last address, not below the first.
    pub last: u64,
}

/// What a MAP asks for, in range: whole pages of 4 KiB, inside the input range and outside what is reserved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// Addresses of endpoints.
    pub range: Range,
    /// Guest-physical address of the first; any value.
    pub ipa: u64,
    /// The endpoints may read.
    pub is_readable: bool,
    /// The endpoints may write.
    pub is_writable: bool,
}

/// What an endpoint reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Nothing: its accesses are aborted.
    Nothing,
    /// The VM's RAM, by guest-physical addresses.
    Ram,
    /// What the domain in this place maps.
    Domain(usize),
}

/// Nothing can be relied on any more: an SMMU did not do what it was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("an smmu did not do what it was told")]
pub struct Failed;

/// No tables are left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("no table pages left")]
pub struct NoTables;

/// The range begins or ends inside a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the range would split a mapping")]
pub struct Splits;

/// Why nothing more of a mapping was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum MapRefused {
    /// Something is mapped there.
    #[error("something is mapped there")]
    Mapped,
    /// Not all of it is the VM's own RAM.
    #[error("not all of it is the vm's ram")]
    NotRam,
    /// No tables are left.
    #[error(transparent)]
    NoTables(#[from] NoTables),
    /// A flush that had to come first failed.
    #[error(transparent)]
    Failed(#[from] Failed),
}

/// A VM's domains, each in one of [`DEVICES_MAX`](bulkhead_core::vplat::DEVICES_MAX) places, and its endpoints.
///
/// What is mapped is in force at the next [`sync`](Self::sync), and so is that unmapped memory is out of reach.
pub trait Domains {
    /// Makes a domain that maps nothing in a free place. On error nothing has changed.
    ///
    /// # Errors
    /// [`NoTables`].
    fn create(&mut self, place: usize) -> Result<(), NoTables>;

    /// Takes away a domain that no endpoint reaches, with all that it maps, flushed.
    ///
    /// # Errors
    /// [`Failed`].
    fn destroy(&mut self, place: usize) -> Result<(), Failed>;

    /// Decides what an endpoint reaches; when this returns, it reaches nothing else.
    ///
    /// # Errors
    /// [`Failed`].
    fn attach(&mut self, endpoint: u32, reach: Reach) -> Result<(), Failed>;

    /// Maps on from `done` bytes into a mapping, in one bounded step. Yields how many bytes are mapped then, more than
    /// before. What was unmapped there since the last sync is flushed first. On error no more is mapped than was.
    ///
    /// # Errors
    /// [`MapRefused`].
    fn map(&mut self, place: usize, mapping: &Mapping, done: u64) -> Result<u64, MapRefused>;

    /// Whether unmapping `range` takes only whole mappings away.
    ///
    /// # Errors
    /// [`Splits`] when not.
    fn check_unmap(&mut self, place: usize, range: Range) -> Result<(), Splits>;

    /// Unmaps what is mapped in `range` from address `from` on, in one bounded step. Yields the address to go on from;
    /// `None` when there is nothing left.
    fn unmap(&mut self, place: usize, range: Range, from: u64) -> Option<u64>;

    /// Ends a batch: stores of mappings are visible to the SMMUs, and nothing that was unmapped can be reached (one
    /// flush).
    ///
    /// # Errors
    /// [`Failed`].
    fn sync(&mut self) -> Result<(), Failed>;
}
