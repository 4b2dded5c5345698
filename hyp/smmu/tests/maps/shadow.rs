//! What a device may reach, kept in the simplest way: for each page of IOVA, whose it is and whose it was.

use bulkhead_core::addr::{Ipa, PAGE_SIZE, PhysAddr};
use bulkhead_dma::map::{Direction, Segment};
use bulkhead_smmu::model::{DmaAccess, Outcome};

/// A translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Way {
    phys: u64,
    may_read: bool,
    may_write: bool,
}

/// Maps that lead through a page now.
#[derive(Clone, Copy, Debug)]
struct Live {
    way: Way,
    users: u32,
    /// The call that loaded it: until it has returned, a device may see it or not.
    call: u64,
}

#[derive(Clone, Default, Debug)]
struct Page {
    live: Option<Live>,
    /// Ways that were unloaded and not flushed, with the channel that has to.
    stale: Vec<(Way, u8)>,
}

/// See the module.
pub struct Shadow {
    pages: Vec<Page>,
    ram: (u64, u64),
    is_sharing: bool,
    /// Pages that wait for a channel's SYNC.
    waiting: [Vec<u64>; 2],
    /// Calls that have returned.
    pub call: u64,
}

impl Shadow {
    /// Of `pages` pages of IOVA, for RAM at `ipa` that is at `phys`. `is_sharing`: maps of the same page may share an
    /// IOVA.
    pub fn new(pages: usize, ipa: Ipa, phys: PhysAddr, is_sharing: bool) -> Self {
        Self {
            pages: vec![Page::default(); pages],
            ram: (ipa.as_u64(), phys.as_u64()),
            is_sharing,
            waiting: [Vec::new(), Vec::new()],
            call: 0,
        }
    }

    /// Each page of a segment: its IOVA's number, where it leads.
    fn ways(&self, segment: &Segment, direction: Direction) -> impl Iterator<Item = (u64, Way)> + use<> {
        let (ram, phys) = self.ram;
        let first = segment.iova.as_u64() / PAGE_SIZE;
        let last = (segment.iova.as_u64() + segment.bytes() - 1) / PAGE_SIZE;
        let start = (phys + (segment.ipa().as_u64() - ram)) & !(PAGE_SIZE - 1);
        let (may_read, may_write) = (direction != Direction::DeviceWrites, direction != Direction::DeviceReads);
        (first..=last).map(move |page| (page, Way { phys: start + (page - first) * PAGE_SIZE, may_read, may_write }))
    }

    /// Segments were loaded.
    pub fn load(&mut self, segments: &[Segment], direction: Direction) -> Result<(), String> {
        for segment in segments {
            if (segment.iova.as_u64() ^ segment.ipa().as_u64()) % PAGE_SIZE != 0 {
                return Err(format!("{segment:x?}: another place in its page"));
            }
            for (page, way) in self.ways(segment, direction) {
                let call = self.call;
                let place = usize::try_from(page).unwrap_or(usize::MAX);
                let Some(entry) = self.pages.get_mut(place) else { return Err(format!("iova page {page:#x}")) };
                if !entry.stale.is_empty() {
                    return Err(format!("iova page {page:#x} is used again before its SYNC: {entry:x?}"));
                }
                match &mut entry.live {
                    None => entry.live = Some(Live { way, users: 1, call }),
                    Some(live) if self.is_sharing && live.way == way => live.users += 1,
                    Some(live) => return Err(format!("iova page {page:#x} is in two maps: {live:x?}, {way:x?}")),
                }
            }
        }
        Ok(())
    }

    /// Segments were unloaded: what they were leads on until the SYNC of `channel`.
    pub fn unload(&mut self, segments: &[Segment], direction: Direction, channel: u8) {
        for segment in segments {
            for (page, way) in self.ways(segment, direction) {
                let place = usize::try_from(page).unwrap_or(usize::MAX);
                let Some(entry) = self.pages.get_mut(place) else { continue };
                match &mut entry.live {
                    Some(live) if live.users > 1 => live.users -= 1,
                    _ => {
                        entry.live = None;
                        entry.stale.push((way, channel));
                        self.waiting[usize::from(channel)].push(page);
                    }
                }
            }
        }
    }

    /// A channel's SYNC is complete: the pages that nothing leads to any more through its maps.
    pub fn sync(&mut self, channel: u8) -> Vec<u64> {
        let pages = std::mem::take(&mut self.waiting[usize::from(channel)]);
        for page in &pages {
            let place = usize::try_from(*page).unwrap_or(usize::MAX);
            if let Some(entry) = self.pages.get_mut(place) {
                entry.stale.retain(|(_, owner)| *owner != channel);
            }
        }
        pages
    }

    /// Whether a device may have had this outcome. Tells whether it reached anything.
    pub fn judge(&self, page: u64, access: DmaAccess, outcome: Outcome) -> Result<bool, String> {
        let none = Page::default();
        let entry = usize::try_from(page).ok().and_then(|place| self.pages.get(place)).unwrap_or(&none);
        let allows = |way: &Way| match access {
            DmaAccess::Read => way.may_read,
            DmaAccess::Write => way.may_write,
        };
        let live = entry.live.filter(|live| allows(&live.way));
        match outcome {
            Outcome::Translated(at) => {
                let mut ways = entry.stale.iter().map(|(way, _)| way).filter(|way| allows(way));
                let is_own = live.is_some_and(|live| live.way.phys == at.as_u64());
                if is_own || ways.any(|way| way.phys == at.as_u64()) {
                    return Ok(true);
                }
                Err(format!("iova page {page:#x} leads to {at}: {access:?}, {entry:x?}"))
            }
            outcome if outcome.is_contained() => match live {
                Some(live) if live.call < self.call => {
                    Err(format!("iova page {page:#x} is loaded and refused: {access:?}, {entry:x?}"))
                }
                _ => Ok(false),
            },
            outcome => Err(format!("iova page {page:#x}: {outcome:?}")),
        }
    }
}
