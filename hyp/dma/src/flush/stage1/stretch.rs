//! A run of pages of one ASID, and the command that covers it.

use bulkhead_core::{
    addr::PAGE_SIZE,
    stage1::{Stage1Flush, Stage1Pages},
};

use crate::flush::{Covering, Run};

/// One past the last page that a command can name: Address has bits 63:12.
pub(super) const PAGES_END: u64 = 1 << (64 - PAGE_SIZE.trailing_zeros());

/// Whose translations, an ASID's or everyone's, and whether those above the last level may stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(super) struct Tag(u32);

impl Tag {
    /// All ASIDs (CMD_TLBI_NH_VAA).
    pub(super) const ANY: Self = Self(1 << u16::BITS);
    const LEAF: u32 = 1 << (u16::BITS + 1);
    /// Nobody's.
    pub(super) const NONE: Self = Self(u32::MAX);

    #[inline]
    pub(super) fn of(asid: Option<u16>) -> Self {
        asid.map_or(Self::ANY, |asid| Self(asid.into()))
    }

    #[inline]
    fn with_leaf(self, is_leaf: bool) -> Self {
        Self(self.0 | if is_leaf { Self::LEAF } else { 0 })
    }

    /// Whose, whatever the level.
    #[inline]
    pub(super) const fn owner(self) -> Self {
        Self(self.0 & !Self::LEAF)
    }

    pub(super) fn asid(self) -> Option<u16> {
        u16::try_from(self.owner().0).ok()
    }

    const fn is_leaf(self) -> bool {
        self.0 & Self::LEAF != 0
    }
}

/// Pages of one tag that are to be forgotten.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) run: Run,
    pub(super) tag: Tag,
    /// Whether it is sent page by page.
    pub(super) is_paged: bool,
}

impl Stretch {
    /// No pages, of nobody.
    pub(super) const NOTHING: Self = Self::new(Run { first: 0, end: 0 }, Tag::NONE);

    #[inline]
    pub(super) const fn new(run: Run, tag: Tag) -> Self {
        Self { run, tag, is_paged: false }
    }

    /// The pages; they may go on past [`PAGES_END`].
    #[inline]
    pub(super) fn of(pages: &Stage1Pages) -> Self {
        let first = pages.first / PAGE_SIZE;
        let run = Run { first, end: first.saturating_add(pages.pages) };
        Self::new(run, Tag::of(pages.asid).with_leaf(pages.is_leaf))
    }

    /// The same, as far as there are addresses: a range does not wrap.
    #[inline]
    pub(super) fn bounded(self) -> Self {
        Self { run: Run { end: self.run.end.min(PAGES_END), ..self.run }, ..self }
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.tag == Tag::NONE
    }

    /// Whether `next` begins in it, or where it ends.
    #[inline]
    pub(super) fn goes_on_with(&self, next: &Self) -> bool {
        let offset = next.run.first.wrapping_sub(self.run.first);
        self.tag == next.tag && offset <= self.run.end.wrapping_sub(self.run.first)
    }

    /// The command that covers it: at the end of the addresses it begins early rather than end late.
    #[inline(always)]
    pub(super) fn command(&self) -> Stage1Flush {
        let pages = Covering::of(self.run.pages()).map_or(PAGES_END, Covering::pages);
        self.pages(self.run.first.min(PAGES_END.wrapping_sub(pages)), pages)
    }

    /// The command for one of its pages.
    #[inline]
    pub(super) fn page(&self, page: u64) -> Stage1Flush {
        self.pages(page, 1)
    }

    fn pages(&self, first: u64, pages: u64) -> Stage1Flush {
        let first = first.wrapping_mul(PAGE_SIZE);
        Stage1Flush::Pages(Stage1Pages { asid: self.tag.asid(), first, pages, is_leaf: self.tag.is_leaf() })
    }
}
