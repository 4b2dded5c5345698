//! What was unmapped since the last SYNC, of one channel.

use bulkhead_core::{
    addr::{Iova, PAGE_SIZE},
    ids::{SmmuId, Vmid},
};

use super::{
    epoch::{Epoch, EpochError, Flight},
    policy::Scope,
    range::{Command, Run},
};

/// Runs that are told apart; what comes after them widens the last.
const RUNS: usize = 32;
/// Pages between two unloads that are taken for one run, where ranges cost no more than pages: the slack and the
/// guard page of a lease hold nothing that a flush could cost.
const GAP_PAGES: u64 = 64;
/// Pages of a block of 2 MiB.
const BLOCK_PAGES: u64 = 512;

/// The number of the batch that something was gathered into, from 1. Zero was never gathered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(transparent)]
pub struct Stamp(u64);

impl Stamp {
    /// The stamp with this number, for a record that keeps it as a number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// Ranges of IOVA that were unmapped and not flushed, for the devices of one VM behind one set of SMMUs.
///
/// Bounded: it holds any number of ranges in fixed memory, as runs that are at worst too long.
#[derive(Debug)]
#[repr(C)]
pub struct Batch {
    settled: u64,
    /// Pages that may lie between two unloads of a run, now.
    gap: u64,
    /// End of the run that grows.
    tip: u64,
    /// Maps, and pages below `ONE_MAP`.
    tally: u64,
    open: u64,
    /// First page of the run that grows, or `tip`: there is none. The first of a ring's next batch follows the last of
    /// this one, and the run begins where that ended.
    first: u64,
    /// The gap that each batch begins with.
    narrow_gap: u64,
    /// Runs in `earlier`.
    count: u32,
    has_tables: bool,
    is_quarantined: bool,
    vmid: Vmid,
    /// The SMMUs that walk the VM's tables, a bit each.
    walkers: u16,
    /// When a deferred flush was first put off.
    since_us: Option<u64>,
    hull: Run,
    earlier: [Run; RUNS],
}

/// Above the pages of one batch: a space has 2^22, and what is unflushed is not loaded again.
const ONE_MAP: u64 = 1 << 23;

/// Past every page.
const NOWHERE: u64 = 1 << 63;

const NOTHING: Run = Run { first: u64::MAX, end: 0 };

impl Batch {
    /// An empty batch for `vmid`, whose table the SMMUs `walkers` walk. `has_ranges`: they all take range commands.
    pub fn new(vmid: Vmid, walkers: impl IntoIterator<Item = SmmuId>, has_ranges: bool) -> Self {
        Self {
            first: NOWHERE,
            tip: NOWHERE,
            tally: 0,
            open: 1,
            settled: 0,
            gap: if has_ranges { GAP_PAGES } else { 0 },
            narrow_gap: if has_ranges { GAP_PAGES } else { 0 },
            count: 0,
            has_tables: false,
            is_quarantined: false,
            vmid,
            walkers: walkers.into_iter().fold(0, |set, smmu| set | Flight::bit(smmu)),
            since_us: None,
            hull: NOTHING,
            earlier: [NOTHING; RUNS],
        }
    }

    /// Takes note of `pages` pages from `first` whose leaves were cleared. The stores come first: what is gathered
    /// before them may be flushed before them. Nothing is gathered for 0 pages.
    #[inline]
    pub fn add(&mut self, first: Iova, pages: u64) -> Stamp {
        self.add_pages(first.as_u64() / PAGE_SIZE, pages)
    }

    /// The same, from the page with this number on.
    #[inline]
    pub(crate) fn add_pages(&mut self, page: u64, pages: u64) -> Stamp {
        // Between two blocks is as much as a block, and nothing in it: passed over, for the rest of the batch.
        let reach = if self.gap == 0 { 0 } else { self.gap.max(pages.min(BLOCK_PAGES)) };
        if page.wrapping_sub(self.tip) <= reach {
            self.gap = reach;
            return self.extend(page, pages);
        }
        self.open_run(Run { first: page, end: page.saturating_add(pages) });
        self.tally(pages);
        Stamp(self.open)
    }

