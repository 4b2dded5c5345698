//! Which sections of the hypervisor's object nothing but the boot reaches.

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
/// The image's head: entered from outside and left for good, so it is boot-only whatever refers to it.
const HEAD: &str = ".head.text";

/// Refers to every function, and is not linked.
const UNWIND: &str = ".eh_frame";

/// Names of sections, each the linker's to place.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BootOnly {
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

type Graph = BTreeMap<usize, Node>;

/// Tells what stays from what does not, in `object` as the compiler made it: a section a function, a section a constant.
///
/// # Errors
/// When `object` is no ELF object, or has no vectors, or no function that CPUs go on in after their boot.
pub fn find(object: &[u8]) -> Result<BootOnly> {
    found(&graph(object)?)
}

fn found(graph: &Graph) -> Result<BootOnly> {
    let mut staying = roots(graph)?;
    mark(graph, &mut staying);
    while keep_what_may_escape(graph, &mut staying) {
        mark(graph, &mut staying);
    }
    let mut found = BootOnly::default();
    for (_, node) in graph.iter().filter(|(index, node)| !staying.contains(index) && node.name != HEAD) {
        if node.name.starts_with(".text.") {
            found.text.insert(node.name.clone());
        } else if node.name.starts_with(".data.rel.ro") {
            found.data.insert(node.name.clone());
        }
    }
    // Two sections may have one name: the linker places both.
    for (_, node) in graph.iter().filter(|(index, _)| staying.contains(index)) {
        found.text.remove(&node.name);
        found.data.remove(&node.name);
    }
    Ok(found)
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
    while let Some(node) = left.pop().and_then(|index| graph.get(&index)) {
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

    use super::{AFTER_BOOT, Graph, HEAD, Node, VECTORS, found, roots};

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
            (HEAD, "", &[1], &[]),
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
            (".text.exit", "exit", &[], &[]),
        ]);
        let found = found(&graph).expect("vectors and a function after boot");
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(found.text, set(&[".text.boot", ".text.parse", ".text.fmt"]));
        // The logger's vtable is boot-only, what it leads to is not: its address may be anywhere.
        assert_eq!(found.data, set(&[".data.rel.ro.logger", ".data.rel.ro.shown"]));
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
