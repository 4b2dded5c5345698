//! What a guest asked its virtual SMMU to forget, and what the physical one was told.

use bulkhead_core::stage1::Stage1Flush;

/// Invalidation commands by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stage1Tally {
    /// Of one page.
    pub page: u64,
    /// Of a range.
    pub range: u64,
    /// Of an ASID.
    pub asid: u64,
    /// Of everything.
    pub all: u64,
}

impl Stage1Tally {
    pub(super) const NONE: Self = Self { page: 0, range: 0, asid: 0, all: 0 };

    /// All of them.
    pub const fn sum(&self) -> u64 {
        self.page.wrapping_add(self.range).wrapping_add(self.asid).wrapping_add(self.all)
    }

    #[inline]
    pub(super) const fn note_pages(&mut self, pages: u64) {
        let count = if pages == 1 { &mut self.page } else { &mut self.range };
        *count = count.wrapping_add(1);
    }

    pub(super) const fn note_all(&mut self) {
        self.all = self.all.wrapping_add(1);
    }

    pub(super) const fn note(&mut self, flush: &Stage1Flush) {
        match flush {
            Stage1Flush::All => self.note_all(),
            Stage1Flush::Asid(_) => self.asid = self.asid.wrapping_add(1),
            Stage1Flush::Pages(pages) => self.note_pages(pages.pages),
        }
    }

    pub(super) const fn add(&mut self, other: &Self) {
        self.page = self.page.wrapping_add(other.page);
        self.range = self.range.wrapping_add(other.range);
        self.asid = self.asid.wrapping_add(other.asid);
        self.all = self.all.wrapping_add(other.all);
    }
}

/// Flushes of one VM's stage 1, since it started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stage1Counters {
    /// What the guest's commands were.
    pub guest: Stage1Tally,
    /// What the physical SMMU was told.
    pub sent: Stage1Tally,
    /// Batches that were closed with something in them: a physical CMD_SYNC each.
    pub syncs: u64,
    /// Batches that were closed with nothing in them.
    pub nothing: u64,
    /// Times that an ASID changed its kind of flush.
    pub switches: u64,
}
