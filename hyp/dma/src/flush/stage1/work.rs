//! A batch that was closed: the commands that the physical SMMU gets.

use bulkhead_core::stage1::Stage1Flush;

use super::stretch::Stretch;
use crate::flush::Run;

/// The cheapest set of commands that covers what a batch held. Dropping it leaves that cached.
#[derive(Clone, Debug)]
#[must_use = "what the batch held is not flushed"]
pub struct Stage1Work<'b> {
    is_all: bool,
    asids: &'b [u16],
    runs: &'b [Stretch],
}

impl<'b> Stage1Work<'b> {
    pub(super) const fn everything() -> Self {
        Self { is_all: true, asids: &[], runs: &[] }
    }

    pub(super) const fn new(asids: &'b [u16], runs: &'b [Stretch]) -> Self {
        Self { is_all: false, asids, runs }
    }

    /// Whether there is nothing to send: the guest's SYNC has nothing to wait for here.
    pub const fn is_empty(&self) -> bool {
        !self.is_all && self.asids.is_empty() && self.runs.is_empty()
    }

    /// Whether it is one command for everything.
    pub const fn is_all(&self) -> bool {
        self.is_all
    }

    /// The command, where it is seen at a glance that there is one: for a shorter way than [`iter`](Self::iter).
    #[inline(always)]
    pub fn only(&self) -> Option<Stage1Flush> {
        match (self.is_all, self.asids, self.runs) {
            (false, [], [run]) if !run.is_paged => Some(run.command()),
            (false, [asid], []) => Some(Stage1Flush::Asid(*asid)),
            (true, [], []) => Some(Stage1Flush::All),
            _ => None,
        }
    }

    /// The commands. [`Stage1Flush::Pages`] are each what one command can say: `1` page, or `(num + 1) << scale` with
    /// `num` and `scale` up to 31, and none of more than one page where the SMMU has no ranges.
    #[inline]
    pub fn iter(&self) -> Stage1Commands<'b> {
        Stage1Commands {
            is_all: self.is_all,
            asids: self.asids.iter(),
            runs: self.runs.iter(),
            paged: Stretch::NOTHING,
        }
    }
}

impl<'b> IntoIterator for &Stage1Work<'b> {
    type Item = Stage1Flush;
    type IntoIter = Stage1Commands<'b>;

    fn into_iter(self) -> Stage1Commands<'b> {
        self.iter()
    }
}

/// Iterator over the commands of a [`Stage1Work`].
#[derive(Clone, Debug)]
pub struct Stage1Commands<'b> {
    is_all: bool,
    asids: core::slice::Iter<'b, u16>,
    runs: core::slice::Iter<'b, Stretch>,
    /// What is left of a run that goes page by page.
    paged: Stretch,
}

impl Iterator for Stage1Commands<'_> {
    type Item = Stage1Flush;

    #[inline]
    fn next(&mut self) -> Option<Stage1Flush> {
        loop {
            let Run { first, end } = self.paged.run;
            if first < end {
                self.paged.run.first = first.wrapping_add(1);
                return Some(self.paged.page(first));
            }
            let Some(next) = self.runs.next() else { break };
            if next.is_paged {
                self.paged = *next;
            } else if next.run.first < next.run.end {
                return Some(next.command());
            }
        }
        let asid = self.asids.next().map(|asid| Stage1Flush::Asid(*asid));
        asid.or_else(|| core::mem::take(&mut self.is_all).then_some(Stage1Flush::All))
    }
}
