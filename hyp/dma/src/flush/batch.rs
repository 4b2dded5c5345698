//! What was unmapped since the last SYNC, of one channel.

use bulkhead_core::{
    addr::{BLOCK_2M, Iova, PAGE_SIZE},
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
/// From one block of a ring to the next, in bytes: between them are a guard page, and what aligns the next.
pub(crate) const BLOCK_STRIDE: u64 = 2 * BLOCK_2M;

/// The place of a page with this number in what the batch keeps: no block's address is one.
pub(crate) const fn place_of_page(page: u64) -> u64 {
    page.wrapping_add(PLACES)
}

/// Past every address.
const PLACES: u64 = 1 << 62;

/// The number of the batch that something was gathered into, from 1. Zero was never gathered.
///
/// Kept as its complement of 63 bits: a mark that is less than every stamp, as a handle is, is later than all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Stamp(u64);

/// The mark of stamp 0.
const LATEST: u64 = u64::MAX >> 1;

impl Stamp {
    /// The stamp with this number.
    pub const fn new(number: u64) -> Self {
        Self(LATEST.wrapping_sub(number))
    }

    /// The number.
    pub const fn as_u64(self) -> u64 {
        LATEST.wrapping_sub(self.0)
    }

    /// What a record keeps of it: at least 2^62, until 2^62 batches have been.
    pub(crate) const fn mark(self) -> u64 {
        self.0
    }

    /// The stamp of such a mark.
    pub(crate) const fn of_mark(mark: u64) -> Self {
        Self(mark)
    }

    const fn next(self) -> Self {
        Self(self.0.wrapping_sub(1))
    }
}

/// Ranges of IOVA that were unmapped and not flushed, for the devices of one VM behind one set of SMMUs.
///
/// Bounded: it holds any number of ranges in fixed memory, as runs that are at worst too long.
#[derive(Debug)]
#[repr(C)]
pub struct Batch {
    open: Stamp,
    /// First address of the block that was unloaded last, by a run of blocks that grows.
    last_block: u64,
    settled: Stamp,
    /// Pages that may lie between two unloads of a run, now.
    gap: u64,
    /// End of the run that grows: the place of the page behind it.
    tip: u64,
    /// Maps, and pages below `ONE_MAP`.
    tally: u64,
    /// When a deferred flush was first put off.
    since_us: Option<u64>,
    /// `last_block`, where that run began: there is none where both are the same.
    before_blocks: u64,
    /// Place of the first page of the run that grows, or `tip`: there is none. The first of a ring's next batch follows
    /// the last of this one, and the run begins where that ended.
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
            open: Stamp::new(1),
            last_block: NOWHERE,
            before_blocks: NOWHERE,
            settled: Stamp::new(0),
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
        let place = place_of_page(page);
        if place.wrapping_sub(self.tip) <= reach {
            self.gap = reach;
            self.extend(place, pages);
            return self.open;
        }
        self.open_run(Run { first: page, end: page.saturating_add(pages) });
        self.tally(pages);
        self.open
    }

    /// The stamp of what is gathered now.
    #[inline]
    pub(crate) const fn stamp(&self) -> Stamp {
        self.open
    }

    /// As [`add`](Self::add), for pages from this place on, which follow the current run.
    #[inline]
    pub(crate) const fn extend(&mut self, place: u64, pages: u64) {
        self.tip = place.wrapping_add(pages);
        self.tally(pages);
    }

    /// Whether the page at `place` follows the current run, so that [`extend`](Self::extend) takes it: in a ring that
    /// goes up, the next is a little past it.
    #[inline]
    pub(crate) const fn is_next(&self, place: u64) -> bool {
        place.wrapping_sub(self.tip) <= self.gap
    }

    /// Takes note of the block at this address, where the one a stride below was the last: a ring of blocks that goes
    /// up. How many they are, the run tells.
    #[inline]
    pub(crate) const fn extend_blocks(&mut self, block: u64) {
        self.last_block = block;
    }

    /// Whether the block at this address was the last of the run of blocks that grows, so that
    /// [`extend_blocks`](Self::extend_blocks) takes the one a stride above.
    #[inline]
    pub(crate) const fn is_last_block(&self, block: u64) -> bool {
        self.last_block == block
    }

    /// As [`add`](Self::add), for a block anywhere.
    pub(crate) fn add_block(&mut self, block: u64) -> Stamp {
        if self.blocks() > 0 {
            return self.add(Iova::new(block), BLOCK_PAGES);
        }
        (self.before_blocks, self.last_block) = (block.wrapping_sub(BLOCK_STRIDE), block);
        self.open
    }

    /// Blocks in the run of blocks.
    const fn blocks(&self) -> u64 {
        self.last_block.wrapping_sub(self.before_blocks) / BLOCK_STRIDE
    }

    /// That run.
    const fn block_run(&self) -> Run {
        if self.last_block == self.before_blocks {
            return NOTHING;
        }
        let first = self.before_blocks.wrapping_add(BLOCK_STRIDE) / PAGE_SIZE;
        Run { first, end: (self.last_block / PAGE_SIZE).wrapping_add(BLOCK_PAGES) }
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
        if self.has_current() {
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
        (self.first, self.tip) = (place_of_page(next.first), place_of_page(next.end));
    }

    /// The run that grows.
    const fn current(&self) -> Run {
        if self.has_current() { self.growing() } else { NOTHING }
    }

    /// The same, where there is one.
    const fn growing(&self) -> Run {
        Run { first: self.first % PLACES, end: self.tip % PLACES }
    }

    const fn has_current(&self) -> bool {
        self.first != self.tip
    }

    /// Whether there is nothing to flush.
    pub const fn is_empty(&self) -> bool {
        !self.has_current() && self.last_block == self.before_blocks
    }

    /// Pages gathered.
    pub const fn pages(&self) -> u64 {
        (self.tally % ONE_MAP).wrapping_add(self.blocks().wrapping_mul(BLOCK_PAGES))
    }

    /// Maps gathered.
    pub const fn maps(&self) -> u32 {
        let [a, b, c, d, ..] = (self.tally / ONE_MAP).wrapping_add(self.blocks()).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// Runs that the pages make up.
    pub const fn runs(&self) -> u32 {
        let blocks = if self.last_block == self.before_blocks { 0 } else { 1 };
        let current = if self.has_current() { 1 } else { 0 };
        self.count + current + blocks
    }

    /// The smallest run that holds all runs.
    pub fn hull(&self) -> Run {
        self.hull.hull(self.current()).hull(self.block_run())
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
        self.each_run().map(|run| super::Covering::reach(run.pages())).fold(0, u64::saturating_add)
    }

    fn each_run(&self) -> impl Iterator<Item = Run> + '_ {
        let latest = [self.current(), self.block_run()].into_iter().filter(|run| *run != NOTHING);
        self.earlier.iter().take(self.count as usize).copied().chain(latest)
    }

    pub(super) fn since_us(&mut self, now_us: u64) -> u64 {
        *self.since_us.get_or_insert(now_us)
    }

    /// Closes the batch for a flush by `scope`, and opens the next: what is unmapped from now on is the next's.
    ///
    /// The commands have to be submitted before anything else is gathered: the work borrows the batch.
    #[inline]
    pub fn close(&mut self, scope: Scope) -> Work<'_> {
        let (stamp, vmid, missing) = (self.open, self.vmid, self.walkers);
        let blocks = self.block_run();
        self.open = stamp.next();
        if !self.has_current() {
            let (scope, missing) = if blocks == NOTHING { (Scope::Nothing, 0) } else { (scope, missing) };
            (self.before_blocks, self.since_us) = (self.last_block, None);
            let flight = Flight::new(stamp, vmid, missing);
            return Work {
                flight,
                scope,
                vmid,
                hull: blocks,
                current: blocks,
                blocks: None,
                earlier: &[],
                is_leaf: true,
            };
        }
        let flight = Flight::new(stamp, vmid, missing);
        let (mut hull, current, is_leaf) = (self.hull.hull(self.growing()), self.growing(), !self.has_tables);
        let mut also = None;
        if self.last_block != self.before_blocks {
            self.before_blocks = self.last_block;
            (hull, also) = (hull.hull(blocks), Some(blocks));
        }
        let earlier = self.earlier.get(..self.count as usize).unwrap_or_default();
        (self.first, self.hull) = (self.tip, NOTHING);
        self.gap = self.narrow_gap;
        (self.tally, self.since_us, self.count) = (0, None, 0);
        self.has_tables = false;
        Work { flight, scope, vmid, hull, current, blocks: also, earlier, is_leaf }
    }

    /// Takes the proof of a flush. On error nothing has changed.
    pub fn accept(&mut self, epoch: &Epoch) -> Result<(), EpochError> {
        let next = self.settled.next();
        if self.is_quarantined {
            return Err(EpochError::Quarantined);
        }
        if epoch.vmid() != self.vmid {
            return Err(EpochError::WrongVmid { flushed: epoch.vmid(), owner: self.vmid });
        }
        if epoch.stamp() != next || next.0 <= self.open.0 {
            return Err(EpochError::OutOfOrder { number: epoch.number(), next: next.as_u64() });
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
        stamp.0 >= self.settled.0
    }

    /// 0 where what was gathered with the stamp of `mark` is settled, else 1: a number, to be looked at together with
    /// another.
    #[inline]
    pub(crate) const fn unsettled(&self, mark: u64) -> u64 {
        mark.wrapping_sub(self.settled.0) >> 63
    }

    /// Whether what was gathered with `stamp` is still in the open batch: no flush of it has begun.
    #[inline]
    pub const fn is_open(&self, stamp: Stamp) -> bool {
        stamp.0 == self.open.0
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
    /// Where it is not `current`.
    blocks: Option<Run>,
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
        self.earlier.iter().copied().chain([self.current]).chain(self.blocks)
    }

    /// The one command that does it all, when one is enough.
    #[inline]
    pub fn single(&self) -> Option<Command> {
        match self.scope {
            Scope::Context => Some(Command::Context),
            Scope::Range => Some(Command::covering(self.hull)),
            Scope::Runs if self.earlier.is_empty() && self.blocks.is_none() => Some(Command::covering(self.current)),
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
