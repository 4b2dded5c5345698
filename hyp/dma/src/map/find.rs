//! Answers that take time: whose an address is, for the line about a fault; who holds a page.

use bulkhead_core::addr::{Iova, Ipa, PAGE_SIZE};

use super::{Channel, Space};

/// Where an IOVA lies among the leases.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Channel of the nearest map whose lease begins at or below the address.
    pub channel: u8,
    /// Its place in the channel.
    pub place: u32,
    /// Pages from the start of its lease.
    pub page: u32,
    /// Pages past its lease, guard page included: "2 pages past map 7"; `None` within it.
    pub past: Option<u32>,
}

/// Maps of a channel that a page of RAM is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Holds {
    /// Loaded maps, each as often as it maps the page.
    pub loaded: u32,
    /// Whether there are maps whose last pages are not flushed: it may have been among them.
    pub has_unflushed: bool,
}

impl Space<'_> {
    /// The map nearest to `iova`: the one whose lease holds it, or the last one below it. In linear time.
    pub fn find(&self, iova: Iova) -> Option<Found> {
        let page = u32::try_from(iova.as_u64() / PAGE_SIZE).unwrap_or(u32::MAX);
        let (owner, first, pages) = self.leases.nearest(page)?;
        let [a, b, c, channel] = owner.to_le_bytes();
        let distance = page - first;
        let past = distance.checked_sub(pages - 1).filter(|past| *past > 0);
        Some(Found { channel, place: u32::from_le_bytes([a, b, c, 0]), page: distance, past })
    }
}

impl Channel<'_> {
    /// The maps that hold the page at `ipa`. In time linear in the pages that are loaded.
    pub fn holds(&self, ipa: Ipa) -> Holds {
        let mut holds = Holds { loaded: 0, has_unflushed: !self.batch.is_empty() || self.has_retired() };
        let offset = ipa.as_u64().wrapping_sub(self.ram.start);
        if offset >= self.ram.size {
            return Holds::default();
        }
        let address = |descriptor: u64| descriptor & 0x0000_ffff_ffff_f000;
        let wanted = address(self.ram.page[0]).wrapping_add(offset & !(PAGE_SIZE - 1));
        for record in self.records.iter() {
            if !record.is_loaded() {
                holds.has_unflushed |= !self.batch.is_settled(record.stamp());
            } else {
                let bytes = u64::from(record.leaf_pages()) * PAGE_SIZE;
                let entries = self.pieces.entries(record.pieces).map(crate::tree::Entry::load);
                let hits = entries.filter(|entry| *entry & 1 != 0 && address(*entry) == wanted & !(bytes - 1));
                holds.loaded += hits.fold(0, |count, _| count + 1);
            }
        }
        holds
    }
}
