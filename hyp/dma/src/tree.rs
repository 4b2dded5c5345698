//! The tables below a space: a fixed skeleton, and leaf tables that come and go with the leases.
//!
//! A table of entries is reached through shared references: whoever loads a map stores to its own entries, and no two
//! maps have an entry in common. A leaf table is linked once it is all zeros, by one store, and stays while a lease
//! has pages in it. After the last lease it is unlinked, and goes back to its pool when an SMMU can no longer have
//! the way to it cached: after the flush of the batch that took note of it.

mod entry;
mod region;
#[cfg(test)]
pub mod tally;

use bulkhead_core::{
    addr::{Iova, PhysAddr},
    stage2::Descriptor,
};
use thiserror::Error;

use self::region::{END, Leaf, UNLISTED};
pub use self::{
    entry::{Entry, Table, TableSource, ZERO},
    region::Region,
};
use crate::flush::{Batch, Stamp};

/// Pages of a leaf table.
pub(crate) const LEAF_PAGES: u32 = 512;
/// GiB of IOVA that a space has at most, each with a table at level 2 from the start.
pub const WINDOW_GIB_MAX: usize = 16;
/// Regions of 2 MiB in a GiB.
const REGIONS: usize = 512;

/// Why tables could not be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum TreeError {
    /// The quota or the pool is used up.
    #[error("no leaf table left: {linked} of {quota} are in use")]
    NoTable {
        /// Tables in use.
        linked: u32,
        /// The VM's quota.
        quota: u32,
    },
    /// A table that was there has not been flushed out of the SMMUs: a block cannot take its place yet.
    #[error("the table at {0} is not flushed yet")]
    Unflushed(Iova),
}

/// The tables of one space.
#[derive(Debug)]
pub struct Tree<'t> {
    root: Table<'t>,
    middle: [Option<Table<'t>>; WINDOW_GIB_MAX],
    regions: &'t mut [Region<'t>],
    quota: u32,
    taken: u32,
    /// Regions whose table is unlinked and not given back.
    retired: u32,
    /// The first of the list that holds them, and maybe some that were linked again.
    first_retired: u32,
}

