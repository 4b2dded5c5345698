//! Leases of fixed slots: first fit in a bit map.

use crate::iova::{IovaError, Lease, Wish};

/// Pages of a slot.
pub(super) const SLOT_PAGES: u32 = 16;

/// Slots of 16 pages, a bit each, 1 where it is taken.
#[derive(Debug)]
pub struct Bitmap<'t> {
    bits: &'t mut [u64],
    slots: u32,
    leased: u32,
}

impl<'t> Bitmap<'t> {
    /// All slots up to the page `end`, as far as there are bits; the first, with page 0, is never leased.
    pub fn new(bits: &'t mut [u64], end: u32) -> Self {
        bits.fill(0);
        let room = u32::try_from(bits.len() * 64).unwrap_or(u32::MAX);
        let mut bitmap = Self { bits, slots: (end / SLOT_PAGES).min(room), leased: 0 };
        bitmap.mark(0, 1, true);
        bitmap
    }

    pub fn take(&mut self, wish: &Wish) -> Result<Lease, IovaError> {
        let refused = IovaError::NoRange { pages: wish.pages };
        let count = wish.pages.div_ceil(SLOT_PAGES);
        let mut slot = 0;
        loop {
            let first = wish.place(slot * SLOT_PAGES, self.slots * SLOT_PAGES).ok_or(refused)?;
            // A boundary within a slot: the next slot begins past it.
            if first % SLOT_PAGES != 0 {
                slot = first.div_ceil(SLOT_PAGES);
                continue;
            }
            slot = first / SLOT_PAGES;
            if slot + count > self.slots {
                return Err(refused);
            }
            match (slot..slot + count).rev().find(|slot| self.is_taken(*slot)) {
                Some(taken) => slot = taken + 1,
                None => {
                    self.mark(slot, count, true);
                    self.leased += wish.pages;
                    return Ok(Lease { first, pages: wish.pages, node: u32::MAX });
                }
            }
        }
    }

    pub fn give(&mut self, lease: &Lease) {
        self.mark(lease.first / SLOT_PAGES, lease.pages.div_ceil(SLOT_PAGES), false);
        self.leased -= lease.pages;
    }

    pub fn reserve(&mut self, first: u32, end: u32) {
        let slot = first / SLOT_PAGES;
        self.mark(slot, end.div_ceil(SLOT_PAGES).min(self.slots).saturating_sub(slot), true);
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
