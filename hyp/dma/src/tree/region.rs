//! What is known of 2 MiB of a space.

use super::Table;
use crate::flush::Stamp;

/// The leaf table of a region.
#[derive(Clone, Copy, Debug)]
pub(super) enum Leaf<'t> {
    /// There is none.
    None,
    /// Taken from the pool, never linked.
    Spare(Table<'t>),
    /// In the tree.
    Linked(Table<'t>),
    /// Out of the tree, and of an SMMU's caches after the flush of this stamp in the batch of this channel.
    Retired(Table<'t>, u8, Stamp),
}

/// What is kept of a region of 2 MiB. Given to the tree as [`Region::EMPTY`].
#[derive(Clone, Copy, Debug)]
pub struct Region<'t> {
    pub(super) leaf: Leaf<'t>,
    /// Leases with pages in it.
    pub(super) leases: u32,
    /// The next in the list of those whose table was retired; `UNLISTED` for one that is not in it.
    pub(super) next: u32,
}

/// The end of the list.
pub(super) const END: u32 = u32::MAX;
/// Not in the list.
pub(super) const UNLISTED: u32 = u32::MAX - 1;

impl Region<'_> {
    /// A region without leases.
    pub const EMPTY: Self = Self { leaf: Leaf::None, leases: 0, next: UNLISTED };
}
