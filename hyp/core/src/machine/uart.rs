//! The UART of the console.

use super::{
    error::MachineError,
    interrupt::{Controller, Interrupt},
    tree::{Node, Path, Tree},
};
use crate::addr::{AddrRange, PhysAddr};

const PL011: [&str; 2] = ["arm,pl011", "arm,sbsa-uart"];
const DW8250: [&str; 4] = ["snps,dw-apb-uart", "ns16550a", "ns16550", "brcm,bcm2835-aux-uart"];

/// What kind of UART.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UartKind {
    /// Arm PL011 or an SBSA generic UART.
    Pl011,
    /// A 16550 and its kin.
    Dw8250 {
        /// Registers are `1 << reg_shift` bytes apart.
        reg_shift: u8,
        /// Bytes of one access: 1 or 4.
        io_width: u8,
    },
}

/// A UART.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uart {
    /// Its kind.
    pub kind: UartKind,
    /// Its registers.
    pub registers: AddrRange<PhysAddr>,
    /// Its interrupt.
    pub interrupt: Option<Interrupt>,
}

/// The UART that `/chosen/stdout-path` names, by path or by alias, else the first one: better than no word at all.
pub fn read(tree: &Tree<'_>, gic: Option<Controller>) -> Result<Option<Uart>, MachineError> {
    if let Some(path) = stdout(tree)
        && let Some(uart) = read_node(tree, &path, gic)?
    {
        return Ok(Some(uart));
    }
    let mut first = None;
    tree.visit(|path| {
        // One that cannot be read is passed over: it was not asked for.
        if first.is_none() {
            first = read_node(tree, path, gic).ok().flatten();
        }
        Ok(())
    })?;
    Ok(first)
}

fn read_node(tree: &Tree<'_>, path: &Path<'_>, gic: Option<Controller>) -> Result<Option<Uart>, MachineError> {
    let node = path.node();
    let kind = match (node.is_compatible(&PL011), node.is_compatible(&DW8250)) {
        (true, _) => UartKind::Pl011,
        (false, true) => dw8250(node)?,
        (false, false) => return Ok(None),
    };
    let interrupt = gic.and_then(|gic| gic.nth(tree, path, 0));
    Ok(Some(Uart { kind, registers: path.reg(0)?, interrupt }))
}

fn dw8250(node: Node<'_>) -> Result<UartKind, MachineError> {
    // The Raspberry Pi's has its registers four bytes apart and does not say so.
    let is_aux = node.is_compatible(&["brcm,bcm2835-aux-uart"]);
    let reg_shift = node.cell("reg-shift").unwrap_or(if is_aux { 2 } else { 0 });
    let io_width = node.cell("reg-io-width").unwrap_or(if is_aux { 4 } else { 1 });
    match (u8::try_from(reg_shift), io_width) {
        (Ok(reg_shift @ 0..=4), 1 | 4) => {
            Ok(UartKind::Dw8250 { reg_shift, io_width: if io_width == 4 { 4 } else { 1 } })
        }
        _ => Err(node.bad("reg-io-width")),
    }
}

fn stdout<'a>(tree: &Tree<'a>) -> Option<Path<'a>> {
    let chosen = tree.by_path("/chosen")?.node();
    let value = chosen.property("stdout-path").or_else(|| chosen.property("linux,stdout-path"))?;
    // "path:options", as in "serial0:115200n8".
    let path = value.text()?.split(':').next()?;
    if path.starts_with('/') {
        return tree.by_path(path);
    }
    let aliases = tree.by_path("/aliases")?.node();
    tree.by_path(aliases.property(path)?.text()?)
}
