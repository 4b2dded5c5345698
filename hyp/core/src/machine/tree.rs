//! Nodes, properties and addresses of a device tree: the only user of the `fdt` crate.
//!
//! Of the crate only nodes and raw property values are used, in its fallible mode, and only on a checked
//! [`Frame`]: its typed properties assume cell counts that real trees do not have.

use fdt::{
    Fdt,
    helpers::UnalignedFallibleNode,
    nodes::{AsNode, NodeChildrenIter},
    parsing::{NoPanic, unaligned::UnalignedParser},
};
use heapless::Vec;

use super::{
    error::{Label, MachineError},
    frame::{DEPTH_MAX, Frame},
};
use crate::addr::{AddrRange, PhysAddr};

type Mode<'a> = (UnalignedParser<'a>, NoPanic);

/// A device tree whose structure was checked.
pub struct Tree<'a> {
    fdt: Fdt<'a, Mode<'a>>,
    frame: Frame<'a>,
}

impl<'a> Tree<'a> {
    /// Checks and opens the tree at the start of `dtb`.
    pub fn open(dtb: &'a [u8]) -> Result<Self, MachineError> {
        let frame = Frame::check(dtb)?;
        let fdt = Fdt::new_unaligned_fallible(frame.bytes).map_err(|_| unreadable())?;
        Ok(Self { fdt, frame })
    }

    /// Entries (address, size in bytes) of the memory reservation block; a pair of zeros ends it.
    pub fn reservations(&self) -> impl Iterator<Item = (u64, u64)> + 'a {
        let entries = self.frame.reservations.as_chunks::<16>().0;
        entries.iter().map(pair).take_while(|&entry| entry != (0, 0))
    }

    /// The root node.
    pub fn root(&self) -> Result<Node<'a>, MachineError> {
        let root = self.fdt.root().map_err(|_| unreadable())?;
        Ok(Node(root.as_node()))
    }

    /// Visits every enabled node before its children; children of a disabled node are not visited.
    pub fn visit(&self, mut each: impl FnMut(&Path<'a>) -> Result<(), MachineError>) -> Result<(), MachineError> {
        let mut walk = Walk::new(self.root()?)?;
        while let Some(path) = walk.next(true)? {
            each(path)?;
        }
        Ok(())
    }

    /// The first node, disabled ones included, that `matches`.
    fn find(&self, mut matches: impl FnMut(&Path<'a>) -> bool) -> Option<Path<'a>> {
        let mut walk = Walk::new(self.root().ok()?).ok()?;
        while let Ok(Some(path)) = walk.next(false) {
            if matches(path) {
                return Some(path.clone());
            }
        }
        None
    }

    /// The node with this phandle.
    pub fn by_phandle(&self, phandle: u32) -> Option<Path<'a>> {
        self.find(|path| path.node().phandle() == Some(phandle))
    }

    /// The node at an absolute path; a component without a unit address matches the first node of that name.
    pub fn by_path(&self, path: &str) -> Option<Path<'a>> {
        let mut found = Path::new(self.root().ok()?);
        for component in path.split('/').filter(|component| !component.is_empty()) {
            let mut children = found.node().children().ok()?;
            let child = children.find_map(|child| child.ok().filter(|child| child.is_called(component)))?;
            found.descend(child).ok()?;
        }
        Some(found)
    }
}

/// One node.
#[derive(Clone, Copy)]
pub struct Node<'a>(UnalignedFallibleNode<'a>);

impl<'a> Node<'a> {
    /// Name without the unit address.
    pub fn base_name(self) -> &'a str {
        self.0.name().map_or("", |name| name.name)
    }

    fn is_called(self, component: &str) -> bool {
        let Ok(name) = self.0.name() else { return false };
        match (component.split_once('@'), name.unit_address) {
            (Some((base, unit)), Some(address)) => name.name == base && address == unit,
            (Some(_), None) => false,
            (None, _) => name.name == component,
        }
    }

    /// Its name for a message.
    pub fn label(self) -> Label {
        Label::new(self.base_name())
    }

    /// The value of a property, if the node has it.
    pub fn property(self, name: &str) -> Option<Value<'a>> {
        let property = self.0.raw_property(name).ok()??;
        Some(Value(property.value))
    }

    /// Whether the node has a property.
    pub fn has(self, name: &str) -> bool {
        self.property(name).is_some()
    }

    /// A property of one cell.
    pub fn cell(self, name: &str) -> Option<u32> {
        self.property(name)?.cell()
    }

    /// Whether one of its `compatible` strings is one of `names`.
    pub fn is_compatible(self, names: &[&str]) -> bool {
        self.property("compatible").is_some_and(|value| value.strings().any(|string| names.contains(&string)))
    }

    /// Whether `status` is absent, "okay" or "ok".
    pub fn is_enabled(self) -> bool {
        self.property("status").is_none_or(|status| matches!(status.text(), Some("okay" | "ok")))
    }

    /// Its phandle.
    pub fn phandle(self) -> Option<u32> {
        self.cell("phandle").or_else(|| self.cell("linux,phandle"))
    }

    /// The children, disabled ones included.
    pub fn children(self) -> Result<impl Iterator<Item = Result<Node<'a>, MachineError>>, MachineError> {
        Ok(self.child_iter()?.map(|child| child.map(Node).map_err(|_| unreadable())))
    }

    fn child_iter(self) -> Result<NodeChildrenIter<'a, Mode<'a>>, MachineError> {
        Ok(self.0.children().map_err(|_| unreadable())?.iter())
    }

    /// `#address-cells` and `#size-cells` for its children, which default to 2 and 1.
    pub fn child_cells(self) -> (usize, usize) {
        let count = |name, default| self.cell(name).and_then(|cells| usize::try_from(cells).ok()).unwrap_or(default);
        (count("#address-cells", 2), count("#size-cells", 1))
    }

    /// The error for a property of this node.
    pub fn bad(self, property: &'static str) -> MachineError {
        MachineError::BadProperty { node: self.label(), property }
    }
}

