//! A part of what a map has of its space: entries next to each other in one table.

use bulkhead_core::addr::PAGE_SIZE;

use crate::{
    iova::Lease,
    tree::{Entry, ZERO},
};

/// No piece, no record.
pub(crate) const NONE: u32 = u32::MAX;

/// Entries of a map. Given to a channel as [`Piece::EMPTY`].
#[derive(Debug)]
pub struct Piece<'t> {
    pub(crate) slots: &'t [Entry],
    /// The page that the first entry maps.
    pub(crate) first: u32,
    /// The map's next piece, or the next one out of use.
    pub(crate) next: u32,
    /// The lease that it is the first piece of.
    pub(crate) lease: Option<Lease>,
    /// Others may share the entries: they count their users.
    pub(crate) is_shared: bool,
    /// Of shared entries, how many from the first on count this map among their users.
    pub(crate) joined: u32,
}

impl Piece<'_> {
    /// A piece out of use.
    pub const EMPTY: Self = Self { slots: &[], first: 0, next: NONE, lease: None, is_shared: false, joined: 0 };
}

/// The pieces of a channel: those in use, and a list of the others.
#[derive(Debug)]
pub(crate) struct Pieces<'t> {
    all: &'t mut [Piece<'t>],
    spare: u32,
    fresh: u32,
    left: u32,
}

impl<'t> Pieces<'t> {
    pub fn new(all: &'t mut [Piece<'t>]) -> Self {
        let left = u32::try_from(all.len()).unwrap_or(NONE - 1);
        Self { all, spare: NONE, fresh: 0, left }
    }

    /// Pieces out of use.
    pub const fn left(&self) -> u32 {
        self.left
    }

    pub fn get(&self, at: u32) -> Option<&Piece<'t>> {
        self.all.get(at as usize)
    }

    pub fn get_mut(&mut self, at: u32) -> Option<&mut Piece<'t>> {
        self.all.get_mut(at as usize)
    }

    /// Takes a piece into use; `NONE` when there is none.
    pub fn take(&mut self, piece: Piece<'t>) -> u32 {
        let at = if self.spare == NONE { self.fresh } else { self.spare };
        let Some(slot) = self.all.get_mut(at as usize) else { return NONE };
        if self.spare == NONE {
            self.fresh += 1;
        } else {
            self.spare = slot.next;
        }
        *slot = piece;
        self.left -= 1;
        at
    }

    /// Takes a piece out of use: what it was, and its successor.
    pub fn give(&mut self, at: u32) -> Option<Piece<'t>> {
        let slot = self.all.get_mut(at as usize)?;
        let piece = core::mem::replace(slot, Piece { next: self.spare, ..Piece::EMPTY });
        self.spare = at;
        self.left += 1;
        Some(piece)
    }

    /// Takes the only piece of a lease out of use: the lease.
    #[inline(always)]
    pub fn give_single(&mut self, at: u32) -> Option<Lease> {
        let piece = self.all.get_mut(at as usize)?;
        piece.next = self.spare;
        self.spare = at;
        self.left = self.left.wrapping_add(1);
        piece.lease.take()
    }

    /// A piece that was in use and is not now.
    #[inline(always)]
    pub fn spare(&self) -> Option<u32> {
        self.all.get(self.spare as usize).map(|_| self.spare)
    }

    /// Takes that piece into use, as the only one of a lease.
    #[inline(always)]
    pub fn take_spare(&mut self, slots: &'t [Entry], lease: Lease) {
        if let Some(piece) = self.all.get_mut(self.spare as usize) {
            self.spare = piece.next;
            self.left = self.left.wrapping_sub(1);
            (piece.slots, piece.first, piece.next) = (slots, lease.first, NONE);
            (piece.lease, piece.is_shared, piece.joined) = (Some(lease), false, 0);
        }
    }

    /// The chain from `at` on.
    pub fn chain(&self, mut at: u32) -> impl Iterator<Item = &Piece<'t>> {
        core::iter::from_fn(move || {
            let piece = self.get(at)?;
            at = piece.next;
            Some(piece)
        })
    }

    /// The longest piece of the chain that `first` begins.
    #[cold]
    pub fn longest<'a>(&'a self, first: &'a Piece<'t>) -> &'a Piece<'t> {
        self.chain(first.next)
            .fold(first, |best, piece| if piece.slots.len() > best.slots.len() { piece } else { best })
    }

    /// The piece behind those of the next `pages` pages from `at` on.
    pub fn skip(&self, mut at: u32, pages: u32) -> u32 {
        let mut left = pages as usize;
        while let Some(piece) = self.get(at)
            && left > 0
        {
            left = left.saturating_sub(piece.slots.len());
            at = piece.next;
        }
        at
    }

    /// The first entry of the chain from `at` on.
    pub const fn cursor(&self, at: u32) -> Cursor<'_, 't> {
        Cursor { pieces: self, next: at, rest: &[] }
    }

    /// All entries of the chain from `at` on, in order.
    pub fn entries(&self, at: u32) -> impl Iterator<Item = &'t Entry> {
        self.chain(at).flat_map(|piece| piece.slots)
    }
}

