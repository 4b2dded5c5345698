//! The runs of one ASID in a batch, and what each way to flush them takes.

use super::stretch::{Stretch, Tag};
use crate::flush::{Covering, Run, Scope};

/// Sums over the runs of one tag.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    tag: Tag,
    runs: u64,
    /// Pages in the runs.
    pub(super) pages: u64,
    /// Pages that a range for each covers.
    covered: u64,
    hull: Run,
    is_leaf: bool,
}

impl Group {
    pub(super) fn of(tag: Tag, runs: &[Stretch]) -> Self {
        let nothing = Self { tag, runs: 0, pages: 0, covered: 0, hull: Run { first: u64::MAX, end: 0 }, is_leaf: true };
        runs.iter().filter(|run| run.tag == tag).fold(nothing, |sum, stretch| Self {
            tag,
            runs: sum.runs + 1,
            pages: sum.pages.saturating_add(stretch.run.pages()),
            covered: sum.covered.saturating_add(stretch.covered().unwrap_or(u64::MAX)),
            hull: sum.hull.hull(stretch.run),
            is_leaf: sum.is_leaf && stretch.is_leaf,
        })
    }

    /// Commands of a flush by `scope`; more than any queue holds where it cannot be said.
    pub(super) fn commands(&self, scope: Scope) -> u64 {
        match scope {
            Scope::Nothing => 0,
            Scope::Pages => self.pages,
            Scope::Runs if self.covered == u64::MAX => u64::MAX,
            Scope::Runs => self.runs,
            Scope::Range if Covering::of(self.hull.pages()).is_none() => u64::MAX,
            Scope::Range | Scope::Context => 1,
        }
    }

    /// Pages that a flush by `scope` takes beside those in the runs.
    pub(super) fn beside(&self, scope: Scope) -> u64 {
        let covered = match scope {
            Scope::Nothing | Scope::Pages => self.pages,
            Scope::Runs => self.covered,
            Scope::Range => Covering::of(self.hull.pages()).map_or(u64::MAX, Covering::pages),
            Scope::Context => u64::MAX,
        };
        covered.saturating_sub(self.pages)
    }

    /// Has the runs sent by `scope`.
    pub(super) fn apply(&self, scope: Scope, runs: &mut [Stretch]) {
        let mut hull = Some(self.hull);
        for stretch in runs.iter_mut().filter(|run| run.tag == self.tag) {
            stretch.is_paged = scope == Scope::Pages;
            if scope == Scope::Range {
                stretch.run = hull.take().unwrap_or_default();
                stretch.is_leaf = self.is_leaf;
            }
        }
    }
}