    /// As [`add`](Self::add), for pages that follow the current run.
    #[inline]
    pub(crate) const fn extend(&mut self, page: u64, pages: u64) -> Stamp {
        self.tip = page.wrapping_add(pages);
        self.tally(pages);
        Stamp(self.open)
    }

    /// Whether `page` follows the current run, so that [`extend`](Self::extend) takes it: in a ring that goes up, the
    /// next is a little past it.
    #[inline]
    pub(crate) const fn is_next(&self, page: u64) -> bool {
        page.wrapping_sub(self.tip) <= self.gap
    }

    #[inline]
    const fn tally(&mut self, pages: u64) {
        self.tally = self.tally.wrapping_add(ONE_MAP.wrapping_add(pages));
    }

    /// As [`add`](Self::add), where a table was unlinked as well: the flush reaches cached table descriptors too.
    pub fn add_tables(&mut self, first: Iova, pages: u64) -> Stamp {
        self.has_tables = true;
        self.add(first, pages)
    }

    #[cold]
    fn open_run(&mut self, run: Run) {
        if run.end <= run.first {
            return;
        }
        let current = self.current();
        let mut next = run;
        if !self.is_empty() {
            let is_within = run.first >= current.first && run.first <= current.end.wrapping_add(self.gap);
            if is_within {
                next = current.hull(run);
            } else if let Some(slot) = self.earlier.get_mut(self.count as usize) {
                self.hull = self.hull.hull(current);
                *slot = current;
                self.count += 1;
            } else {
                next = current.hull(run);
            }
        }
        (self.first, self.tip) = (next.first, next.end);
    }

    /// The run that grows.
    const fn current(&self) -> Run {
        if self.is_empty() { NOTHING } else { Run { first: self.first, end: self.tip } }
    }

    /// Whether there is nothing to flush.
    pub const fn is_empty(&self) -> bool {
        self.first == self.tip
    }

    /// Pages gathered.
    pub const fn pages(&self) -> u64 {
        self.tally % ONE_MAP
    }

    /// Maps gathered.
    pub const fn maps(&self) -> u32 {
        let [a, b, c, d, ..] = (self.tally / ONE_MAP).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// Runs that the pages make up.
    pub const fn runs(&self) -> u32 {
        if self.is_empty() { 0 } else { self.count + 1 }
    }

    /// The smallest run that holds all runs.
    pub fn hull(&self) -> Run {
        self.hull.hull(self.current())
    }

    /// Whether a table was unlinked.
    pub const fn has_tables(&self) -> bool {
        self.has_tables
    }

    /// Pages that the runs cover, which may be more than were gathered.
    pub(super) fn run_pages(&self) -> u64 {
        self.each_run().map(Run::pages).fold(0, u64::saturating_add)
    }

    /// Pages that a range command for each run covers.
    pub(super) fn covered_pages(&self) -> u64 {
        let covered = |run: Run| super::Covering::of(run.pages()).map_or(u64::MAX, super::Covering::pages);
        self.each_run().map(covered).fold(0, u64::saturating_add)
    }

    fn each_run(&self) -> impl Iterator<Item = Run> + '_ {
        self.earlier.iter().take(self.count as usize).copied().chain((!self.is_empty()).then_some(self.current()))
    }

    pub(super) fn since_us(&mut self, now_us: u64) -> u64 {
        *self.since_us.get_or_insert(now_us)
    }

    /// Closes the batch for a flush by `scope`, and opens the next: what is unmapped from now on is the next's.
    ///
    /// The commands have to be submitted before anything else is gathered: the work borrows the batch.
    #[inline]
    pub fn close(&mut self, scope: Scope) -> Work<'_> {
        let number = self.open;
        let scope = if self.is_empty() { Scope::Nothing } else { scope };
        let missing = if scope == Scope::Nothing { 0 } else { self.walkers };
        let (hull, current, is_leaf) = (self.hull(), self.current(), !self.has_tables);
        let earlier = self.earlier.get(..self.count as usize).unwrap_or_default();
        self.open = number.wrapping_add(1);
        (self.first, self.hull) = (self.tip, NOTHING);
        self.gap = self.narrow_gap;
        (self.tally, self.count) = (0, 0);
        (self.has_tables, self.since_us) = (false, None);
        Work {
            flight: Flight::new(number, self.vmid, missing),
            scope,
            vmid: self.vmid,
            hull,
            current,
            earlier,
            is_leaf,
        }
    }

