//! Which sections of the hypervisor's object nothing but the boot reaches, and which nothing but the way to a virtio IOMMU.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use object::{
    LittleEndian, Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionFlags,
    elf::{
        R_AARCH64_CALL26, R_AARCH64_CONDBR19, R_AARCH64_JUMP26, R_AARCH64_TSTBR14, SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE,
    },
    read::elf::ElfFile64,
};

/// Where CPUs go on when their boot is over, as [`rustc_demangle`] writes it.
const AFTER_BOOT: &str = "bulkhead_el2::idle::after_boot";
/// The exception vectors, entered at any time.
const VECTORS: &str = ".text.vectors";
/// Functions that nothing calls where no VM is behind a virtio IOMMU, as [`rustc_demangle`] writes their module.
pub const GATES: &str = "bulkhead_el2::viommu::gate::";
/// The image's head: entered from outside and left for good, so it is boot-only whatever refers to it.
const HEAD: &str = ".head.text";

/// Refers to every function, and is not linked.
const UNWIND: &str = ".eh_frame";

/// Names of sections, each the linker's to place.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sections {
    /// Of code.
    pub text: BTreeSet<String>,
    /// Of constants with pointers, vtables among them.
    pub data: BTreeSet<String>,
}

/// One section that is loaded, and what it refers to.
#[derive(Debug, Default)]
struct Node {
    name: String,
    /// Demangled, of the first function in it.
    function: String,
    is_code: bool,
    is_written: bool,
    calls: BTreeSet<usize>,
    /// Everything else that names another section: a pointer to it may go anywhere.
    names: BTreeSet<usize>,
}

/// What does not stay, or not always.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// Reached by the boot alone.
    pub boot: Sections,
    /// Reached by [`GATES`] alone: it stays where a VM is behind a virtio IOMMU.
    pub viommu: Sections,
}

type Graph = BTreeMap<usize, Node>;

/// Tells what stays from what does not, in `object` as the compiler made it: a section a function, a section a constant.
///
/// # Errors
/// When `object` is no ELF object, or has no vectors, no function that CPUs go on in after their boot, or no gate.
pub fn find(object: &[u8]) -> Result<Partition> {
    found(graph(object)?)
}

fn found(graph: Graph) -> Result<Partition> {
    let staying = staying(&graph)?;
    let boot = sections(&graph, |index| !staying.contains(&index));
    let mut closed = graph;
    let gates: Vec<_> = closed.extract_if(.., |_, node| node.function.starts_with(GATES)).collect();
    ensure!(!gates.is_empty(), "the hypervisor's object has no {GATES}: nothing can be told from what stays");
    let mut always = self::staying(&closed)?;
    // They are called from there, and go no further.
    gates.iter().for_each(|(index, _)| {
        always.remove(index);
    });
    closed.extend(gates);
    let viommu = sections(&closed, |index| staying.contains(&index) && !always.contains(&index));
    Ok(Partition { boot, viommu })
}

/// What can be reached after boot.
fn staying(graph: &Graph) -> Result<BTreeSet<usize>> {
    let mut staying = roots(graph)?;
    mark(graph, &mut staying);
    while keep_what_may_escape(graph, &mut staying) {
        mark(graph, &mut staying);
    }
    Ok(staying)
}

/// Sections that the linker may place apart, of the nodes for which `is_apart` holds.
fn sections(graph: &Graph, is_apart: impl Fn(usize) -> bool) -> Sections {
    let mut found = Sections::default();
    for (_, node) in graph.iter().filter(|(index, node)| is_apart(**index) && node.name != HEAD) {
        if node.name.starts_with(".text.") {
            found.text.insert(node.name.clone());
        } else if node.name.starts_with(".data.rel.ro") {
            found.data.insert(node.name.clone());
        }
    }
    // Two sections may have one name: the linker places both.
    for (_, node) in graph.iter().filter(|(index, _)| !is_apart(**index)) {
        found.text.remove(&node.name);
        found.data.remove(&node.name);
    }
    found
}

fn graph(object: &[u8]) -> Result<Graph> {
    let file = ElfFile64::<LittleEndian>::parse(object).context("the hypervisor's object")?;
    let mut graph = Graph::new();
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        let has = |flag: u32| sh_flags & u64::from(flag) != 0;
        let name = section.name()?.to_owned();
        if !has(SHF_ALLOC) || name == UNWIND {
            continue;
        }
        let is_written = has(SHF_WRITE) && !name.starts_with(".data.rel.ro");
        let mut node = Node { name, is_code: has(SHF_EXECINSTR), is_written, ..Node::default() };
        for (_, relocation) in section.relocations() {
            let RelocationTarget::Symbol(symbol) = relocation.target() else { continue };
            let Some(target) = file.symbol_by_index(symbol)?.section_index() else { continue };
            let RelocationFlags::Elf { r_type } = relocation.flags() else { continue };
            let is_branch =
                [R_AARCH64_CALL26, R_AARCH64_JUMP26, R_AARCH64_CONDBR19, R_AARCH64_TSTBR14].contains(&r_type);
            if is_branch { &mut node.calls } else { &mut node.names }.insert(target.0);
        }
        graph.insert(section.index().0, node);
    }
    for symbol in file.symbols().filter(|symbol| symbol.kind() == object::SymbolKind::Text) {
        if let Some(node) = symbol.section_index().and_then(|index| graph.get_mut(&index.0)) {
            node.function = format!("{:#}", rustc_demangle::demangle(symbol.name()?));
        }
    }
    Ok(graph)
}

