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
    /// Pages of the one range that covers the hull.
    covered: u64,
}

impl Group {
    pub(super) fn of(tag: Tag, runs: &[Stretch]) -> Self {
        let hull = Run { first: u64::MAX, end: 0 };
        let mut group = Self { tag, runs: 0, singles: 0, pages: 0, longest: 0, hull, covered: 0 };
        for stretch in runs {
            if stretch.tag != tag {
                continue;
            }
            let Run { first, end } = stretch.run;
            // Its end is past its first, and there are 2^52 pages.
            let pages = end.wrapping_sub(first);
            group.runs = group.runs.wrapping_add(1);
            group.singles = group.singles.wrapping_add((pages == 1).into());
            group.pages = group.pages.wrapping_add(pages);
            group.longest = group.longest.max(pages);
            group.hull = group.hull.hull(stretch.run);
        }
        group.covered = Covering::reach(group.hull.pages());
        group
    }

    /// Commands of a flush by `scope`; more than any queue holds where it cannot be said.
    pub(super) const fn commands(&self, scope: Scope) -> u64 {
        match scope {
            Scope::Nothing => 0,
            Scope::Pages => self.pages,
            Scope::Runs if self.longest > Covering::PAGES_MAX => u64::MAX,
            Scope::Runs => self.runs as u64,
            Scope::Range if self.covered == u64::MAX => u64::MAX,
            Scope::Range | Scope::Context => 1,
        }
    }

    /// What they are, where it can be said.
    pub(super) fn tally(&self, scope: Scope) -> Stage1Tally {
        let commands = self.commands(scope);
        let page = match scope {
            Scope::Pages => self.pages,
            Scope::Runs => self.singles,
            Scope::Range if self.covered == 1 => 1,
            _ => 0,
        };
        Stage1Tally { page, range: commands.saturating_sub(page), ..Stage1Tally::NONE }
    }

    /// Pages that a flush by `scope` takes beside those in the runs, at most.
    pub(super) const fn beside(&self, scope: Scope) -> u64 {
        match scope {
            Scope::Nothing | Scope::Pages => 0,
            // A range of up to 32 pages is exact, and a longer one less than 1/16 too long.
            Scope::Runs if self.longest <= 32 => 0,
            Scope::Runs => self.pages / 16,
            Scope::Range => self.covered.saturating_sub(self.pages),
            Scope::Context => u64::MAX,
        }
    }

    /// Has its runs, of which the first is that of `runs`, sent by `scope`: how many of `runs` are left to send.
    pub(super) fn apply(&self, scope: Scope, runs: &mut [Stretch]) -> usize {
        match scope {
            Scope::Pages => {
                runs.iter_mut().filter(|run| run.tag == self.tag).for_each(|run| run.is_paged = true);
            }
            // The first takes the others in.
            Scope::Range => {
                let count = runs.len();
                let mut own = runs.iter_mut().filter(|run| run.tag == self.tag);
                if let Some(first) = own.next() {
                    first.run = self.hull;
                }
                if self.runs == count {
                    return 1;
                }
                own.for_each(|run| run.run = Run::default());
            }
            _ => {}
        }
        runs.len()
    }
}
