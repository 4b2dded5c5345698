//! A node with its ancestors: what it inherits, and its addresses as the CPUs see them.

use heapless::Vec;

use super::{Cells, Node, Value, unreadable};
use crate::{
    addr::{AddrRange, PhysAddr},
    machine::{error::MachineError, frame::DEPTH_MAX},
};

/// A node and its ancestors.
#[derive(Clone)]
pub struct Path<'a> {
    /// The root first, the parent last.
    ancestors: Vec<Node<'a>, DEPTH_MAX>,
    node: Node<'a>,
}

impl<'a> Path<'a> {
    pub(super) const fn new(root: Node<'a>) -> Self {
        Self { ancestors: Vec::new(), node: root }
    }

    pub(super) fn descend(&mut self, child: Node<'a>) -> Result<(), MachineError> {
        self.ancestors.push(self.node).map_err(|_| unreadable())?;
        self.node = child;
        Ok(())
    }

    pub(super) fn ascend(&mut self) {
        if let Some(parent) = self.ancestors.pop() {
            self.node = parent;
        }
    }

    /// The node itself.
    pub const fn node(&self) -> Node<'a> {
        self.node
    }

    /// The node's parent, if it is not the root.
    pub fn parent(&self) -> Option<Node<'a>> {
        self.ancestors.last().copied()
    }

    /// The path of the parent.
    pub fn up(&self) -> Option<Self> {
        let mut path = self.clone();
        path.node = path.ancestors.pop()?;
        Some(path)
    }

    /// Number of ancestors: 0 for the root.
    pub fn depth(&self) -> usize {
        self.ancestors.len()
    }

    /// The first of this node and its ancestors that answers.
    pub fn inherited<T>(&self, ask: impl FnMut(&Node<'a>) -> Option<T>) -> Option<T> {
        core::iter::once(&self.node).chain(self.ancestors.iter().rev()).find_map(ask)
    }

    /// Whether DMA of the device is coherent with the CPUs' caches, as it or its nearest bus says.
    pub fn is_coherent(&self) -> bool {
        self.inherited(|node| match (node.has("dma-noncoherent"), node.has("dma-coherent")) {
            (true, _) => Some(false),
            (false, true) => Some(true),
            (false, false) => None,
        })
        .unwrap_or(false)
    }

    /// Entries of `reg`, as CPU addresses; `None` for one that is empty or outside of its bus.
    pub fn regs(&self) -> impl Iterator<Item = Option<AddrRange<PhysAddr>>> {
        self.bus_regs().map(|(address, size_bytes)| self.translate(address, size_bytes))
    }

    /// Entries of `reg` as the node's bus addresses them: address and size in bytes.
    pub fn bus_regs(&self) -> impl Iterator<Item = (u64, u64)> {
        let (address_cells, size_cells) = self.parent().map_or((2, 1), Node::child_cells);
        let mut cells = self.node().property("reg").map_or(Cells::default(), Value::cells);
        let next = move || Some((cells.number(address_cells)?, cells.number(size_cells)?));
        // An entry of no cells would never end.
        let limit = if address_cells == 0 && size_cells == 0 { 0 } else { usize::MAX };
        core::iter::from_fn(next).take(limit)
    }

    /// The entry of `reg` at `place`, which must exist.
    pub fn reg(&self, place: usize) -> Result<AddrRange<PhysAddr>, MachineError> {
        self.regs().nth(place).flatten().ok_or(self.node().bad("reg"))
    }

    /// CPU addresses of `size_bytes` bytes at `address` on this node's bus, through the `ranges` of every bus above.
    pub fn translate(&self, address: u64, size_bytes: u64) -> Option<AddrRange<PhysAddr>> {
        let mut address = address;
        let buses = self.ancestors.iter().rev();
        for (bus, above) in buses.clone().zip(buses.skip(1)) {
            address = through_ranges(*bus, *above, address, size_bytes)?;
        }
        AddrRange::new(PhysAddr::new(address), size_bytes)
    }
}

/// `address` of `bus` as an address of the bus above it (Devicetree Specification 2.3.8).
fn through_ranges(bus: Node<'_>, above: Node<'_>, address: u64, size_bytes: u64) -> Option<u64> {
    let ranges = bus.property("ranges")?;
    if ranges.is_empty() {
        return Some(address);
    }
    let (child_cells, size_cells) = bus.child_cells();
    let (parent_cells, _) = above.child_cells();
    let mut cells = ranges.cells();
    while !cells.is_empty() && size_cells > 0 {
        let child = cells.number(child_cells)?;
        let parent = cells.number(parent_cells)?;
        let size = cells.number(size_cells)?;
        let Some(offset) = address.checked_sub(child) else { continue };
        if offset.checked_add(size_bytes).is_some_and(|end| end <= size) {
            return parent.checked_add(offset);
        }
    }
    None
}
