//! What is kept of a map.

use bulkhead_core::addr::PAGE_SIZE;

use super::{Handle, blocks::BLOCK_PAGES, handle::GONE, piece::NONE};
use crate::{
    flush::{BLOCK_STRIDE, Stamp, place_of_page},
    iova::Wish,
    tree::Entry,
};

/// What a channel keeps of a map. Given to it as [`Record::empty`].
///
/// Everyday loads and unloads need the first cache line alone; one segment of pages takes its entries from the second.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Record<'t> {
    /// The handle, or the next one, with `GONE`; 0 where there never was a map.
    pub(super) word: u64,
    /// While it is loaded the handle: a mark later than every stamp. Else the stamp of the batch of its last unload.
    pub(super) mark: u64,
    /// Where a run of the batch has to end for its own pages to be the next: near the place of the page at `base`. For
    /// one block, the address of the block a stride below, which has to be the run's last.
    pub(super) follows: u64,
    /// What the first entry of everyday loads maps: the lease's first address, where it lies in one table.
    pub(super) base: u64,
    /// The entry of a map of one block; of other maps one that nobody has.
    pub(super) block: &'t Entry,
    /// Entries for a load of three segments of a page each, where a map takes as many.
    pub(super) triple: Option<&'t [Entry; 3]>,
    /// The entries of the last load, where an unload can clear them at once; else empty, and `used` counts them.
    pub(super) loaded: &'t [Entry],
    /// Entries for a load of one segment: those of the lease that lie in one table. Empty where loads have more to look
    /// at.
    pub(super) run: &'t [Entry],
    /// Bytes that a load of a map of one block has; of other maps 0.
    pub(super) only: u32,
    /// Blocks of the RAM that a map of one block can take one of; of other maps 0, so that they never take `block`.
    pub(super) blocks: u32,
    /// Pages (or blocks) of the last load, where `loaded` does not tell.
    used: u32,
    /// The first piece.
    pub(crate) pieces: u32,
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
    pub fn empty() -> Self {
        Self {
            word: 0,
            mark: Stamp::new(0).mark(),
            follows: place_of_page(0),
            base: 0,
            block: Entry::nobodys(),
            only: 0,
            blocks: 0,
            triple: None,
            loaded: &[],
            run: &[],
            used: 0,
            pieces: NONE,
            max_segments: 0,
            boundary: 0,
            kind: Kind::Pages,
            is_listed: false,
            link: NONE,
            wish: Wish::pages(0),
        }
    }

    pub(super) const fn is_loaded(&self) -> bool {
        self.mark < GONE
    }

    /// The batch of the last unload, of a map that is not loaded.
    pub(crate) const fn stamp(&self) -> Stamp {
        Stamp::of_mark(self.mark)
    }

    pub(super) const fn set_stamp(&mut self, stamp: Stamp) {
        self.mark = stamp.mark();
    }

    /// The page that the first entry of everyday loads maps.
    pub(crate) const fn first(&self) -> u64 {
        self.base / PAGE_SIZE
    }

    /// Takes note of where its pages begin.
    #[inline]
    pub(crate) const fn set_first(&mut self, page: u64) {
        (self.base, self.follows) = (page.wrapping_mul(PAGE_SIZE), place_of_page(page));
    }

    /// Takes note of its entry, if it is a map of one block: of any of the RAM's `blocks`.
    pub(super) const fn set_block(&mut self, slots: &'t [Entry], blocks: u32) {
        if let (Kind::Blocks, [only]) = (self.kind, slots) {
            (self.block, self.only, self.blocks) = (only, BLOCK_PAGES << 12, blocks);
            self.follows = self.base.wrapping_sub(BLOCK_STRIDE);
        } else {
            (self.only, self.blocks) = (0, 0);
        }
    }

    /// Takes note of a load of `used` pages (or blocks) into `slots`; into several pieces where that is empty.
    #[inline]
    pub(crate) fn set_loaded(&mut self, slots: &'t [Entry], used: u32) {
        self.mark = self.word;
        self.loaded = slots;
        self.used = used;
    }

    /// Whether it is a map of one block.
    pub(super) const fn is_block(&self) -> bool {
        self.blocks != 0
    }

    /// Pages (or blocks) that were loaded last: these entries of the lease are not clear. There are at most 2^27.
    pub(super) const fn used(&self) -> u32 {
        match self.loaded {
            _ if self.is_block() => 1,
            [] => self.used,
            loaded => count(loaded),
        }
    }

    /// Pages (or blocks) that can be loaded: those of the lease but the guard page.
    pub(crate) const fn capacity(&self) -> u32 {
        let pages = self.wish.pages.saturating_sub(1);
        match self.kind {
            Kind::Blocks => pages / BLOCK_PAGES,
            _ => pages,
        }
    }

    /// Pages that one of its entries maps.
    pub(super) const fn leaf_pages(&self) -> u32 {
        match self.kind {
            Kind::Blocks => BLOCK_PAGES,
            _ => 1,
        }
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
        Handle(self.word & !GONE)
    }

    /// Whether it is the record of `handle`.
    pub(super) const fn is_of(&self, handle: Handle) -> bool {
        self.word == handle.0 && handle.0 != 0
    }
}

/// How many entries there are: at most 2^27.
#[inline]
pub(super) const fn count(slots: &[Entry]) -> u32 {
    let [a, b, c, d, ..] = (slots.len() as u64).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
