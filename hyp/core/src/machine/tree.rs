//! Nodes, properties and addresses of a device tree: the only user of the `fdt` crate.
//!
//! Of the crate only nodes and raw property values are used, in its fallible mode, and only on a checked
//! [`Frame`]: its typed properties assume cell counts that real trees do not have.

mod path;
mod value;

use fdt::{
    Fdt,
    helpers::UnalignedFallibleNode,
    nodes::{AsNode, NodeChildrenIter},
    parsing::{NoPanic, unaligned::UnalignedParser},
};
use heapless::Vec;

pub use self::{
    path::Path,
    value::{Cells, Value},
};
use super::{
    error::{Label, MachineError},
    frame::{DEPTH_MAX, Frame},
};

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
    fn find(&self, matches: impl Fn(&Path<'a>) -> bool) -> Option<Path<'a>> {
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
        Some(Value::new(property.value))
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
