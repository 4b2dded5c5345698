//! The allocator of a space, by strategy.

use bulkhead_core::{
    addr::{AddrRange, Iova, PAGE_SIZE},
    bundle::DmamapStrategy,
};

use super::bitmap::Bitmap;
use crate::iova::{IovaError, Iovas, Lease, Node, Wish};

/// Where leases come from.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one a space, in place, without a heap")]
pub enum Leases<'t> {
    /// Size-class lists.
    Fit(Iovas<'t>),
    /// Fixed slots.
    Slots(Bitmap<'t>),
}

impl<'t> Leases<'t> {
    pub fn new(strategy: DmamapStrategy, nodes: &'t mut [Node], bits: &'t mut [u64], end: u32) -> Self {
        if strategy == DmamapStrategy::Bitmap {
            Self::Slots(Bitmap::new(bits, end))
        } else {
            Self::Fit(Iovas::new(nodes, end))
        }
    }

    pub fn take(&mut self, wish: &Wish, owner: u32) -> Result<Lease, IovaError> {
        match self {
            Self::Fit(iovas) => iovas.take(wish, owner),
            Self::Slots(bitmap) => bitmap.take(wish),
        }
    }

    #[inline(always)]
    pub fn give(&mut self, lease: Lease) {
        match self {
            Self::Fit(iovas) => iovas.give(lease),
            Self::Slots(bitmap) => bitmap.give(&lease),
        }
    }

    /// Takes every page that `range` touches out for good.
    pub fn reserve(&mut self, range: AddrRange<Iova>) -> Result<(), IovaError> {
        let page = |address: u64| u32::try_from(address / PAGE_SIZE).unwrap_or(u32::MAX);
        let first = page(range.start().as_u64());
        let end = page(range.end().as_u64().saturating_add(PAGE_SIZE - 1));
        match self {
            Self::Fit(iovas) => iovas.reserve(first, end),
            Self::Slots(bitmap) => {
                bitmap.reserve(first, end);
                Ok(())
            }
        }
    }

    /// Pages of the leases that are out.
    pub fn pages(&self) -> u32 {
        match self {
            Self::Fit(iovas) => iovas.leased_pages(),
            Self::Slots(bitmap) => bitmap.leased_pages(),
        }
    }

    /// Owner, first page and pages of the lease at or below `page`; slots keep no owner.
    pub fn nearest(&self, page: u32) -> Option<(u32, u32, u32)> {
        match self {
            Self::Fit(iovas) => iovas.nearest(page),
            Self::Slots(_) => None,
        }
    }
}
