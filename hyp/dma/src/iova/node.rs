//! A stretch of the space: a lease, a reserved range or a free block, linked to its neighbours by place.

/// No node.
pub(crate) const NONE: u32 = u32::MAX;
/// In `Node::pages`: the stretch is free.
pub(super) const FREE: u32 = 1 << 31;

/// What the allocator keeps of a stretch of pages. Given to it as [`Node::EMPTY`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(align(32))]
pub struct Node {
    pub(super) first: u32,
    /// With `FREE`, if it is.
    pub(super) pages: u32,
    pub(super) below: u32,
    pub(super) above: u32,
    /// In the list of its size, or of spare nodes.
    pub(super) prev: u32,
    pub(super) next: u32,
    /// Whose lease it is; `NONE` for a reserved range.
    pub(super) owner: u32,
}

impl Node {
    /// A node out of use.
    pub const EMPTY: Self = Self { first: 0, pages: 0, below: NONE, above: NONE, prev: NONE, next: NONE, owner: NONE };

    /// Used pages above `below`.
    pub(super) const fn used(first: u32, pages: u32, below: u32) -> Self {
        Self { first, pages, below, ..Self::EMPTY }
    }

    pub(super) const fn is_free(&self) -> bool {
        self.pages & FREE != 0
    }

    pub(super) const fn pages(&self) -> u32 {
        self.pages & !FREE
    }

    pub(super) const fn end(&self) -> u32 {
        self.first + self.pages()
    }
}
