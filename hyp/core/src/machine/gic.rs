//! The interrupt controller and the timer's interrupts.

use heapless::Vec;

use super::{
    ITS_MAX, Machine,
    error::MachineError,
    interrupt::{Controller, Interrupt},
    read::push,
    tree::{Path, Tree},
};
use crate::addr::{AddrRange, PhysAddr};

/// Most regions of redistributors.
pub const REDISTRIBUTOR_REGIONS_MAX: usize = 8;

const V3: [&str; 1] = ["arm,gic-v3"];
const V2: [&str; 4] = ["arm,gic-400", "arm,cortex-a15-gic", "arm,cortex-a7-gic", "arm,gic-v2"];
const ITS: [&str; 1] = ["arm,gic-v3-its"];
const TIMER: [&str; 1] = ["arm,armv8-timer"];

/// The interrupt controller.
#[derive(Clone, Debug)]
pub enum Gic {
    /// GICv3 or GICv4.
    V3(GicV3),
    /// GICv2 (GIC-400).
    V2(GicV2),
}

/// A GICv3 (binding arm,gic-v3).
#[derive(Clone, Debug)]
pub struct GicV3 {
    /// Distributor.
    pub distributor: AddrRange<PhysAddr>,
    /// Regions of redistributors, each with frames until GICR_TYPER.Last.
    pub redistributors: Vec<AddrRange<PhysAddr>, REDISTRIBUTOR_REGIONS_MAX>,
    /// Bytes from one redistributor to the next where the binding says so.
    pub redistributor_stride: Option<u64>,
    /// Maintenance interrupt of the virtual CPU interface.
    pub maintenance: Option<Interrupt>,
    /// Interrupt translation services: control and translation frame of each.
    pub its: Vec<AddrRange<PhysAddr>, ITS_MAX>,
}

/// A GICv2 (binding arm,gic).
#[derive(Clone, Copy, Debug)]
pub struct GicV2 {
    /// Distributor, GICD.
    pub distributor: AddrRange<PhysAddr>,
    /// CPU interface, GICC.
    pub cpu_interface: AddrRange<PhysAddr>,
    /// Virtual interface control, GICH, where there is one.
    pub virtual_control: Option<AddrRange<PhysAddr>>,
    /// Virtual CPU interface, GICV, where there is one.
    pub virtual_cpu_interface: Option<AddrRange<PhysAddr>>,
    /// Maintenance interrupt.
    pub maintenance: Option<Interrupt>,
}

/// Interrupts of the generic timer (binding arm,armv8-timer).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timers {
    /// EL1 physical timer, usually INTID 30.
    pub physical: Option<Interrupt>,
    /// EL1 virtual timer, usually INTID 27.
    pub virtual_: Option<Interrupt>,
    /// EL2 physical timer, usually INTID 26.
    pub hypervisor: Option<Interrupt>,
}

/// Finds the GIC: its description goes to `machine`, how to read its specifiers is returned.
pub fn read(tree: &Tree<'_>, machine: &mut Machine) -> Result<Option<Controller>, MachineError> {
    let mut controller = None;
    tree.visit(|path| {
        let node = path.node();
        let is_v3 = node.is_compatible(&V3);
        if machine.gic.is_some() || !(is_v3 || node.is_compatible(&V2)) {
            return Ok(());
        }
        let cells = node.cell("#interrupt-cells").and_then(|cells| usize::try_from(cells).ok());
        let cells = cells.filter(|cells| (3..=4).contains(cells)).ok_or(node.bad("#interrupt-cells"))?;
        let this = Controller { phandle: node.phandle().ok_or(node.bad("phandle"))?, cells };
        let maintenance = node.property("interrupts").and_then(|value| this.decode(&mut value.cells()));
        controller = Some(this);
        machine.gic =
            Some(if is_v3 { Gic::V3(read_v3(path, maintenance)?) } else { Gic::V2(read_v2(path, maintenance)?) });
        Ok(())
    })?;
    tree.visit(|path| match &mut machine.gic {
        Some(Gic::V3(gic)) if path.node().is_compatible(&ITS) => {
            push(&mut gic.its, path.reg(0)?, "interrupt translation services")
        }
        _ => Ok(()),
    })?;
    Ok(controller)
}

fn read_v3(path: &Path<'_>, maintenance: Option<Interrupt>) -> Result<GicV3, MachineError> {
    let node = path.node();
    let regions = node.cell("#redistributor-regions").unwrap_or(1);
    let regions = usize::try_from(regions).map_err(|_| node.bad("#redistributor-regions"))?;
    let mut redistributors = Vec::new();
    for region in path.regs().skip(1).take(regions) {
        push(&mut redistributors, region.ok_or(node.bad("reg"))?, "redistributor regions")?;
    }
    if redistributors.len() != regions || regions == 0 {
        return Err(node.bad("reg"));
    }
    Ok(GicV3 {
        distributor: path.reg(0)?,
        redistributors,
        redistributor_stride: node.property("redistributor-stride").and_then(|stride| stride.number()),
        maintenance,
        its: Vec::new(),
    })
}

fn read_v2(path: &Path<'_>, maintenance: Option<Interrupt>) -> Result<GicV2, MachineError> {
    Ok(GicV2 {
        distributor: path.reg(0)?,
        cpu_interface: path.reg(1)?,
        virtual_control: path.regs().nth(2).flatten(),
        virtual_cpu_interface: path.regs().nth(3).flatten(),
        maintenance,
    })
}

/// Reads the generic timer's interrupts where `path` is its node.
pub fn read_timers(tree: &Tree<'_>, path: &Path<'_>, gic: Controller, timers: &mut Timers) {
    if !path.node().is_compatible(&TIMER) {
        return;
    }
    let interrupt = |name, place| gic.interrupt(tree, path, name, place);
    *timers =
        Timers { physical: interrupt("phys", 1), virtual_: interrupt("virt", 2), hypervisor: interrupt("hyp-phys", 3) };
}
