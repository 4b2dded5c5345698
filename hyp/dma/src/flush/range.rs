//! Runs of pages, and the one rounded-up range that covers a run (IHI 0070 4.4.1.1).

/// Pages `first` up to, and without, `end`, by number: an address divided by 4 KiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Run {
    /// First page.
    pub first: u64,
    /// One past the last page.
    pub end: u64,
}

impl Run {
    /// Pages in it.
    pub const fn pages(self) -> u64 {
        self.end.saturating_sub(self.first)
    }

    /// The smallest run that holds both.
    #[must_use]
    pub fn hull(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), end: self.end.max(other.end) }
    }
}

/// How a run is said in one command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Covering {
    /// One page, by a command without a range: TG with NUM, SCALE and TTL all zero is reserved.
    Page,
    /// `(num + 1) << scale` pages.
    Range {
        /// 0 to 31.
        num: u8,
        /// 0 to 31.
        scale: u8,
    },
}

/// Most units of a range: NUM has 5 bits.
const UNITS: u64 = 32;
/// Largest SCALE without IDR5.DS.
const SCALE_MAX: u32 = 31;

impl Covering {
    /// Pages of the longest range.
    pub const PAGES_MAX: u64 = UNITS << SCALE_MAX;

    /// The smallest range from the first page of a run of `pages` pages that covers it: at most 1/16 too long, since
    /// a unit is less than 1/16 of a run of more than 16 units. `None` past 2^36 pages, or for none.
    #[inline(always)]
    pub fn of(pages: u64) -> Option<Self> {
        let last = pages.checked_sub(1)?;
        if last == 0 {
            return Some(Self::Page);
        }
        // More than 16 and at most 32 units of 2^scale: five significant bits of the last page's place.
        let scale = (u64::BITS - last.leading_zeros()).saturating_sub(UNITS.trailing_zeros());
        if scale > SCALE_MAX {
            return None;
        }
        // With scale as chosen, the shifted value is below 32.
        let [num, ..] = (last >> scale).to_le_bytes();
        let [scale, ..] = scale.to_le_bytes();
        Some(Self::Range { num, scale })
    }

    /// Pages that the smallest range covers which covers `pages`; all that there are, where there is none.
    #[inline(never)]
    pub fn reach(pages: u64) -> u64 {
        Self::of(pages).map_or(u64::MAX, Self::pages)
    }

    /// Pages that it covers.
    pub const fn pages(self) -> u64 {
        match self {
            Self::Page => 1,
            Self::Range { num, scale } => (num as u64 + 1) << scale,
        }
    }
}

/// One invalidation as an SMMU can be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// One page.
    Page {
        /// Its number.
        page: u64,
    },
    /// `(num + 1) << scale` pages.
    Range {
        /// Number of the first page.
        page: u64,
        /// 0 to 31.
        num: u8,
        /// 0 to 31.
        scale: u8,
    },
    /// Everything of the VMID.
    Context,
}

impl Command {
    /// The one command that covers `run`; everything where no range is long enough.
    #[inline]
    pub fn covering(run: Run) -> Self {
        match Covering::of(run.pages()) {
            Some(Covering::Page) => Self::Page { page: run.first },
            Some(Covering::Range { num, scale }) => Self::Range { page: run.first, num, scale },
            None => Self::Context,
        }
    }
}
