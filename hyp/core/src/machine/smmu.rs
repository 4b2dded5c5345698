//! SMMUs: where they are and by which interrupts they call.

use super::{
    Machine,
    error::MachineError,
    interrupt::{Controller, Interrupt},
    read::push,
    tree::{Path, Tree},
};
use crate::addr::{AddrRange, PhysAddr};

const V3: [&str; 1] = ["arm,smmu-v3"];
const V2: [&str; 5] = ["arm,mmu-500", "arm,smmu-v2", "arm,smmu-v1", "arm,mmu-400", "arm,mmu-401"];

/// The architecture of an SMMU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SmmuKind {
    /// SMMUv3 (IHI 0070).
    V3,
    /// SMMUv1 or v2 (IHI 0062): recognised, and not driven yet.
    V2,
}

/// An SMMU (binding arm,smmu-v3).
#[derive(Clone, Copy, Debug)]
pub struct Smmu {
    /// Its architecture.
    pub kind: SmmuKind,
    /// Its phandle, by which `iommu-map` names it; 0 when it has none.
    pub phandle: u32,
    /// Register pages.
    pub registers: AddrRange<PhysAddr>,
    /// Its interrupts.
    pub interrupts: SmmuInterrupts,
    /// Whether its walks and queues are coherent with the CPUs' caches (`dma-coherent`).
    pub is_coherent: bool,
}

/// Wired interrupts of an SMMUv3; those that are absent are MSIs or not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SmmuInterrupts {
    /// Event queue not empty.
    pub event_queue: Option<Interrupt>,
    /// PRI queue not empty.
    pub page_requests: Option<Interrupt>,
    /// CMD_SYNC completed.
    pub command_sync: Option<Interrupt>,
    /// Global error.
    pub global_error: Option<Interrupt>,
    /// One line for all of them.
    pub combined: Option<Interrupt>,
}

/// Takes the SMMU at `path`.
pub fn read(
    tree: &Tree<'_>,
    path: &Path<'_>,
    gic: Option<Controller>,
    machine: &mut Machine,
) -> Result<(), MachineError> {
    let node = path.node();
    let kind = match (node.is_compatible(&V3), node.is_compatible(&V2)) {
        (true, _) => SmmuKind::V3,
        (false, true) => SmmuKind::V2,
        (false, false) => return Ok(()),
    };
    let interrupts = match (kind, gic) {
        (SmmuKind::V3, Some(gic)) => read_interrupts(tree, path, gic),
        _ => SmmuInterrupts::default(),
    };
    let smmu = Smmu {
        kind,
        phandle: node.phandle().unwrap_or(0),
        registers: path.reg(0)?,
        interrupts,
        is_coherent: path.is_coherent(),
    };
    push(&mut machine.smmus, smmu, "smmus")
}

fn read_interrupts(tree: &Tree<'_>, path: &Path<'_>, gic: Controller) -> SmmuInterrupts {
    if !path.node().has("interrupt-names") {
        return SmmuInterrupts { combined: gic.nth(tree, path, 0), ..SmmuInterrupts::default() };
    }
    let named = |name| gic.interrupt(tree, path, name, 0);
    SmmuInterrupts {
        event_queue: named("eventq"),
        page_requests: named("priq"),
        command_sync: named("cmdq-sync"),
        global_error: named("gerror"),
        combined: named("combined"),
    }
}
