//! Unmapping: whole mappings, gathered for the flush, and tables without entries unlinked.

use bulkhead_core::{
    addr::{Iova, PAGE_SIZE},
    stage2::Descriptor,
};

use super::{
    Domain, STEPS, SplitsMapping,
    arena::Arena,
    walk::{LEAF, Spot, span},
};
use crate::{flush::Stamp, tree::ZERO};

/// Entries that follow each other and were cleared.
#[derive(Clone, Copy, Default)]
struct Cleared {
    first: u64,
    bytes: u64,
}

impl Domain {
    /// Whether unmapping the addresses `first` to `last`, both included, takes away whole mappings alone.
    pub fn check_unmap(&self, arena: &Arena<'_>, first: u64, last: u64) -> Result<(), SplitsMapping> {
        let is_inside = |address| {
            let leaf = self.leaf(arena, address);
            leaf.is_some_and(|leaf| leaf.first != address || !leaf.is_first)
        };
        if is_inside(first) || last.checked_add(1).is_some_and(is_inside) { Err(SplitsMapping) } else { Ok(()) }
    }

    /// Unmaps what is mapped of the addresses `from` to `last`, both included, in one step, and gathers it for the flush.
    /// Yields the address to go on from; `None` when nothing is left. The range that this is a part of was checked.
    pub fn unmap(&mut self, arena: &mut Arena<'_>, from: u64, last: u64) -> Option<u64> {
        let end = last.saturating_add(1).min(1 << self.config.ipa_bits) & !(PAGE_SIZE - 1);
        let mut at = from.checked_next_multiple_of(PAGE_SIZE)?;
        let mut steps = STEPS;
        while at < end {
            if steps == 0 {
                return Some(at);
            }
            let spot = self.spot(arena, at, LEAF);
            at = self.sweep(arena, &spot, at, end, &mut steps);
        }
        None
    }

    /// Clears what is mapped in one table, from `spot` on, which is the entry for `at`, as far as the next table below it.
    /// Yields the address behind what it looked at.
    fn sweep(&mut self, arena: &mut Arena<'_>, spot: &Spot, at: u64, end: u64, steps: &mut u64) -> u64 {
        let bytes = span(spot.level);
        let mut next = at & !(bytes - 1);
        let mut run = Cleared::default();
        let mut cleared = 0;
        for entry in arena.entries(spot.page).get(spot.slot.into()..).unwrap_or_default() {
            let value = entry.load();
            if next >= end || *steps == 0 || matches!(Descriptor::decode(value, spot.level), Descriptor::Table(_)) {
                break;
            }
            if value != 0 {
                entry.store(ZERO);
                if run.first + run.bytes != next || run.bytes == 0 {
                    self.gather(run);
                    run = Cleared { first: next, bytes: 0 };
                }
                run.bytes += bytes;
                cleared += 1;
            }
            next += bytes;
            *steps -= 1;
        }
        if cleared > 0 {
            self.live = self.live.saturating_sub(u64::from(cleared));
            if self.take_entries(arena, spot.page, cleared) {
                let _: Stamp = self.batch.add_tables(Iova::new(run.first), run.bytes / PAGE_SIZE);
            } else {
                self.gather(run);
            }
        }
        next
    }

    fn gather(&mut self, run: Cleared) {
        if run.bytes != 0 {
            let _: Stamp = self.batch.add(Iova::new(run.first), run.bytes / PAGE_SIZE);
        }
    }

    /// Counts entries that a table has lost. One that has none left is unlinked, and so is the one above it; whether any
    /// was.
    fn take_entries(&mut self, arena: &mut Arena<'_>, page: u32, mut lost: u16) -> bool {
        let (mut page, mut is_unlinked) = (page, false);
        loop {
            let Some(note) = arena.note_mut(page) else { return is_unlinked };
            note.live = note.live.saturating_sub(lost);
            if note.live != 0 || page == self.root {
                return is_unlinked;
            }
            note.next = core::mem::replace(&mut self.retired, page);
            let (parent, slot) = (note.parent, note.slot);
            if let Some(entry) = arena.entry(parent, slot.into()) {
                entry.store(ZERO);
            }
            (page, lost, is_unlinked) = (parent, 1, true);
        }
    }
}
