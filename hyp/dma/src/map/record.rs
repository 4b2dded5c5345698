//! What is kept of a map.

use super::{Handle, handle::LOADED, piece::NONE};
use crate::{flush::Stamp, iova::Wish, tree::Entry};

/// What a channel keeps of a map. Given to it as [`Record::EMPTY`].
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Record<'t> {
    /// The handle, and `LOADED`; 0 where there never was a map.
    pub(super) word: u64,
    /// The batch of the last unload.
    pub(crate) stamp: Stamp,
    /// First page of the lease.
    pub(crate) first: u64,
    /// Entries for a load of segments of one page each: no more than the map takes segments. Empty where loads have
    /// more to look at, as all of `run` is then.
    pub(super) singles: &'t [Entry],
    /// Entries for a load of one segment: those in the lease's first table. Empty for blocks.
    pub(super) run: &'t [Entry],
    /// Entries that an unload can clear at once: the same, or those of blocks.
    pub(super) slots: &'t [Entry],
    /// Pages (or blocks) that were loaded last: these entries of the lease are not clear.
    pub(super) used: u32,
    /// Pages that these entries map.
    pub(super) pages: u32,
    /// The first piece.
    pub(crate) pieces: u32,
    /// Pages (or blocks) that can be loaded.
    pub(crate) capacity: u32,
    pub(super) max_segments: u32,
    /// Pages between boundaries that segments must not cross; 0: none.
    pub(crate) boundary: u32,
    pub(crate) kind: Kind,
    /// Waits in the list of maps whose flush gives something back.
    pub(crate) is_listed: bool,
    /// Destroyed.
    pub(crate) is_gone: bool,
    /// Next in that list, or in the list of records out of use.
    pub(super) link: u32,
    /// The lease that a load takes, where loads do.
    pub(crate) wish: Wish,
}

/// How a map's entries are had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Pages, leased when the map was created.
    Pages,
    /// The same, and what devices reach of them is counted.
    Sampled,
    /// Blocks of 2 MiB, leased when the map was created.
    Blocks,
    /// Pages, leased as one range by each load.
    PerLoad,
    /// Pages, with a range for each segment.
    PerSegment,
}

impl Record<'_> {
    /// A record out of use.
    pub const EMPTY: Self = Self {
        word: 0,
        stamp: Stamp::new(0),
        first: 0,
        singles: &[],
        run: &[],
        slots: &[],
        used: 0,
        pages: 0,
        pieces: NONE,
        capacity: 0,
        max_segments: 0,
        boundary: 0,
        kind: Kind::Pages,
        is_listed: false,
        is_gone: false,
        link: NONE,
        wish: Wish::pages(0),
    };

    pub(super) const fn is_loaded(&self) -> bool {
        self.word & LOADED != 0
    }

    pub(super) const fn handle(&self) -> Handle {
        Handle(self.word & !LOADED)
    }

    /// Whether it is the record of `handle`.
    pub(super) const fn is_of(&self, handle: Handle) -> bool {
        self.word & !LOADED == handle.0 && handle.0 != 0 && !self.is_gone
    }
}
