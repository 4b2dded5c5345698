//! The machine as its device tree describes it: what EL2 starts from.
//!
//! [`Machine::from_dtb`] takes any bytes and answers with a machine or an error: no panic, no endless loop.
//! Disabled nodes are absent. Capacities are the constants beside the fields; more of a thing is an error.

mod cpu;
#[cfg(test)]
mod damage;
mod error;
mod frame;
mod gic;
mod interrupt;
mod memory;
mod pci;
mod pmcg;
mod read;
#[cfg(test)]
pub(crate) mod sample;
mod smmu;
#[cfg(test)]
mod tests;
mod tree;
mod uart;

use heapless::{String, Vec};

pub use self::{
    cpu::{Cpu, CpuEnable, PsciConduit},
    error::{Label, MachineError},
    frame::declared_bytes,
    gic::{Gic, GicV2, GicV3, REDISTRIBUTOR_REGIONS_MAX, Timers},
    interrupt::{Interrupt, Trigger},
    memory::{DeviceReservation, Reserved},
    pci::{INTX_ENTRIES_MAX, IntxEntry, PciHost, STREAM_ENTRIES_MAX, StreamEntry, Window},
    pmcg::{Pmcg, PmcgClaim},
    smmu::{Smmu, SmmuInterrupts, SmmuKind},
    uart::{Uart, UartKind},
};
use crate::{
    addr::{AddrRange, PhysAddr},
    ids::{CpuId, IntId, PciFunction, SmmuId, StreamKey},
};

/// Most CPUs.
pub const CPUS_MAX: usize = 64;
/// Most memory ranges, adjacent ones counted as one.
pub const MEMORY_MAX: usize = 16;
/// Most reserved ranges.
pub const RESERVED_MAX: usize = 32;
/// Most regions that devices need mapped from boot.
pub const DEVICE_RESERVATIONS_MAX: usize = 8;
/// Most SMMUs.
pub const SMMUS_MAX: usize = 8;
/// Most performance monitor counter groups; further ones are left out.
pub const PMCGS_MAX: usize = 16;
/// Most PCI host bridges.
pub const PCI_HOSTS_MAX: usize = 6;
/// Most ITSs.
pub const ITS_MAX: usize = 4;
/// Most bytes of the model, longer ones are cut.
pub const MODEL_BYTES: usize = 64;
/// Most `compatible` strings of the machine that are kept.
pub const COMPATIBLE_MAX: usize = 4;
/// Most bytes of the command line, longer ones are cut.
pub const BOOTARGS_BYTES: usize = 256;

/// Most searches of the whole tree for one property: a damaged tree must not take minutes.
const LOOKUPS_MAX: usize = 16;

/// Everything that EL2 knows of the machine.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// `model` of the root node.
    pub model: String<MODEL_BYTES>,
    /// `compatible` of the root node, most specific first.
    pub compatible: Vec<String<48>, COMPATIBLE_MAX>,
    /// RAM, sorted, adjacent and overlapping ranges merged.
    pub memory: Vec<AddrRange<PhysAddr>, MEMORY_MAX>,
    /// Ranges that firmware keeps: the memory reservation block and `/reserved-memory`.
    pub reserved: Vec<Reserved, RESERVED_MAX>,
    /// PCI functions with regions mapped from boot (`iommu-addresses`).
    pub device_reservations: Vec<DeviceReservation, DEVICE_RESERVATIONS_MAX>,
    /// Enabled CPUs, in the tree's order: [`CpuId`] is the place here.
    pub cpus: Vec<Cpu, CPUS_MAX>,
    /// How PSCI is called, where it exists.
    pub psci: Option<PsciConduit>,
    /// The interrupt controller, where it is one that is known.
    pub gic: Option<Gic>,
    /// Interrupts of the generic timer.
    pub timers: Timers,
    /// The UART of `/chosen/stdout-path`; where that names none of a known kind, the first one that there is.
    pub console: Option<Uart>,
    /// Enabled SMMUs, in the tree's order: [`SmmuId`] is the place here.
    pub smmus: Vec<Smmu, SMMUS_MAX>,
    /// Enabled counter groups of SMMUs.
    pub pmcgs: Vec<Pmcg, PMCGS_MAX>,
    /// Enabled ECAM host bridges.
    pub pci_hosts: Vec<PciHost, PCI_HOSTS_MAX>,
    /// The initrd, which is the bundle.
    pub initrd: Option<AddrRange<PhysAddr>>,
    /// `/chosen/bootargs`.
    pub bootargs: String<BOOTARGS_BYTES>,
}

impl Machine {
    /// Reads a flattened device tree (Devicetree Specification 0.4, version 17) of at most 2 MiB.
    pub fn from_dtb(dtb: &[u8]) -> Result<Self, MachineError> {
        read::machine(dtb)
    }

    /// The console alone: it is found also in a tree whose other nodes cannot be read.
    pub fn console_of(dtb: &[u8]) -> Result<Option<Uart>, MachineError> {
        read::console(dtb)
    }

    /// The host bridge of a segment.
    pub fn pci_host(&self, segment: u16) -> Option<&PciHost> {
        self.pci_hosts.iter().find(|host| host.segment == segment)
    }

    /// The stream by which the SMMU knows the DMA of `function`; `None` when no SMMU stands in front of it.
    pub fn stream_of(&self, function: PciFunction) -> Option<StreamKey> {
        self.pci_host(function.segment())?.stream_of(function)
    }

    /// The interrupt that pin `pin` (1 = INTA# to 4 = INTD#) of `function` on the root bus raises.
    ///
    /// Behind a bridge the pin is swizzled on its way up first ([`crate::pci::swizzle`]).
    pub fn intx_of(&self, function: PciFunction, pin: u8) -> Option<IntId> {
        self.pci_host(function.segment())?.intx_of(function, pin).map(|interrupt| interrupt.id)
    }

    /// Every SMMU with its id.
    pub fn numbered_smmus(&self) -> impl Iterator<Item = (SmmuId, &Smmu)> {
        (0..=u8::MAX).map(SmmuId).zip(&self.smmus)
    }

    /// The SMMU with this id.
    pub fn smmu(&self, id: SmmuId) -> Option<&Smmu> {
        self.smmus.get(usize::from(id.0))
    }

    /// The CPU with this id.
    pub fn cpu(&self, id: CpuId) -> Option<&Cpu> {
        self.cpus.get(id.index())
    }
}
