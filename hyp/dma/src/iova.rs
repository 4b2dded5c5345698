//! Where in its space of IOVAs a VM's leases lie: taken and given back in constant time.
//!
//! A two-level segregated fit (Masmano et al., ECRTS 2004) over pages: free blocks hang in lists by size class, two
//! bit maps find the first list that has one, and neighbours merge when a lease returns. A lease is cut from the low
//! end of a block, so leases that are made one after the other lie one after the other: a ring's maps are contiguous.
//! Space below 4 GiB is kept apart, for devices of 32 address bits; others take it when the rest is used up.

mod bins;
mod fit;
mod node;
#[cfg(test)]
mod tests;

use thiserror::Error;

use self::{
    bins::{Bins, HOLE_MAX},
    node::{FREE, NONE},
};
pub use self::{fit::Wish, node::Node};

/// First page above 4 GiB: blocks are not merged across it.
pub(crate) const HIGH: u32 = 1 << 20;
/// Most pages of a space: 39 bits.
pub(crate) const PAGES_MAX: u32 = 1 << 27;

/// Nodes that `leases` leases and `reserved` reserved ranges can need.
pub const fn nodes_for(leases: usize, reserved: usize) -> usize {
    2 * (leases + reserved) + 4
}

/// Pages of IOVA that belong to one map, its guard page included. Not to be copied: who holds it gives it back once.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "a lease that is dropped is never given back"]
pub struct Lease {
    pub(crate) first: u32,
    pub(crate) pages: u32,
    pub(crate) node: u32,
}

/// Why there is no lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum IovaError {
    /// No free block is long enough, as aligned and as low as asked for.
    #[error("no free iova range of {pages} pages")]
    NoRange {
        /// Pages of the lease.
        pages: u32,
    },
    /// The nodes are used up: more leases than the space was made for.
    #[error("no room to keep another lease")]
    NoNode,
}

/// The allocator. See the module.
#[derive(Debug)]
pub struct Iovas<'t> {
    nodes: &'t mut [Node],
    bins: [Bins; 2],
    /// List of nodes that are out of use.
    spare: u32,
    /// Nodes from here on were never in use.
    fresh: u32,
    live: u32,
    leased: u32,
}

impl<'t> Iovas<'t> {
    /// Pages 1 to `end`, all free; page 0 never is, so that a device's null pointer faults.
    pub fn new(nodes: &'t mut [Node], end: u32) -> Self {
        let end = end.min(PAGES_MAX);
        let mut iovas = Self { nodes, bins: [Bins::NEW, Bins::NEW], spare: NONE, fresh: 0, live: 0, leased: 0 };
        let low = iovas.fresh_node(Node::used(0, 1, NONE));
        let mut below = low;
        for (first, last) in [(1, end.min(HIGH)), (HIGH, end)] {
            if first < last {
                let at = iovas.fresh_node(Node::used(first, last - first, below));
                if at != NONE {
                    iovas.nodes[below as usize].above = at;
                    iovas.insert(at);
                    below = at;
                }
            }
        }
        iovas
    }

    /// Leases that are out.
    pub const fn live(&self) -> u32 {
        self.live
    }

    /// Pages of the leases that are out.
    pub const fn leased_pages(&self) -> u32 {
        self.leased
    }

    /// Takes the pages from `first` up to `end` out for good. Nothing there may be leased; on error nothing has changed.
    pub fn reserve(&mut self, first: u32, end: u32) -> Result<(), IovaError> {
        let refused = IovaError::NoRange { pages: end.saturating_sub(first) };
        let Some(mut at) = self.holder(first.max(1)) else { return Ok(()) };
        let mut first = first.max(1);
        // A reserved range may cross 4 GiB: as two.
        while first < end {
            let node = self.nodes[at as usize];
            if !node.is_free() || self.spares() < 2 {
                return Err(if node.is_free() { IovaError::NoNode } else { refused });
            }
            let part = end.min(node.end());
            self.cut(at, first, part - first);
            first = part;
            match self.holder(part) {
                Some(next) => at = next,
                None => break,
            }
        }
        Ok(())
    }