/// A place among the entries of a chain, which goes up.
pub(crate) struct Cursor<'a, 't> {
    pieces: &'a Pieces<'t>,
    next: u32,
    rest: &'t [Entry],
}

impl<'t> Cursor<'_, 't> {
    /// The next entries, at most `count`, in one table; none at the end of the chain.
    fn take(&mut self, count: usize) -> Option<&'t [Entry]> {
        while self.rest.is_empty() {
            let piece = self.pieces.get(self.next)?;
            (self.rest, self.next) = (piece.slots, piece.next);
        }
        let (here, rest) = self.rest.split_at_checked(count).unwrap_or((self.rest, &[]));
        self.rest = rest;
        Some(here)
    }

    /// Passes over `count` entries.
    pub fn skip(&mut self, mut count: usize) {
        while count > 0
            && let Some(slots) = self.take(count)
        {
            count = count.saturating_sub(slots.len());
        }
    }

    /// Clears `count` entries.
    pub fn clear(&mut self, mut count: usize) {
        while count > 0
            && let Some(slots) = self.take(count)
        {
            clear(slots);
            count = count.saturating_sub(slots.len());
        }
    }

    /// Maps `count` consecutive pages from `descriptor` on.
    pub fn fill(&mut self, mut count: usize, mut descriptor: u64) {
        while count > 0
            && let Some(slots) = self.take(count)
        {
            fill(slots, descriptor);
            descriptor = descriptor.wrapping_add(slots.len() as u64 * PAGE_SIZE);
            count = count.saturating_sub(slots.len());
        }
    }
}

/// Clears entries: one store each.
#[inline]
pub(crate) fn clear(slots: &[Entry]) {
    store_each(slots, ZERO, 0);
}

/// Maps consecutive pages from `descriptor` on: one store each.
#[inline]
pub(crate) fn fill(slots: &[Entry], descriptor: u64) {
    store_each(slots, descriptor, PAGE_SIZE);
}

#[inline(always)]
fn store_each(slots: &[Entry], mut descriptor: u64, step: u64) {
    // 64 KiB at a time, and without a loop where that is all.
    if let Some(sixteen) = slots.as_array::<16>() {
        for slot in sixteen {
            slot.store(descriptor);
            descriptor = descriptor.wrapping_add(step);
        }
        return;
    }
    let (sixteens, rest) = slots.as_chunks::<16>();
    for sixteen in sixteens {
        for slot in sixteen {
            slot.store(descriptor);
            descriptor = descriptor.wrapping_add(step);
        }
    }
    for slot in rest {
        slot.store(descriptor);
        descriptor = descriptor.wrapping_add(step);
    }
}
