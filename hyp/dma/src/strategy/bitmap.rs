//! Leases of fixed slots: first fit in a bit map.

use crate::iova::{IovaError, Lease, Wish};

/// Pages of a slot.
pub(super) const SLOT_PAGES: u32 = 16;

/// Slots of 16 pages, a bit each, 1 where it is taken.
#[derive(Debug)]
pub struct Bitmap<'t> {
    bits: &'t mut [u64],
    slots: u32,
    /// No slot below it is free.
    low: u32,
    leased: u32,
}

impl<'t> Bitmap<'t> {
    /// All slots up to the page `end`, as far as there are bits; the first, with page 0, is never leased.
    pub fn new(bits: &'t mut [u64], end: u32) -> Self {
        bits.fill(0);
        let room = u32::try_from(bits.len() * 64).unwrap_or(u32::MAX);
        let mut bitmap = Self { bits, slots: (end / SLOT_PAGES).min(room), low: 1, leased: 0 };
        bitmap.mark(0, 1, true);
        bitmap
    }

    pub fn take(&mut self, wish: &Wish) -> Result<Lease, IovaError> {
        let refused = IovaError::NoRange { pages: wish.pages };
        let count = wish.pages.div_ceil(SLOT_PAGES);
        let lowest = self.free_from(self.low);
        // Below it nothing is free.
        self.low = lowest;
        let mut slot = lowest;
        loop {
            let first = wish.place(slot * SLOT_PAGES, self.slots * SLOT_PAGES).ok_or(refused)?;
            // A boundary within a slot: the next slot begins past it.
            let next = first.div_ceil(SLOT_PAGES);
            if next != slot {
                slot = self.free_from(next);
                continue;
            }
            if slot + count > self.slots {
                return Err(refused);
            }
            match (slot + 1..slot + count).rev().find(|slot| self.is_taken(*slot)) {
                Some(taken) => slot = self.free_from(taken + 1),
                None => {
                    self.mark(slot, count, true);
                    self.leased += wish.pages;
                    return Ok(Lease { first, pages: wish.pages, node: u32::MAX });
                }
            }
        }
    }

    pub fn give(&mut self, lease: &Lease) {
        let slot = lease.first / SLOT_PAGES;
        self.low = self.low.min(slot);
        self.mark(slot, lease.pages.div_ceil(SLOT_PAGES), false);
        self.leased -= lease.pages;
    }

    pub fn reserve(&mut self, first: u32, end: u32) {
        let slot = first / SLOT_PAGES;
        self.mark(slot, end.div_ceil(SLOT_PAGES).min(self.slots).saturating_sub(slot), true);
    }

    /// The first free slot from `slot` on, word by word; the end of the bits without one.
    fn free_from(&self, slot: u32) -> u32 {
        let mut mask = u64::MAX << (slot % 64);
        let start = slot / 64;
        for (at, word) in (start..).zip(self.bits.iter().skip(start as usize)) {
            let free = !word & mask;
            if free != 0 {
                return at * 64 + free.trailing_zeros();
            }
            mask = u64::MAX;
        }
        self.slots
    }

    pub const fn leased_pages(&self) -> u32 {
        self.leased
    }

    fn is_taken(&self, slot: u32) -> bool {
        self.bits.get(slot as usize / 64).is_none_or(|word| word >> (slot % 64) & 1 != 0)
    }

    fn mark(&mut self, slot: u32, count: u32, is_taken: bool) {
        for slot in slot..slot + count {
            if let Some(word) = self.bits.get_mut(slot as usize / 64) {
                let bit = 1 << (slot % 64);
                *word = if is_taken { *word | bit } else { *word & !bit };
            }
        }
    }
}