    /// Takes a lease. On error nothing has changed.
    pub fn take(&mut self, wish: &Wish, owner: u32) -> Result<Lease, IovaError> {
        if let Some((at, first)) = self.hole(wish.pages, wish.limit)
            && wish.place(first, first.wrapping_add(wish.pages)) == Some(first)
        {
            return Ok(self.take_hole(wish.pages, at, owner));
        }
        self.take_part(wish, owner)
    }

    /// The everyday case after the first round: a hole of just this length, which another map of its kind has left.
    /// Its node and its first page.
    #[inline(always)]
    pub fn hole(&self, pages: u32, limit: u32) -> Option<(u32, u32)> {
        let high = if limit > HIGH { self.bins[1].hole(pages) } else { NONE };
        let at = if high == NONE { self.bins[0].hole(pages) } else { high };
        self.nodes.get(at as usize).map(|node| (at, node.first))
    }

    /// Takes the hole at `at`, the first of its length.
    #[inline(always)]
    pub fn take_hole(&mut self, pages: u32, at: u32, owner: u32) -> Lease {
        let Some(node) = self.nodes.get_mut(at as usize) else { return Lease { first: 0, pages: 0, node: NONE } };
        let (first, next) = (node.first, node.next);
        (node.pages, node.owner) = (pages, owner);
        if let Some(next) = self.nodes.get_mut(next as usize) {
            next.prev = NONE;
        }
        self.bins[Self::zone(first)].set_hole(pages, next);
        self.live = self.live.wrapping_add(1);
        self.leased = self.leased.wrapping_add(pages);
        Lease { first, pages, node: at }
    }

    /// A part of a longer block.
    #[inline(never)]
    fn take_part(&mut self, wish: &Wish, owner: u32) -> Result<Lease, IovaError> {
        if self.spares() < 2 {
            return Err(IovaError::NoNode);
        }
        let (at, first) = self.find(wish).ok_or(IovaError::NoRange { pages: wish.pages })?;
        let node = self.cut(at, first, wish.pages);
        self.nodes[node as usize].owner = owner;
        self.live += 1;
        self.leased += wish.pages;
        Ok(Lease { first, pages: wish.pages, node })
    }

    /// Gives a lease back; it merges with what is free beside it.
    #[inline(always)]
    pub fn give(&mut self, lease: Lease) {
        let Lease { first, pages, node: at } = lease;
        self.live = self.live.wrapping_sub(1);
        self.leased = self.leased.wrapping_sub(pages);
        let Some(node) = self.nodes.get(at as usize) else { return };
        let is_free = |at: u32| self.nodes.get(at as usize).is_some_and(Node::is_free);
        if is_free(node.below) || is_free(node.above) || pages >= HOLE_MAX {
            return self.merge(at);
        }
        // The everyday case: leases on both sides.
        let head = self.bins[Self::zone(first)].push_hole(pages, at);
        if let Some(next) = self.nodes.get_mut(head as usize) {
            next.prev = at;
        }
        if let Some(node) = self.nodes.get_mut(at as usize) {
            (node.pages, node.owner, node.prev, node.next) = (pages | FREE, NONE, NONE, head);
        }
    }

    #[inline(never)]
    fn merge(&mut self, mut at: u32) {
        let Some(mut node) = self.nodes.get(at as usize).copied() else { return };
        if node.below != NONE {
            let below = self.nodes[node.below as usize];
            if below.is_free() && node.first != HIGH {
                self.remove(node.below);
                self.discard(at);
                at = node.below;
                node = Node { pages: below.pages() + node.pages, above: node.above, ..below };
            }
        }
        if node.above != NONE {
            let (place, above) = (node.above, self.nodes[node.above as usize]);
            if above.is_free() && above.first != HIGH {
                self.remove(place);
                self.discard(place);
                node.pages = node.pages() + above.pages();
                node.above = above.above;
            }
        }
        node.pages = node.pages();
        self.nodes[at as usize] = node;
        if node.above != NONE {
            self.nodes[node.above as usize].below = at;
        }
        self.insert(at);
    }

    /// The lease that holds `page`, or the nearest one below it: owner, first page, pages. In linear time, for faults.
    pub fn nearest(&self, page: u32) -> Option<(u32, u32, u32)> {
        let mut at = 0;
        let mut found = None;
        while let Some(node) = self.nodes.get(at as usize).filter(|node| node.first <= page) {
            if node.owner != NONE && !node.is_free() {
                found = Some((node.owner, node.first, node.pages()));
            }
            at = node.above;
        }
        found
    }

