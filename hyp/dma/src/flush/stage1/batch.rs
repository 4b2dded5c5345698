//! What a guest wants forgotten since its last CMD_SYNC.

use bulkhead_core::stage1::{Stage1Flush, Stage1Pages};

use super::{counters::Stage1Tally, policy::Stage1Policy, stretch::Stretch, work::Stage1Work};

/// Runs that are told apart; what comes after them widens one of its ASID, or becomes everything.
pub(super) const RUNS: usize = 32;
/// Whole ASIDs that are told apart; one more is everything.
pub(super) const ASIDS: usize = 8;

/// The translations that one VM's stage 1 gave up and its physical SMMU was not yet told of.
///
/// Bounded: it holds any number of commands in fixed memory, at worst as one for everything. Never less than was added.
#[derive(Clone, Debug)]
pub struct Stage1Batch {
    /// Runs in `runs`; the last is the one that grows.
    count: usize,
    guest: Stage1Tally,
    is_all: bool,
    asid_count: usize,
    runs: [Stretch; RUNS],
    asids: [u16; ASIDS],
}

impl Default for Stage1Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Stage1Batch {
    /// An empty batch.
    pub const fn new() -> Self {
        Self {
            count: 0,
            guest: Stage1Tally::NONE,
            is_all: false,
            asid_count: 0,
            runs: [Stretch::NOTHING; RUNS],
            asids: [0; ASIDS],
        }
    }

    /// Takes note of one command of the guest.
    #[inline]
    pub fn add(&mut self, flush: Stage1Flush) {
        match flush {
            Stage1Flush::Pages(pages) => self.add_pages(&pages),
            Stage1Flush::Asid(asid) => self.add_asid(asid),
            Stage1Flush::All => {
                self.guest.note_all();
                self.is_all = true;
            }
        }
    }

    #[inline]
    fn add_pages(&mut self, pages: &Stage1Pages) {
        self.guest.note_pages(pages.pages);
        let stretch = Stretch::of(pages);
        match self.runs.get_mut(self.count.wrapping_sub(1)) {
            Some(last) if last.touches(&stretch) => last.widen(&stretch),
            _ => self.open(&stretch),
        }
    }

    #[cold]
    fn open(&mut self, stretch: &Stretch) {
        if let Some(slot) = self.runs.get_mut(self.count) {
            *slot = *stretch;
            self.count += 1;
            return;
        }
        let own = self.runs.iter_mut().filter(|run| run.tag == stretch.tag);
        match own.min_by_key(|run| run.run.hull(stretch.run).pages() - run.run.pages()) {
            Some(nearest) => nearest.widen(stretch),
            None => self.is_all = true,
        }
    }

    #[cold]
    fn add_asid(&mut self, asid: u16) {
        self.guest.note_asid();
        if self.whole_asids().contains(&asid) {
            return;
        }
        match self.asids.get_mut(self.asid_count) {
            Some(slot) => {
                *slot = asid;
                self.asid_count += 1;
            }
            None => self.is_all = true,
        }
    }

    fn whole_asids(&self) -> &[u16] {
        self.asids.get(..self.asid_count).unwrap_or_default()
    }

    /// Whether nothing was added.
    pub const fn is_empty(&self) -> bool {
        self.count == 0 && self.asid_count == 0 && !self.is_all
    }

    /// Closes the batch at a CMD_SYNC of the guest, and is empty for the next.
    ///
    /// The commands have to be submitted, and waited for, before the guest's SYNC completes. The work borrows the batch:
    /// what is dropped unsent stays cached.
    #[inline]
    pub fn close(&mut self, policy: &mut Stage1Policy) -> Stage1Work<'_> {
        let is_all = self.is_all;
        let runs = self.runs.get_mut(..self.count).unwrap_or_default();
        let asids = self.asids.get(..self.asid_count).unwrap_or_default();
        (self.count, self.asid_count, self.is_all) = (0, 0, false);
        policy.note_guest(&mut self.guest);
        let work = if is_all || !policy.suffices(asids, runs) {
            Stage1Work::everything()
        } else {
            Stage1Work::new(asids, runs)
        };
        policy.note_work(&work);
        work
    }
}
