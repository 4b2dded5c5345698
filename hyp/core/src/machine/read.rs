//! Puts a machine together from its tree: GIC first, then SMMUs, then what refers to them.

use heapless::{String, Vec};

use super::{
    Machine, cpu,
    error::MachineError,
    gic, memory, pci, pmcg, smmu,
    tree::{Tree, Value},
    uart::{self, Uart},
};
use crate::addr::{AddrRange, PhysAddr};

/// Reads everything.
pub fn machine(dtb: &[u8]) -> Result<Machine, MachineError> {
    let tree = Tree::open(dtb)?;
    let mut machine = Machine::default();
    let controller = gic::read(&tree, &mut machine)?;
    tree.visit(|path| {
        cpu::read(path, &mut machine)?;
        memory::read(path, &mut machine)?;
        smmu::read(&tree, path, controller, &mut machine)?;
        pmcg::read(path, &mut machine)?;
        if let Some(controller) = controller {
            gic::read_timers(&tree, path, controller, &mut machine.timers);
        }
        Ok(())
    })?;
    tree.visit(|path| pci::read(&tree, path, controller, &mut machine))?;
    tree.visit(|path| memory::read_device_reservations(&tree, path, &mut machine))?;
    memory::read_block(&tree, &mut machine)?;
    machine.console = uart::read(&tree, controller)?;
    read_root(&tree, &mut machine)?;
    read_chosen(&tree, &mut machine)?;
    Ok(machine)
}

/// Reads the console alone.
pub fn console(dtb: &[u8]) -> Result<Option<Uart>, MachineError> {
    uart::read(&Tree::open(dtb)?, None)
}

fn read_root(tree: &Tree<'_>, machine: &mut Machine) -> Result<(), MachineError> {
    let root = tree.root()?;
    machine.model = cut(root.property("model"));
    if let Some(compatible) = root.property("compatible") {
        machine.compatible = compatible.strings().map(cut_text).take(machine.compatible.capacity()).collect();
    }
    Ok(())
}

fn read_chosen(tree: &Tree<'_>, machine: &mut Machine) -> Result<(), MachineError> {
    let Some(chosen) = tree.by_path("/chosen") else { return Ok(()) };
    let node = chosen.node();
    machine.bootargs = cut(node.property("bootargs"));
    let number = |name| node.property(name).map(|value: Value<'_>| value.number().map(PhysAddr::new));
    machine.initrd = match (number("linux,initrd-start"), number("linux,initrd-end")) {
        (None, None) => None,
        (Some(Some(start)), Some(Some(end))) => AddrRange::between(start, end),
        _ => return Err(node.bad("linux,initrd-start")),
    };
    Ok(())
}

fn cut<const N: usize>(value: Option<Value<'_>>) -> String<N> {
    cut_text(value.and_then(Value::text).unwrap_or(""))
}

/// The characters of `text` that fit.
fn cut_text<const N: usize>(text: &str) -> String<N> {
    let mut cut = String::new();
    for character in text.chars() {
        if cut.push(character).is_err() {
            break;
        }
    }
    cut
}

/// Adds `item`, or says that there is no room for it.
pub fn push<T, const N: usize>(list: &mut Vec<T, N>, item: T, what: &'static str) -> Result<(), MachineError> {
    list.push(item).map_err(|_| MachineError::TooMany { what, limit: N })
}