    /// Free blocks and their pages, in order, for tests and for `status`.
    pub fn free_blocks(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let mut at = 0;
        core::iter::from_fn(move || {
            loop {
                let node = self.nodes.get(at as usize)?;
                at = node.above;
                if node.is_free() {
                    return Some((node.first, node.pages()));
                }
            }
        })
    }

    /// The node that holds `page`.
    fn holder(&self, page: u32) -> Option<u32> {
        let mut at = 0;
        loop {
            let node = self.nodes.get(at as usize)?;
            if node.first <= page && page < node.end() {
                return Some(at);
            }
            at = node.above;
        }
    }

    /// Cuts `pages` pages from `first` out of the free block `at`; two nodes are spare. Yields the node of the cut.
    fn cut(&mut self, at: u32, first: u32, pages: u32) -> u32 {
        let block = self.nodes[at as usize];
        let (before, after) = (first - block.first, block.end() - first - pages);
        if before == 0 && after > 0 {
            // The everyday case: the block shrinks, and mostly stays in its list.
            let node = self.fresh_node(Node { above: at, ..Node::used(first, pages, block.below) });
            if block.below != NONE {
                self.nodes[block.below as usize].above = node;
            }
            let stays = Bins::class(after) == Bins::class(block.pages());
            if !stays {
                self.remove(at);
            }
            let rest = &mut self.nodes[at as usize];
            (rest.first, rest.below) = (first + pages, node);
            rest.pages = after | FREE;
            if !stays {
                self.insert(at);
            }
            return node;
        }
        self.remove(at);
        let mut node = at;
        if before > 0 {
            node = self.fresh_node(Node { above: block.above, ..Node::used(first, pages, at) });
            let low = &mut self.nodes[at as usize];
            (low.pages, low.above) = (before, node);
            self.insert(at);
        } else {
            self.nodes[at as usize].pages = pages;
        }
        let mut last = node;
        if after > 0 {
            last = self.fresh_node(Node { above: block.above, ..Node::used(first + pages, after, node) });
            self.nodes[node as usize].above = last;
            self.insert(last);
        }
        if block.above != NONE {
            self.nodes[block.above as usize].below = last;
        }
        node
    }

    /// Nodes that can still be had, up to 2.
    fn spares(&self) -> usize {
        let listed = match self.nodes.get(self.spare as usize) {
            None => 0,
            Some(first) => 1 + usize::from(first.next != NONE),
        };
        listed + (self.nodes.len() - self.fresh as usize).min(2)
    }

    /// A node with this content; `NONE` when there is none, which `spares` has ruled out.
    fn fresh_node(&mut self, content: Node) -> u32 {
        let mut at = self.spare;
        if at == NONE {
            at = self.fresh;
        }
        let Some(node) = self.nodes.get_mut(at as usize) else { return NONE };
        if self.spare == NONE {
            self.fresh += 1;
        } else {
            self.spare = node.next;
        }
        *node = content;
        at
    }

    fn discard(&mut self, at: u32) {
        self.nodes[at as usize] = Node { next: self.spare, ..Node::EMPTY };
        self.spare = at;
    }

    #[inline(always)]
    const fn zone(first: u32) -> usize {
        (first >= HIGH) as usize
    }

    #[inline]
    fn insert(&mut self, at: u32) {
        let node = &mut self.nodes[at as usize];
        let zone = Self::zone(node.first);
        node.pages |= FREE;
        node.owner = NONE;
        let pages = node.pages();
        let head = self.bins[zone].push(pages, at);
        let node = &mut self.nodes[at as usize];
        (node.prev, node.next) = (NONE, head);
        if head != NONE {
            self.nodes[head as usize].prev = at;
        }
    }

    fn remove(&mut self, at: u32) {
        let node = self.nodes[at as usize];
        if node.next != NONE {
            self.nodes[node.next as usize].prev = node.prev;
        }
        if node.prev != NONE {
            self.nodes[node.prev as usize].next = node.next;
        } else {
            self.bins[Self::zone(node.first)].set_head(node.pages(), node.next);
        }
        self.nodes[at as usize].pages = node.pages();
    }
}
