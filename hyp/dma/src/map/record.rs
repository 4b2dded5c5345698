//! What is kept of a map.

use super::{
    Handle,
    blocks::BLOCK_PAGES,
    handle::{GONE, LOADED},
    piece::NONE,
};
use crate::{flush::Stamp, iova::Wish, tree::Entry};

/// What a channel keeps of a map. Given to it as [`Record::EMPTY`].
///
/// Everyday loads and unloads need the first cache line alone.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Record<'t> {
    /// The handle, with `LOADED`, or the next one, with `GONE`; 0 where there never was a map.
    pub(super) word: u64,
    /// The batch of the last unload.
    pub(crate) stamp: Stamp,
    /// The page that the first entry of everyday loads maps: the lease's first, where it lies in one table.
    pub(crate) first: u64,
    /// Entries for a load of three segments of a page each, where a map takes as many.
    pub(super) triple: Option<&'t [Entry; 3]>,
    /// Entries for a load of one segment: those of the lease that lie in one table. Empty where loads have more to look
    /// at.
    pub(super) run: &'t [Entry],
    /// The entries of the last load, where an unload can clear them at once; else empty, and `used` counts them.
    pub(super) loaded: &'t [Entry],
    /// The entry of a map of one block.
    pub(super) block: Option<&'t Entry>,
    /// Pages (or blocks) of the last load, where `loaded` does not tell.
    used: u32,
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

impl<'t> Record<'t> {
    /// A record out of use.
    pub const EMPTY: Self = Self {
        word: 0,
        stamp: Stamp::new(0),
        first: 0,
        triple: None,
        run: &[],
        loaded: &[],
        block: None,
        used: 0,
        pieces: NONE,
        capacity: 0,
        max_segments: 0,
        boundary: 0,
        kind: Kind::Pages,
        is_listed: false,
        link: NONE,
        wish: Wish::pages(0),
    };

    pub(super) const fn is_loaded(&self) -> bool {
        self.word & LOADED != 0
    }

    /// Takes note of a load of `used` pages (or blocks) into `slots`; into several pieces where that is empty.
    #[inline]
    pub(crate) fn set_loaded(&mut self, slots: &'t [Entry], used: u32) {
        self.word |= LOADED;
        self.loaded = slots;
        self.used = used;
    }

    /// Pages (or blocks) that were loaded last: these entries of the lease are not clear. There are at most 2^27.
    pub(super) const fn used(&self) -> u32 {
        if self.loaded.is_empty() { self.used } else { count(self.loaded) }
    }

    /// Pages that one of its entries maps.
    pub(super) const fn leaf_pages(&self) -> u32 {
        if self.block.is_some() { BLOCK_PAGES } else { 1 }
    }

    /// Pages that were loaded last.
    pub(super) const fn pages(&self) -> u32 {
        self.used().wrapping_mul(self.leaf_pages())
    }

    /// Destroyed.
    pub(crate) const fn is_gone(&self) -> bool {
        self.word & GONE != 0
    }

    pub(super) const fn handle(&self) -> Handle {
        Handle(self.word & !(LOADED | GONE))
    }

    /// Whether it is the record of `handle`.
    pub(super) const fn is_of(&self, handle: Handle) -> bool {
        self.word & !LOADED == handle.0 && handle.0 != 0
    }
}

/// How many entries there are: at most 2^27.
#[inline]
pub(super) const fn count(slots: &[Entry]) -> u32 {
    let [a, b, c, d, ..] = (slots.len() as u64).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
