//! What a guest wants forgotten since its last CMD_SYNC.

use bulkhead_core::stage1::Stage1Flush;

use super::{
    counters::Stage1Tally,
    policy::Stage1Policy,
    stretch::{Stretch, Tag},
    work::Stage1Work,
};
use crate::flush::Run;

/// Runs that are told apart; what comes after them widens one of its ASID, or becomes everything.
const RUNS: usize = 32;
/// Whole ASIDs that are told apart; one more is everything.
const ASIDS: usize = 8;

/// The translations that one VM's stage 1 gave up and its physical SMMU was not yet told of.
///
/// Bounded: it holds any number of commands in fixed memory, at worst as one for everything. Never less than was added.
#[derive(Clone, Debug)]
pub struct Stage1Batch {
    /// The run that grows.
    current: Stretch,
    /// The guest's commands by address, and those of them of more than a page.
    by_address: u64,
    of_ranges: u64,
    /// The guest's other commands.
    others: Stage1Tally,
    /// Runs before the current one.
    earlier: usize,
    asid_count: usize,
    is_all: bool,
    has_failed: bool,
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
            current: Stretch::NOTHING,
            by_address: 0,
            of_ranges: 0,
            others: Stage1Tally::NONE,
            earlier: 0,
            asid_count: 0,
            is_all: false,
            has_failed: false,
            runs: [Stretch::NOTHING; RUNS],
            asids: [0; ASIDS],
        }
    }

    /// Takes note of one command of the guest.
    #[inline(always)]
    pub fn add(&mut self, flush: Stage1Flush) {
        match flush {
            Stage1Flush::Pages(pages) => {
                let Stretch { run, tag, .. } = Stretch::of(&pages);
                self.by_address = self.by_address.wrapping_add(1);
                self.of_ranges = self.of_ranges.wrapping_add((pages.pages != 1).into());
                self.add_run(run, tag);
            }
            _ => self.add_context(flush),
        }
    }

    // Its arguments are such as go in registers.
    #[inline(never)]
    fn add_run(&mut self, run: Run, tag: Tag) {
        let (current, next) = (&mut self.current, Stretch::new(run, tag));
        if current.goes_on_with(&next) {
            current.run.end = current.run.end.max(next.run.end);
        } else if next.goes_on_with(current) {
            current.run = current.run.hull(next.run);
        } else if current.is_nothing() {
            *current = next;
        } else if self.earlier < RUNS - 1 {
            self.runs[self.earlier % RUNS] = Stretch::new(current.run, current.tag).bounded();
            (current.run, current.tag) = (run, tag);
            self.earlier = self.earlier.wrapping_add(1);
        } else {
            self.widen(next.bounded());
        }
    }

    /// The memory is full: the nearest of the same tag takes `next` in, and what lies between.
    #[cold]
    fn widen(&mut self, next: Stretch) {
        let own = self.runs.iter_mut().take(self.earlier).chain([&mut self.current]);
        let own =
            own.map(|stretch| (stretch.run.hull(next.run), stretch)).filter(|(_, stretch)| stretch.tag == next.tag);
        match own.min_by_key(|(hull, stretch)| hull.pages().saturating_sub(stretch.run.pages())) {
            Some((hull, nearest)) => nearest.run = hull,
            None => self.is_all = true,
        }
    }

    #[cold]
    fn add_context(&mut self, flush: Stage1Flush) {
        self.others.note(&flush);
        let known = self.asids.get(..self.asid_count).unwrap_or_default();
        match flush {
            Stage1Flush::Asid(asid) if known.contains(&asid) => {}
            Stage1Flush::Asid(asid) if known.len() < ASIDS => {
                self.asids[self.asid_count % ASIDS] = asid;
                self.asid_count = self.asid_count.wrapping_add(1);
            }
            _ => self.is_all = true,
        }
    }

    /// What was closed last was not done: everything is due again, with the next batch. Until
    /// [`take_failure`](Self::take_failure), however often the batch is added to and closed meanwhile.
    #[cold]
    pub const fn fail(&mut self) {
        (self.is_all, self.has_failed) = (true, true);
    }

    /// Whether something since the last call was not done: for the guest's CMD_SYNC, which must not say that it was.
    #[inline]
    pub const fn take_failure(&mut self) -> bool {
        core::mem::replace(&mut self.has_failed, false)
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.current.is_nothing() && self.asid_count == 0 && !self.is_all
    }

    /// Closes the batch at a CMD_SYNC of the guest, and is empty for the next.
    ///
    /// The commands have to be submitted, and waited for, before the guest's SYNC completes. The work borrows the batch:
    /// what is dropped unsent stays cached.
    #[inline]
    pub fn close(&mut self, policy: &mut Stage1Policy) -> Stage1Work<'_> {
        let current = core::mem::replace(&mut self.current, Stretch::NOTHING).bounded();
        if !current.is_nothing() {
            self.runs[self.earlier % RUNS] = current;
            self.earlier = self.earlier.wrapping_add(1);
        }
        let is_all = core::mem::take(&mut self.is_all);
        let runs = self.runs.get_mut(..core::mem::take(&mut self.earlier)).unwrap_or_default();
        let asids = self.asids.get(..core::mem::take(&mut self.asid_count)).unwrap_or_default();
        policy.note_guest(
            core::mem::take(&mut self.by_address),
            core::mem::take(&mut self.of_ranges),
            &mut self.others,
        );
        let left = if is_all { None } else { policy.narrow(asids, runs) };
        match left.and_then(|left| runs.get(..left)) {
            Some(runs) => Stage1Work::new(asids, runs),
            None => {
                policy.note_everything();
                Stage1Work::everything()
            }
        }
    }
}
