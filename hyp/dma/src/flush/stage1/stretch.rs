//! A run of pages of one ASID, and the command that covers it.

use bulkhead_core::{
    addr::PAGE_SIZE,
    stage1::{Stage1Flush, Stage1Pages},
};

use crate::flush::{Covering, Run};

/// One past the last page that a command can name: Address has bits 63:12.
pub(super) const PAGES_END: u64 = 1 << (64 - PAGE_SIZE.trailing_zeros());

/// Whose translations: an ASID's, or everyone's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(super) struct Tag(u32);

impl Tag {
    /// All ASIDs (CMD_TLBI_NH_VAA).
    pub(super) const ANY: Self = Self(1 << u16::BITS);

    #[inline]
    pub(super) fn of(asid: Option<u16>) -> Self {
        asid.map_or(Self::ANY, |asid| Self(asid.into()))
    }

    pub(super) fn asid(self) -> Option<u16> {
        u16::try_from(self.0).ok()
    }
}

/// Pages of one tag that are to be forgotten.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) run: Run,
    pub(super) tag: Tag,
    /// Whether entries above the last level may stay.
    pub(super) is_leaf: bool,
    /// Whether it is sent page by page.
    pub(super) is_paged: bool,
}

impl Stretch {
    /// No pages.
    pub(super) const NOTHING: Self =
        Self { run: Run { first: 0, end: 0 }, tag: Tag::ANY, is_leaf: true, is_paged: false };

    /// The pages, as far as there are addresses: a range does not wrap.
    #[inline]
    pub(super) fn of(pages: &Stage1Pages) -> Self {
        let first = pages.first / PAGE_SIZE;
        let end = first.saturating_add(pages.pages).min(PAGES_END);
        Self { run: Run { first, end }, tag: Tag::of(pages.asid), is_leaf: pages.is_leaf, is_paged: false }
    }

    /// Whether the two are one run, with nothing between.
    #[inline]
    pub(super) fn touches(&self, other: &Self) -> bool {
        self.tag == other.tag && other.run.first <= self.run.end && self.run.first <= other.run.end
    }

    /// Becomes the smallest that holds both.
    #[inline]
    pub(super) fn widen(&mut self, other: &Self) {
        self.run = self.run.hull(other.run);
        self.is_leaf &= other.is_leaf;
    }

    /// Pages that one command for it covers; `None`: no command is long enough.
    pub(super) fn covered(&self) -> Option<u64> {
        Covering::of(self.run.pages()).map(Covering::pages)
    }

    /// That command. At the end of the addresses it begins early rather than end late.
    pub(super) fn command(&self) -> Stage1Flush {
        let pages = self.covered().unwrap_or(PAGES_END);
        self.pages(self.run.first.min(PAGES_END - pages), pages)
    }

    /// The command for one of its pages.
    pub(super) fn page(&self, page: u64) -> Stage1Flush {
        self.pages(page, 1)
    }

    fn pages(&self, first: u64, pages: u64) -> Stage1Flush {
        let first = first.wrapping_mul(PAGE_SIZE);
        Stage1Flush::Pages(Stage1Pages { asid: self.tag.asid(), first, pages, is_leaf: self.is_leaf })
    }
}