impl<'t> Tree<'t> {
    /// The skeleton for as many regions of 2 MiB as there are, with at most `quota` leaf tables.
    /// On error every table went back.
    pub fn new(regions: &'t mut [Region<'t>], quota: u32, source: &mut dyn TableSource<'t>) -> Result<Self, TreeError> {
        let refused = TreeError::NoTable { linked: 0, quota };
        let root = source.take().ok_or(refused)?;
        let mut tree =
            Self { root, middle: [None; WINDOW_GIB_MAX], regions, quota, taken: 0, retired: 0, first_retired: END };
        let gibs = tree.regions.len().div_ceil(REGIONS).min(WINDOW_GIB_MAX);
        for (slot, entry) in tree.middle.iter_mut().zip(root.entries).take(gibs) {
            let Some(table) = source.take() else {
                tree.destroy(source);
                return Err(refused);
            };
            *slot = Some(table);
            entry.store(Descriptor::Table(table.phys).encode(1));
        }
        Ok(tree)
    }

    /// The root, at level 1.
    pub const fn root(&self) -> PhysAddr {
        self.root.phys
    }

    /// Pages that the skeleton covers.
    pub fn pages(&self) -> u32 {
        let regions = self.regions.len().min(WINDOW_GIB_MAX * REGIONS);
        u32::try_from(regions).unwrap_or(u32::MAX).saturating_mul(LEAF_PAGES)
    }

    /// Leaf tables in use, and those on their way back to the pool.
    pub const fn leaf_tables(&self) -> (u32, u32) {
        (self.taken - self.retired, self.retired)
    }

    /// Whether a leaf table waits for a flush.
    pub const fn has_retired(&self) -> bool {
        self.retired != 0
    }

    /// Provides the leaf tables of `pages` pages from `first` on, at least one, for one more lease.
    /// On error nothing has changed.
    pub fn hold(&mut self, first: u32, pages: u32, source: &mut dyn TableSource<'t>) -> Result<(), TreeError> {
        let (low, high) = span(first, pages);
        // The everyday case: in one table, that is there.
        if low == high
            && let Some(region) = self.regions.get_mut(low)
            && let Leaf::Linked(_) = region.leaf
        {
            region.leases = region.leases.wrapping_add(1);
            return Ok(());
        }
        self.hold_each(low, high, source)
    }

    #[inline(never)]
    fn hold_each(&mut self, low: usize, high: usize, source: &mut dyn TableSource<'t>) -> Result<(), TreeError> {
        for at in low..=high {
            let (taken, quota) = (self.taken, self.quota);
            let Some(region) = self.regions.get_mut(at) else { continue };
            if !matches!(region.leaf, Leaf::None) {
                continue;
            }
            match if taken < quota { source.take() } else { None } {
                Some(table) => {
                    region.leaf = Leaf::Spare(table);
                    self.taken += 1;
                }
                None => {
                    self.drop_spares(low, at, source);
                    return Err(TreeError::NoTable { linked: taken, quota });
                }
            }
        }
        for at in low..=high {
            self.link(at);
        }
        Ok(())
    }

    fn drop_spares(&mut self, low: usize, high: usize, source: &mut dyn TableSource<'t>) {
        for region in self.regions.iter_mut().take(high).skip(low) {
            if let Leaf::Spare(table) = region.leaf {
                region.leaf = Leaf::None;
                self.taken -= 1;
                source.give(table);
            }
        }
    }

    fn link(&mut self, at: usize) {
        let entry = self.middle_entry(at);
        let Some(region) = self.regions.get_mut(at) else { return };
        region.leases += 1;
        let table = match region.leaf {
            Leaf::Spare(table) => table,
            Leaf::Retired(table, ..) => {
                self.retired -= 1;
                table
            }
            Leaf::None | Leaf::Linked(_) => return,
        };
        region.leaf = Leaf::Linked(table);
        if let Some(entry) = entry {
            entry.store(Descriptor::Table(table.phys).encode(2));
        }
    }

    /// Takes regions for blocks of 2 MiB: `pages` pages from `first` on, both in whole regions, of one lease.
    /// On error nothing has changed.
    pub fn hold_blocks(&mut self, first: u32, pages: u32) -> Result<(), TreeError> {
        let (low, high) = span(first, pages);
        for at in low..=high {
            if self.regions.get(at).is_none_or(|region| !matches!(region.leaf, Leaf::None)) {
                return Err(TreeError::Unflushed(Iova::new((at as u64) << 21)));
            }
        }
        for region in self.regions.iter_mut().take(high + 1).skip(low) {
            region.leases += 1;
        }
        Ok(())
    }

    /// As [`release`](Self::release), if the lease lies in one table that another has pages in as well; else false.
    #[inline(always)]
    pub fn release_shared(&mut self, first: u32, pages: u32) -> bool {
        let (low, high) = span(first, pages);
        match self.regions.get_mut(low) {
            Some(region) if low == high && region.leases > 1 => {
                region.leases = region.leases.wrapping_sub(1);
                true
            }
            _ => false,
        }
    }

    /// Holds the leaf table of `pages` pages from `first` on for one more lease: their entries, if they lie in one
    /// table, which is there.
    #[inline(always)]
    pub fn hold_linked(&mut self, first: u32, pages: u32) -> Option<&'t [Entry]> {
        let (low, high) = span(first, pages);
        let region = self.regions.get_mut(low).filter(|_| low == high)?;
        let Leaf::Linked(table) = region.leaf else { return None };
        let place = (first % LEAF_PAGES) as usize;
        let slots = table.entries.get(place..place.wrapping_add(pages as usize))?;
        region.leases = region.leases.wrapping_add(1);
        Some(slots)
    }

    /// A lease is gone, and its pages are cleared and flushed: tables without one are unlinked, and gathered.
    #[inline]
    pub fn release(&mut self, first: u32, pages: u32, batch: &mut Batch, channel: u8) {
        let (low, high) = span(first, pages);
        if low == high
            && let Some(region) = self.regions.get_mut(low)
            && region.leases > 1
        {
            region.leases -= 1;
            return;
        }
        self.release_each(low, high, batch, channel);
    }

    #[inline(never)]
    fn release_each(&mut self, low: usize, high: usize, batch: &mut Batch, channel: u8) {
        for at in low..=high {
            let entry = self.middle_entry(at);
            let Some(region) = self.regions.get_mut(at) else { continue };
            region.leases = region.leases.saturating_sub(1);
            if let (0, Leaf::Linked(table), Some(entry)) = (region.leases, region.leaf, entry) {
                entry.store(ZERO);
                let stamp = batch.add_tables(Iova::new((at as u64) << 21), LEAF_PAGES.into());
                region.leaf = Leaf::Retired(table, channel, stamp);
                self.retired += 1;
                if region.next == UNLISTED {
                    region.next = self.first_retired;
                    self.first_retired = u32::try_from(at).unwrap_or(END);
                }
            }
        }
    }

    /// Gives back the tables that `channel` unlinked and that its batch has flushed.
    pub fn reap(&mut self, channel: u8, is_settled: impl Fn(Stamp) -> bool, source: &mut dyn TableSource<'t>) {
        let mut rest = core::mem::replace(&mut self.first_retired, END);
        while let Some(region) = self.regions.get_mut(rest as usize) {
            let at = core::mem::replace(&mut rest, core::mem::replace(&mut region.next, UNLISTED));
            match region.leaf {
                Leaf::Retired(table, owner, stamp) if owner == channel && is_settled(stamp) => {
                    region.leaf = Leaf::None;
                    self.retired -= 1;
                    self.taken -= 1;
                    source.give(table);
                }
                Leaf::Retired(..) => {
                    region.next = core::mem::replace(&mut self.first_retired, at);
                }
                Leaf::None | Leaf::Spare(_) | Leaf::Linked(_) => {}
            }
        }
    }

    /// Up to `pages` entries from `first` on, within one leaf table; empty without a table.
    #[inline]
    pub fn entries(&self, first: u32, pages: u32) -> &'t [Entry] {
        let (at, _) = span(first, 1);
        let place = (first % LEAF_PAGES) as usize;
        match self.regions.get(at).map(|region| region.leaf) {
            Some(Leaf::Linked(table)) => upto(table.entries, place, pages as usize),
            _ => &[],
        }
    }

    /// Up to `blocks` entries of blocks of 2 MiB, from the page `first` on, within one table.
    pub fn blocks(&self, first: u32, blocks: u32) -> &'t [Entry] {
        let (at, _) = span(first, 1);
        match self.middle.get(at / REGIONS) {
            Some(Some(table)) => upto(table.entries, at % REGIONS, blocks as usize),
            _ => &[],
        }
    }

    fn middle_entry(&self, at: usize) -> Option<&'t Entry> {
        let table = self.middle.get(at / REGIONS).copied().flatten()?;
        table.entries.get(at % REGIONS)
    }

    /// Gives every table back. No SMMU uses the tree, or has any of it cached.
    pub fn destroy(self, source: &mut dyn TableSource<'t>) {
        let leaves =
            self.regions.iter_mut().filter_map(|region| match core::mem::replace(region, Region::EMPTY).leaf {
                Leaf::None => None,
                Leaf::Spare(table) | Leaf::Linked(table) | Leaf::Retired(table, ..) => Some(table),
            });
        for table in leaves.chain(self.middle.into_iter().flatten()).chain([self.root]) {
            source.give(table);
        }
    }
}

/// First and last region of `pages` pages, at least 1, from `first` on.
#[inline]
const fn span(first: u32, pages: u32) -> (usize, usize) {
    let last = first.wrapping_add(pages).wrapping_sub(1);
    ((first / LEAF_PAGES) as usize, (last / LEAF_PAGES) as usize)
}

fn upto(entries: &[Entry], place: usize, count: usize) -> &[Entry] {
    let rest = entries.get(place..).unwrap_or_default();
    rest.get(..count).unwrap_or(rest)
}
