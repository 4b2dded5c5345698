//! Lists of free blocks by size class, and the bit maps that find the first list with a block.

use super::node::NONE;

/// Classes within a power of two, as a shift: sizes below 32 pages have a class each, the others are 1/16 apart.
const SUB_BITS: u32 = 4;
const SUBS: usize = 1 << SUB_BITS;
/// Sizes below it are all of the first row: an everyday hole is found, made and filled by its size alone.
pub const HOLE_MAX: u32 = 1 << SUB_BITS;
/// Powers of two up to 2^27 pages.
const ROWS: usize = 25;

/// First blocks of the lists, and which lists have one.
#[derive(Debug)]
pub struct Bins {
    heads: [[u32; SUBS]; ROWS],
    rows: u32,
    subs: [u16; ROWS],
}

impl Bins {
    /// No block in any list.
    pub const NEW: Self = Self { heads: [[NONE; SUBS]; ROWS], rows: 0, subs: [0; ROWS] };

    /// The class of blocks of `pages` pages, at least 1: row and place in it.
    pub const fn class(pages: u32) -> (usize, usize) {
        if pages < 1 << SUB_BITS {
            return (0, pages as usize);
        }
        let shift = pages.ilog2() - SUB_BITS;
        (shift as usize + 1, (pages >> shift) as usize & (SUBS - 1))
    }

    /// Puts a block at the head of its list; yields the former head.
    pub fn push(&mut self, pages: u32, at: u32) -> u32 {
        let (row, sub) = Self::class(pages);
        self.rows |= 1 << row;
        self.subs[row] |= 1 << sub;
        core::mem::replace(&mut self.heads[row][sub], at)
    }

    /// The head of the list for `pages` pages.
    pub fn head(&self, pages: u32) -> u32 {
        let (row, sub) = Self::class(pages);
        self.heads[row][sub]
    }

    /// The first block of exactly `pages` pages, fewer than [`HOLE_MAX`]; else `NONE`.
    #[inline(always)]
    pub const fn hole(&self, pages: u32) -> u32 {
        if pages < HOLE_MAX { self.heads[0][pages as usize] } else { NONE }
    }

    /// That block went.
    #[inline(always)]
    pub const fn set_hole(&mut self, pages: u32, next: u32) {
        if pages < HOLE_MAX {
            self.heads[0][pages as usize] = next;
            if next == NONE {
                self.subs[0] &= !(1 << pages);
                if self.subs[0] == 0 {
                    self.rows &= !1;
                }
            }
        }
    }

    /// Puts a block of fewer than [`HOLE_MAX`] pages at the head of its list; yields the former head.
    #[inline(always)]
    pub const fn push_hole(&mut self, pages: u32, at: u32) -> u32 {
        if pages >= HOLE_MAX {
            return NONE;
        }
        self.rows |= 1;
        self.subs[0] |= 1 << pages;
        core::mem::replace(&mut self.heads[0][pages as usize], at)
    }

    /// The head of the list for `pages` pages went.
    pub fn set_head(&mut self, pages: u32, next: u32) {
        let (row, sub) = Self::class(pages);
        self.heads[row][sub] = next;
        if next == NONE {
            self.subs[row] &= !(1 << sub);
            if self.subs[row] == 0 {
                self.rows &= !(1 << row);
            }
        }
    }

    /// A block of the smallest class all of whose blocks have at least `pages` pages; `NONE` without one.
    pub fn at_least(&self, pages: u32) -> u32 {
        // Rounded up to the lowest size of a class.
        let below = match pages.checked_ilog2() {
            Some(log) if log > SUB_BITS => (1 << (log - SUB_BITS)) - 1,
            _ => 0,
        };
        let (row, sub) = Self::class(pages.saturating_add(below));
        if row >= ROWS {
            return NONE;
        }
        let here = self.subs[row] & (u16::MAX << sub);
        let (row, subs) = if here != 0 {
            (row, here)
        } else {
            let above = self.rows & (u32::MAX << row << 1);
            if above == 0 {
                return NONE;
            }
            let row = above.trailing_zeros() as usize;
            (row, self.subs[row])
        };
        self.heads[row][subs.trailing_zeros() as usize]
    }
}
