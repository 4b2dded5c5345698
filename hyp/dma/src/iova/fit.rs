//! What a lease has to be, and the block that it is cut from.

use super::{HIGH, Iovas, node::NONE};

/// What is asked of a lease, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wish {
    /// Its length.
    pub pages: u32,
    /// Its first page is a multiple of this power of two.
    pub align: u32,
    /// No multiple of this power of two lies inside, when it is short enough for that; 0: any may.
    pub boundary: u32,
    /// It ends at or below this page.
    pub limit: u32,
}

/// Blocks that are looked at one by one where size alone does not decide: the time stays bounded.
const TRIES: usize = 64;

impl Wish {
    /// `pages` pages anywhere.
    pub const fn pages(pages: u32) -> Self {
        Self { pages, align: 1, boundary: 0, limit: u32::MAX }
    }

    /// The lowest place in a stretch that will do.
    #[inline(always)]
    pub fn place(&self, first: u32, end: u32) -> Option<u32> {
        // Pages are below 2^27, alignments and boundaries powers of two at most as large: nothing wraps.
        let up = |page: u32, align: u32| page.wrapping_add(align.wrapping_sub(1)) & !align.wrapping_sub(1);
        let mut place = if self.align > 1 { up(first, self.align) } else { first };
        if self.boundary >= self.pages && self.boundary != 0 {
            let last = place.wrapping_add(self.pages - 1);
            if (place ^ last) & !(self.boundary - 1) != 0 {
                place = up(place, self.boundary.max(self.align));
            }
        }
        (place.wrapping_add(self.pages) <= end.min(self.limit)).then_some(place)
    }
}

impl Iovas<'_> {
    /// A free block, and the place in it.
    pub(super) fn find(&self, wish: &Wish) -> Option<(u32, u32)> {
        if wish.pages == 0 {
            return None;
        }
        // Low space is for those who need it, and for all when there is no other.
        let zones = if wish.limit <= HIGH { 0..1 } else { 0..2 };
        let size = wish.pages.saturating_add(wish.align.max(1) - 1);
        for zone in zones.rev() {
            let at = self.bins[zone].at_least(size);
            if let Some(place) = self.fits(at, wish) {
                return Some((at, place));
            }
        }
        self.search(wish)
    }

    fn fits(&self, at: u32, wish: &Wish) -> Option<u32> {
        let node = self.nodes.get(at as usize)?;
        wish.place(node.first, node.end())
    }

    /// Where the first block of a sufficient class will not do: those of the class below, the larger ones, the lowest.
    #[cold]
    fn search(&self, wish: &Wish) -> Option<(u32, u32)> {
        let padded = wish.pages.saturating_add(wish.align.max(wish.boundary).max(1) - 1);
        for zone in [1, 0] {
            let larger = self.bins[zone].at_least(padded);
            if let Some(place) = self.fits(larger, wish) {
                return Some((larger, place));
            }
            let mut at = self.bins[zone].head(wish.pages);
            for _ in 0..TRIES {
                if let Some(place) = self.fits(at, wish) {
                    return Some((at, place));
                }
                at = self.nodes.get(at as usize).map_or(NONE, |node| node.next);
            }
        }
        let mut at = 0;
        for _ in 0..TRIES {
            let node = self.nodes.get(at as usize)?;
            if node.is_free()
                && let Some(place) = self.fits(at, wish)
            {
                return Some((at, place));
            }
            at = node.above;
        }
        None
    }
}