/// Vectors, what CPUs do after their boot, and all that is written: a pointer in there may be called at any time.
fn roots(graph: &Graph) -> Result<BTreeSet<usize>> {
    for (what, is_there) in [
        (VECTORS, graph.values().any(|node| node.name == VECTORS)),
        (AFTER_BOOT, graph.values().any(|node| node.function == AFTER_BOOT)),
    ] {
        ensure!(is_there, "the hypervisor's object has no {what}: what stays after boot cannot be told");
    }
    let is_root = |node: &Node| node.is_written || node.name == VECTORS || node.function == AFTER_BOOT;
    Ok(graph.iter().filter(|(_, node)| is_root(node)).map(|(index, _)| *index).collect())
}

/// Adds everything that `staying` reaches.
fn mark(graph: &Graph, staying: &mut BTreeSet<usize>) {
    let mut left: Vec<_> = staying.iter().copied().collect();
    while let Some(index) = left.pop() {
        let Some(node) = graph.get(&index) else { continue };
        left.extend(node.calls.union(&node.names).filter(|target| staying.insert(**target)));
    }
}

/// Adds functions whose address boot-only code takes: it may have been left in memory for those that stay, as a logger
/// is. Not so for `core::fmt`: what is printed is borrowed for the call. Whether anything was added.
fn keep_what_may_escape(graph: &Graph, staying: &mut BTreeSet<usize>) -> bool {
    let before = staying.len();
    let boot_only = graph.iter().filter(|(index, node)| !staying.contains(index) && node.name != HEAD);
    let named: Vec<_> =
        boot_only.flat_map(|(index, node)| node.names.iter().filter(move |target| *target != index)).collect();
    for target in named {
        let Some(node) = graph.get(target) else { continue };
        if node.is_code && node.name != HEAD && !is_of_fmt(&node.function) {
            staying.insert(*target);
        }
    }
    staying.len() > before
}

/// Whether a function implements a trait of `core::fmt`, or is the formatting of one.
fn is_of_fmt(function: &str) -> bool {
    function.contains(" as core::fmt::")
        || function.contains("<impl core::fmt::")
        || function.starts_with("core::fmt::")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{AFTER_BOOT, GATES, Graph, HEAD, Node, VECTORS, found, roots};

    /// Nodes of (section, function, calls, names).
    fn graph(nodes: &[(&str, &str, &[usize], &[usize])]) -> Graph {
        let node = |(name, function, calls, names): &(&str, &str, &[usize], &[usize])| Node {
            name: (*name).to_owned(),
            function: (*function).to_owned(),
            is_code: name.starts_with(".text") || *name == HEAD,
            is_written: name.starts_with(".data.") && !name.starts_with(".data.rel.ro"),
            calls: calls.iter().copied().collect(),
            names: names.iter().copied().collect(),
        };
        nodes.iter().map(node).enumerate().collect()
    }

    /// Would miss: something that stays placed with what goes, by each of the ways that it can be reached.
    #[test]
    fn what_can_be_reached_after_boot_stays() {
        let graph = graph(&[
            (HEAD, "", &[1, 15], &[]),
            (".text.boot", "boot", &[2, 3, 4], &[5, 7, 8, 12]),
            (".text.after", AFTER_BOOT, &[4], &[]),
            (".text.parse", "parse", &[], &[]),
            (".text.shared", "shared", &[], &[]),
            (".data.rel.ro.logger", "", &[], &[6]),
            (".text.log", "<Logger as log::Log>::log", &[9], &[]),
            (".data.rel.ro.shown", "", &[], &[10]),
            (".data.STATE", "", &[], &[11]),
            (".text.deep", "deep", &[], &[]),
            (".text.fmt", "<Problem as core::fmt::Display>::fmt", &[], &[]),
            (".text.written", "written", &[], &[]),
            (".text.callback", "callback", &[], &[]),
            (VECTORS, "", &[14], &[]),
            (".text.exit", "exit", &[], &[15]),
            (".text.gate", &format!("{GATES}write"), &[4, 16], &[17]),
            (".text.domain", "domain", &[], &[]),
            (".data.rel.ro.refused", "", &[], &[18]),
            (".text.refused", "<Refused as core::fmt::Display>::fmt", &[], &[]),
        ]);
        let found = found(graph).expect("vectors, a function after boot and a gate");
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(found.boot.text, set(&[".text.boot", ".text.parse", ".text.fmt"]));
        // The logger's vtable is boot-only, what it leads to is not: its address may be anywhere.
        assert_eq!(found.boot.data, set(&[".data.rel.ro.logger", ".data.rel.ro.shown"]));
        assert_eq!(found.viommu.text, set(&[".text.gate", ".text.domain", ".text.refused"]));
        assert_eq!(found.viommu.data, set(&[".data.rel.ro.refused"]));
    }

    /// Would miss: an image in which no gate has the name that they are known by, and all of it stays.
    #[test]
    fn gates_must_be_there() {
        let graph = graph(&[(".text.after", AFTER_BOOT, &[], &[]), (VECTORS, "", &[], &[])]);
        assert!(found(graph).expect_err("no gate").to_string().contains(GATES));
    }

    /// Would miss: everything taken for boot-only once a root has another name.
    #[test]
    fn roots_that_are_missing_are_named() {
        for (missing, other) in [(VECTORS, (".text.after", AFTER_BOOT)), (AFTER_BOOT, (VECTORS, ""))] {
            let problem = roots(&graph(&[(other.0, other.1, &[], &[])])).expect_err("one root is missing");
            assert!(problem.to_string().contains(missing), "{problem}");
        }
    }
}