    /// Takes the proof of a flush. On error nothing has changed.
    pub fn accept(&mut self, epoch: &Epoch) -> Result<(), EpochError> {
        let next = self.settled.wrapping_add(1);
        if self.is_quarantined {
            return Err(EpochError::Quarantined);
        }
        if epoch.vmid() != self.vmid {
            return Err(EpochError::WrongVmid { flushed: epoch.vmid(), owner: self.vmid });
        }
        if epoch.number() != next || next >= self.open {
            return Err(EpochError::OutOfOrder { number: epoch.number(), next });
        }
        self.settled = next;
        Ok(())
    }

    /// Gives up: a flush failed. Nothing that is gathered now, or was not settled, ever will be.
    pub const fn quarantine(&mut self) {
        self.is_quarantined = true;
    }

    /// Whether a flush failed.
    pub const fn is_quarantined(&self) -> bool {
        self.is_quarantined
    }

    /// Whether what was gathered with `stamp` has been flushed by every SMMU: it may be used again.
    #[inline]
    pub const fn is_settled(&self, stamp: Stamp) -> bool {
        stamp.0 <= self.settled
    }

    /// 0 where [`is_settled`](Self::is_settled), else 1: a number, to be looked at together with another.
    #[inline]
    pub(crate) const fn unsettled(&self, stamp: Stamp) -> u64 {
        self.settled.wrapping_sub(stamp.0) >> 63
    }

    /// Whether what was gathered with `stamp` is still in the open batch: no flush of it has begun.
    #[inline]
    pub const fn is_open(&self, stamp: Stamp) -> bool {
        stamp.0 == self.open
    }
}

/// A batch that was closed: the commands of its flush. Dropping it leaves its pages unflushed for good.
#[derive(Debug)]
#[must_use = "what the batch holds is not flushed"]
pub struct Work<'b> {
    pub(super) flight: Flight,
    scope: Scope,
    vmid: Vmid,
    hull: Run,
    current: Run,
    earlier: &'b [Run],
    is_leaf: bool,
}

impl Work<'_> {
    /// What is flushed.
    pub const fn scope(&self) -> Scope {
        self.scope
    }

    /// Whose translations.
    pub const fn vmid(&self) -> Vmid {
        self.vmid
    }

    /// Whether cached table descriptors may stay.
    pub const fn is_leaf(&self) -> bool {
        self.is_leaf
    }

    /// Runs in it.
    pub(super) fn runs(&self) -> u64 {
        self.each_run().fold(0, |count, _| count + 1)
    }

    /// Pages that the runs cover.
    pub(super) fn run_pages(&self) -> u64 {
        self.each_run().map(Run::pages).fold(0, u64::saturating_add)
    }

    fn each_run(&self) -> impl Iterator<Item = Run> + Clone + '_ {
        self.earlier.iter().copied().chain([self.current])
    }

    /// The one command that does it all, when one is enough.
    #[inline]
    pub fn single(&self) -> Option<Command> {
        match self.scope {
            Scope::Context => Some(Command::Context),
            Scope::Range => Some(Command::covering(self.hull)),
            Scope::Runs if self.earlier.is_empty() => Some(Command::covering(self.current)),
            Scope::Pages if self.hull.pages() == 1 => Some(Command::Page { page: self.hull.first }),
            Scope::Nothing | Scope::Pages | Scope::Runs => None,
        }
    }

    /// The commands, in order.
    pub fn commands(&self) -> impl Iterator<Item = Command> + Clone + '_ {
        let runs = self.each_run();
        let (pages, ranges) = (self.scope == Scope::Pages, self.scope == Scope::Runs);
        let pages = runs.clone().filter(move |_| pages).flat_map(|run| run.first..run.end);
        let ranges = runs.filter(move |_| ranges).map(Command::covering);
        let single = if matches!(self.scope, Scope::Range | Scope::Context) { self.single() } else { None };
        single.into_iter().chain(pages.map(|page| Command::Page { page })).chain(ranges)
    }
}
