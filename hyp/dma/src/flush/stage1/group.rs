//! The runs of one tag in a batch, and what each way to flush them takes.

use super::{
    counters::Stage1Tally,
    stretch::{Stretch, Tag},
};
use crate::flush::{Covering, Run, Scope};

/// Sums over the runs of one tag.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) tag: Tag,
    pub(super) runs: usize,
    /// Runs of one page.
    singles: u64,
    /// Pages in the runs.
    pub(super) pages: u64,
    /// Pages in the longest.
    longest: u64,
    hull: Run,
}

impl Group {
    pub(super) fn of(tag: Tag, runs: &[Stretch]) -> Self {
        let hull = Run { first: u64::MAX, end: 0 };
        let mut group = Self { tag, runs: 0, singles: 0, pages: 0, longest: 0, hull };
        for stretch in runs.iter().filter(|run| run.tag == tag) {
            let pages = stretch.run.pages();
            group.runs = group.runs.wrapping_add(1);
            group.singles = group.singles.wrapping_add((pages == 1).into());
            group.pages = group.pages.saturating_add(pages);
            group.longest = group.longest.max(pages);
            group.hull = group.hull.hull(stretch.run);
        }
        group
    }

    /// Commands of a flush by `scope`; `None`: it cannot be said.
    pub(super) fn commands(&self, scope: Scope) -> Option<Stage1Tally> {
        let runs = u64::try_from(self.runs).ok()?;
        let nothing = Stage1Tally::NONE;
        match scope {
            Scope::Nothing => Some(nothing),
            Scope::Pages => Some(Stage1Tally { page: self.pages, ..nothing }),
            Scope::Runs => {
                let range = runs.saturating_sub(self.singles);
                Covering::of(self.longest).map(|_| Stage1Tally { page: self.singles, range, ..nothing })
            }
            Scope::Range => Covering::of(self.hull.pages()).map(|covering| match covering {
                Covering::Page => Stage1Tally { page: 1, ..nothing },
                Covering::Range { .. } => Stage1Tally { range: 1, ..nothing },
            }),
            Scope::Context => Some(Stage1Tally { all: 1, ..nothing }),
        }
    }

    /// Pages that a flush by `scope` takes beside those in the runs, at most.
    pub(super) fn beside(&self, scope: Scope) -> u64 {
        match scope {
            Scope::Nothing | Scope::Pages => 0,
            // A range of up to 32 pages is exact, and a longer one less than 1/16 too long.
            Scope::Runs if self.longest <= 32 => 0,
            Scope::Runs => self.pages / 16,
            Scope::Range => {
                let covered = Covering::of(self.hull.pages()).map_or(u64::MAX, Covering::pages);
                covered.saturating_sub(self.pages)
            }
            Scope::Context => u64::MAX,
        }
    }

    /// Has the runs sent by `scope`.
    pub(super) fn apply(&self, scope: Scope, runs: &mut [Stretch]) {
        let is_paged = scope == Scope::Pages;
        if !is_paged && scope != Scope::Range {
            return;
        }
        let mut hull = Some(self.hull);
        for stretch in runs.iter_mut().filter(|run| run.tag == self.tag) {
            stretch.is_paged = is_paged;
            if !is_paged {
                stretch.run = hull.take().unwrap_or_default();
            }
        }
    }
}
