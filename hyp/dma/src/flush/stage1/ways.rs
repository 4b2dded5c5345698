//! What is known of each ASID, in a bounded table.

use bulkhead_core::vplat::DEVICES_MAX;

use super::stretch::Tag;
use crate::flush::Kind;

/// How one ASID is flushed, and what that has cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    tag: Tag,
    pub(super) kind: Kind,
    /// Whether it takes one command for all runs.
    pub(super) is_wide: bool,
    /// Pages flushed since the last wide flush: the estimate of what the SMMU's TLB holds.
    pub(super) flushed: u64,
    /// What narrow flushes have cost more than wide ones each time would have.
    pub(super) charge_ns: u64,
}

/// As many ways as a VM has devices; what comes after that shares the last.
#[derive(Clone, Debug)]
pub(super) struct Ways {
    latest: usize,
    count: usize,
    ways: [Way; DEVICES_MAX],
}

impl Ways {
    pub(super) const fn new(kind: Kind) -> Self {
        let way = Way { tag: Tag::NONE, kind, is_wide: false, flushed: 0, charge_ns: 0 };
        Self { latest: 0, count: 0, ways: [way; DEVICES_MAX] }
    }

    fn known(&self) -> &[Way] {
        self.ways.get(..self.count).unwrap_or_default()
    }

    /// The way of `tag`: its own, a free one, one of an ASID of which nothing can be cached any more, or the last.
    #[inline]
    pub(super) fn of(&mut self, tag: Tag) -> &mut Way {
        let owner = tag.owner();
        if self.ways[self.latest % DEVICES_MAX].tag != owner {
            self.latest = self.look_up(owner);
        }
        &mut self.ways[self.latest % DEVICES_MAX]
    }

    #[cold]
    fn look_up(&mut self, tag: Tag) -> usize {
        if let Some(own) = self.known().iter().position(|way| way.tag == tag) {
            return own;
        }
        let free = self.count;
        if let Some(way) = self.ways.get_mut(free) {
            way.tag = tag;
            self.count += 1;
            return free;
        }
        let last = DEVICES_MAX - 1;
        let idle = self.ways.iter().position(|way| way.flushed == 0).unwrap_or(last);
        if idle < last
            && let Some(way) = self.ways.get_mut(idle)
        {
            (way.tag, way.charge_ns) = (tag, 0);
        }
        idle
    }

    /// The way of `tag`, if it has its own.
    pub(super) fn find(&self, tag: Tag) -> Option<&Way> {
        self.known().iter().find(|way| way.tag == tag)
    }

    /// Translations of all ASIDs that may be cached.
    pub(super) fn flushed(&self) -> u64 {
        self.known().iter().map(|way| way.flushed).fold(0, u64::saturating_add)
    }

    /// The ASID was flushed.
    pub(super) fn forget(&mut self, tag: Tag) {
        if let Some(way) = self.ways.iter_mut().find(|way| way.tag == tag) {
            way.flushed = 0;
        }
    }

    /// Everything was flushed.
    pub(super) fn forget_all(&mut self) {
        for way in &mut self.ways {
            way.flushed = 0;
        }
    }
}