/// The bytes of a property.
#[derive(Clone, Copy)]
pub struct Value<'a>(&'a [u8]);

impl<'a> Value<'a> {
    /// Whether there are no bytes.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The cells, a remainder of less than four bytes left out.
    pub fn cells(self) -> Cells<'a> {
        Cells(self.0)
    }

    /// The one cell.
    pub fn cell(self) -> Option<u32> {
        Some(u32::from_be_bytes(self.0.try_into().ok()?))
    }

    /// A number of one or two cells, by the length.
    pub fn number(self) -> Option<u64> {
        match self.0.len() {
            4 | 8 => self.cells().number(self.0.len() / 4),
            _ => None,
        }
    }

    /// The text up to the first zero byte.
    pub fn text(self) -> Option<&'a str> {
        self.strings().next()
    }

    /// The texts, each ended by a zero byte.
    pub fn strings(self) -> impl Iterator<Item = &'a str> {
        let ended = self.0.strip_suffix(&[0]).unwrap_or(self.0);
        ended.split(|&byte| byte == 0).map(|text| core::str::from_utf8(text).unwrap_or(""))
    }
}

/// Reads cells one after the other.
#[derive(Clone, Copy)]
pub struct Cells<'a>(&'a [u8]);

impl Cells<'_> {
    /// Whether fewer than four bytes are left.
    pub fn is_empty(self) -> bool {
        self.0.len() < 4
    }

    /// A number of `count` cells, at most two; zero cells are the number 0.
    pub fn number(&mut self, count: usize) -> Option<u64> {
        match count {
            0 => Some(0),
            1 => Some(u64::from(self.next()?)),
            2 => Some(u64::from(self.next()?) << 32 | u64::from(self.next()?)),
            _ => None,
        }
    }

    /// Leaves `count` cells out.
    pub fn skip_cells(&mut self, count: usize) -> Option<()> {
        self.0 = self.0.get(count.checked_mul(4)?..)?;
        Some(())
    }
}

impl Iterator for Cells<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (cell, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*cell))
    }
}

/// A node and its ancestors.
#[derive(Clone)]
pub struct Path<'a> {
    /// The root first, the parent last.
    ancestors: Vec<Node<'a>, DEPTH_MAX>,
    node: Node<'a>,
}

impl<'a> Path<'a> {
    const fn new(root: Node<'a>) -> Self {
        Self { ancestors: Vec::new(), node: root }
    }

    fn descend(&mut self, child: Node<'a>) -> Result<(), MachineError> {
        self.ancestors.push(self.node).map_err(|_| unreadable())?;
        self.node = child;
        Ok(())
    }

    fn ascend(&mut self) {
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
        let mut cells = self.node().property("reg").map_or(Cells(&[]), Value::cells);
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

/// A walk over the tree, each node before its children, without recursion.
struct Walk<'a> {
    path: Path<'a>,
    /// Children yet to come of each node of the path.
    children: Vec<NodeChildrenIter<'a, Mode<'a>>, DEPTH_MAX>,
    is_started: bool,
}

impl<'a> Walk<'a> {
    fn new(root: Node<'a>) -> Result<Self, MachineError> {
        let mut children = Vec::new();
        children.push(root.child_iter()?).map_err(|_| unreadable())?;
        Ok(Self { path: Path::new(root), children, is_started: false })
    }

    fn next(&mut self, is_enabled_only: bool) -> Result<Option<&Path<'a>>, MachineError> {
        if !self.is_started {
            self.is_started = true;
            return Ok(Some(&self.path));
        }
        while let Some(siblings) = self.children.last_mut() {
            let Some(child) = siblings.next() else {
                self.children.pop();
                self.path.ascend();
                continue;
            };
            let child = Node(child.map_err(|_| unreadable())?);
            if is_enabled_only && !child.is_enabled() {
                continue;
            }
            self.children.push(child.child_iter()?).map_err(|_| unreadable())?;
            self.path.descend(child)?;
            return Ok(Some(&self.path));
        }
        Ok(None)
    }
}

fn pair(entry: &[u8; 16]) -> (u64, u64) {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    let (address, size_bytes) = entry.split_at(8);
    (number(address), number(size_bytes))
}

const fn unreadable() -> MachineError {
    MachineError::Malformed { offset: 0, what: "nodes that cannot be read" }
}
