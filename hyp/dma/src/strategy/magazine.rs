//! Magazines: stacks of leases that a channel keeps, so that loads seldom need the space (Bonwick; Peleg et al.).

use crate::map::piece::{NONE, Piece, Pieces};

/// Leases in a magazine.
const ROUNDS: usize = 16;
/// Sizes of leases: 2, 4, 8, up to 256 pages, guard page included.
const SIZES: usize = 8;

/// The magazines of one size: two, so that a channel at the edge of one does not go to the space each time.
#[derive(Clone, Copy, Debug)]
struct Pair {
    rounds: [[u32; ROUNDS]; 2],
    counts: [usize; 2],
    /// The one in use.
    current: usize,
}

/// A channel's magazines: first pieces of leases that have their tables.
#[derive(Debug)]
pub struct Magazine {
    sizes: [Pair; SIZES],
}

impl Magazine {
    /// All empty.
    pub const EMPTY: Self = Self { sizes: [Pair { rounds: [[NONE; ROUNDS]; 2], counts: [0, 0], current: 0 }; SIZES] };

    /// Pages of the lease that serves `pages` pages.
    pub const fn round_up(pages: u32) -> u32 {
        let pages = pages.next_power_of_two();
        if pages < 2 { 2 } else { pages }
    }

    fn pair(&mut self, pages: u32) -> Option<&mut Pair> {
        if !pages.is_power_of_two() {
            return None;
        }
        self.sizes.get_mut((pages.ilog2() as usize).wrapping_sub(1))
    }

    /// A lease of exactly `pages` pages.
    pub fn pop(&mut self, pages: u32) -> Option<u32> {
        let pair = self.pair(pages)?;
        if pair.counts[pair.current] == 0 {
            pair.current ^= 1;
        }
        let current = pair.current;
        let count = pair.counts[current].checked_sub(1)?;
        pair.counts[current] = count;
        pair.rounds[current].get(count).copied()
    }

    /// Keeps a lease of `pages` pages, unless both magazines are full.
    pub fn push(&mut self, pages: u32, piece: u32) -> bool {
        let Some(pair) = self.pair(pages) else { return false };
        if pair.counts[pair.current] == ROUNDS {
            pair.current ^= 1;
        }
        let current = pair.current;
        let Some(slot) = pair.rounds[current].get_mut(pair.counts[current]) else { return false };
        *slot = piece;
        pair.counts[current] += 1;
        true
    }

    /// Any lease, to go back to the space.
    pub fn pop_any(&mut self) -> Option<u32> {
        (1..=u32::try_from(SIZES).unwrap_or(0)).find_map(|size| self.pop(1 << size))
    }
}

/// Pages of the lease that a chain begins with.
pub(super) fn lease_pages(pieces: &Pieces<'_>, at: u32) -> u32 {
    let piece: Option<&Piece<'_>> = pieces.get(at);
    piece.and_then(|piece| piece.lease.as_ref()).map_or(0, |lease| lease.pages)
}
