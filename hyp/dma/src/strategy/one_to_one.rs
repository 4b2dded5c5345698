//! IOVA = IPA while that is free: entries that several maps share, and count their users in bits 58:55.
//!
//! An entry goes from nothing to a leaf with one user, and from there up and down, by compare-and-exchange; hardware
//! ignores the bits (DDI 0487 D8.3, reserved for software). The last user leaves its mark in place of the leaf, an
//! invalid descriptor, until its flush: so no load takes the address up again before its SYNC, with other rights
//! perhaps. A load that cannot share a page takes a lease elsewhere, as it does for other rights or a sixteenth user.

use bulkhead_core::addr::PAGE_SIZE;

use crate::{
    map::{
        Channel, Direction, Segment, Space,
        piece::{NONE, Piece, clear},
    },
    tree::{Entry, TableSource, ZERO},
};

const USER: u64 = 1 << 55;
const USERS: u64 = 0b1111 << 55;
/// Not valid; bits 33:2 say whose.
const MARK: u64 = 0b10;

const fn mark(owner: u32) -> u64 {
    (owner as u64) << 2 | MARK
}

/// What one more user makes of an entry, for a page of this descriptor; `None` where it cannot be shared.
const fn joined(entry: u64, descriptor: u64) -> Option<u64> {
    if entry == ZERO {
        Some(descriptor | USER)
    } else if entry & !USERS == descriptor && entry & USERS != USERS {
        Some(entry + USER)
    } else {
        None
    }
}

fn join(entry: &Entry, descriptor: u64) -> bool {
    let mut now = entry.load();
    while let Some(next) = joined(now, descriptor) {
        match entry.replace(now, next) {
            Ok(()) => return true,
            Err(other) => now = other,
        }
    }
    false
}

/// Takes a map's pages out of its entries: clears them, or leaves them to others.
pub fn leave(piece: &Piece<'_>, owner: u32) {
    if !piece.is_shared {
        clear(piece.slots);
        return;
    }
    for entry in piece.slots.iter().take(piece.joined as usize) {
        let mut now = entry.load();
        loop {
            let next = if now & USERS > USER { now - USER } else { mark(owner) };
            match entry.replace(now, next) {
                Ok(()) => break,
                Err(other) => now = other,
            }
        }
    }
}

impl<'t> Space<'t> {
    /// After the flush: the marks of `owner` go, and the hold on the tables.
    #[inline]
    pub(crate) fn tidy(&mut self, piece: &Piece<'t>, owner: u32, channel: &mut Channel<'t>) {
        if !piece.is_shared {
            return;
        }
        for entry in piece.slots {
            // Another's mark stays for that other's flush.
            let _ = entry.replace(mark(owner), ZERO);
        }
        let pages = u32::try_from(piece.slots.len()).unwrap_or(0);
        if pages != 0 {
            self.tree.release(piece.first, pages, &mut channel.batch, channel.number);
        }
    }

    /// Takes the segment's own addresses, of `pages` pages: the first piece of them. The entries join by
    /// [`Channel::join_all`] later, when nothing else can fail.
    pub(super) fn share(
        &mut self,
        channel: &mut Channel<'t>,
        segment: &Segment,
        direction: Direction,
        pages: u32,
        source: &mut dyn TableSource<'t>,
    ) -> Option<u32> {
        let first = u32::try_from(segment.ipa.as_u64() / PAGE_SIZE).ok()?;
        let end = first.checked_add(pages).filter(|end| *end <= self.tree.pages())?;
        let count = (first % 512 + pages).div_ceil(512);
        if channel.pieces.left() < count || self.tree.hold(first, pages, source).is_err() {
            return None;
        }
        let (mut at, mut next) = (end, NONE);
        while at > first {
            let start = first.max((at - 1) / 512 * 512);
            let slots = self.tree.entries(start, at - start);
            next = channel.pieces.take(Piece { slots, first: start, next, is_shared: true, ..Piece::EMPTY });
            at = start;
        }
        let mut descriptor = channel.descriptor(direction, segment);
        let is_free = channel.pieces.entries(next).all(|entry| {
            let can_join = joined(entry.load(), descriptor).is_some();
            descriptor = descriptor.wrapping_add(PAGE_SIZE);
            can_join
        });
        if is_free {
            return Some(next);
        }
        let mut at = next;
        while let Some(piece) = channel.pieces.give(at) {
            let pages = u32::try_from(piece.slots.len()).unwrap_or(0);
            self.tree.release(piece.first, pages, &mut channel.batch, channel.number);
            at = piece.next;
        }
        None
    }
}

impl Channel<'_> {
    /// Joins the entries of `pages` pages from `pieces` on; false where another CPU's unload came between: those before
    /// it are joined, and are left again with the others.
    pub(super) fn join_all(&mut self, pieces: u32, pages: u32, direction: Direction, segment: &Segment) -> bool {
        let mut descriptor = self.descriptor(direction, segment);
        let end = self.pieces.skip(pieces, pages);
        let mut at = pieces;
        while at != end
            && let Some(piece) = self.pieces.get_mut(at)
        {
            for entry in piece.slots {
                if !join(entry, descriptor) {
                    return false;
                }
                piece.joined += 1;
                descriptor = descriptor.wrapping_add(PAGE_SIZE);
            }
            at = piece.next;
        }
        true
    }
}
