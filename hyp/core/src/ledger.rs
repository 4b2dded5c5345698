//! Who owns what: CPUs, memory, functions, streams, interrupt lines. One owner each, checked at boot.
//!
//! What the tools checked when they packed the bundle is checked again here against the machine that is really
//! there. A VM that cannot have what it asks for gets a [`PlanError`] and owns nothing; the others are planned as
//! if it were not there. A [`StreamGrant`] is made here alone: who holds one may point that stream at that VM.

mod device;
mod error;
mod grant;
mod place;
#[cfg(test)]
mod tests;

use heapless::Vec;

pub use self::{
    error::PlanError,
    grant::StreamGrant,
    place::{Kept, PlaceError},
};
use crate::{
    addr::{AddrRange, PhysAddr},
    bundle::{Bundle, Dmamap, NestedFlush, Vm},
    ids::{CpuId, PciFunction, StreamKey, VmId, Vmid},
    machine::{Interrupt, Machine},
    name::Name,
    pci::PciDevice,
    vplat::{DEVICES_MAX, VCPUS_MAX, VMS_MAX},
};

/// What an SMMU that was probed can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SmmuAbility {
    /// Whether it has stage 2 (SMMU_IDR0.S2P).
    pub has_stage2: bool,
    /// Whether it has stage 1 (SMMU_IDR0.S1P), which can be nested.
    pub has_stage1: bool,
    /// Whether its walks are coherent with the CPUs' caches (SMMU_IDR0.COHACC, and the device tree's `dma-coherent`).
    pub is_coherent: bool,
    /// Output address bits (SMMU_IDR5.OAS).
    pub output_bits: u8,
    /// Bits of a StreamID (SMMU_IDR1.SIDSIZE).
    pub stream_bits: u8,
}

/// What a plan is made from.
#[derive(Clone, Copy)]
pub struct Inventory<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// Its PCI functions.
    pub devices: &'a [PciDevice],
    /// The SMMUs in the machine's order; `None` for one that cannot be used.
    pub smmus: &'a [Option<SmmuAbility>],
    /// Memory that is the hypervisor's: image, pool, bundle, device tree.
    pub kept: &'a [Kept],
    /// Bits of a guest-physical address: of the CPUs, of every SMMU, at most 39.
    pub ipa_bits: u8,
}

/// What a VM gets.
#[derive(Debug)]
pub struct VmPlan {
    /// The VM.
    pub id: VmId,
    /// Its name.
    pub name: Name,
    /// Its tag in TLBs.
    pub vmid: Vmid,
    /// Its RAM, on 2 MiB boundaries, from [`crate::vplat::RAM_BASE`] on in the guest's eyes.
    pub ram: AddrRange<PhysAddr>,
    /// The CPUs of its vCPUs, in order.
    pub cpus: Vec<CpuId, VCPUS_MAX>,
    /// Its devices, in order.
    pub devices: Vec<DevicePlan, DEVICES_MAX>,
    /// Its DMA maps; `None` when its devices reach its RAM as it is.
    pub dmamap: Option<Dmamap>,
    /// What the invalidations of its own stage 1 become; `None` without a virtual SMMU.
    pub nested: Option<NestedFlush>,
    /// Whether its devices are behind a virtio IOMMU.
    pub has_virtio_iommu: bool,
}

/// A device of a VM.
#[derive(Debug)]
pub struct DevicePlan {
    /// The function.
    pub function: PciFunction,
    /// The right to point its stream at the VM.
    pub grant: StreamGrant,
    /// Device number on the guest's bus 0; its function there is 0.
    pub virtual_device: u8,
    /// Its interrupt; `None` for a function without a pin, or whose pin is not wired to the GIC.
    pub interrupt: Option<DeviceInterrupt>,
}

/// The way of an INTx interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceInterrupt {
    /// The line at the machine's GIC.
    pub physical: Interrupt,
    /// Pin that the guest sees, 1 to 4; functions on one line of the machine have one pin.
    pub virtual_pin: u8,
}

/// All owners.
#[derive(Debug, Default)]
pub struct Ledger {
    plans: Vec<VmPlan, VMS_MAX>,
    refused: Vec<(VmId, Name, PlanError), VMS_MAX>,
}

impl Ledger {
    /// Plans every VM of `bundle`: those with a fixed place for their RAM first, then the others, largest first.
    #[inline(never)]
    pub fn plan(bundle: &Bundle<'_>, inventory: &Inventory<'_>) -> Self {
        let mut ledger = Self::default();
        // Insertion keeps every list in order: there are eight VMs at most, and the library's sort is 3 KiB of text a type.
        let mut order: Vec<&Vm, VMS_MAX> = Vec::new();
        for vm in bundle.vms() {
            let key = |vm: &Vm| (vm.ram_phys().is_none(), u64::MAX - vm.ram().size_bytes(), vm.id());
            insert(&mut order, vm, |other| key(other) > key(vm));
        }
        for vm in order {
            match ledger.plan_vm(vm, inventory) {
                Ok(plan) => insert(&mut ledger.plans, plan, |other| other.id > vm.id()),
                Err(error) => insert(&mut ledger.refused, (vm.id(), vm.full_name(), error), |other| other.0 > vm.id()),
            }
        }
        ledger
    }

    #[inline(never)]
    fn plan_vm(&self, vm: &Vm, inventory: &Inventory<'_>) -> Result<VmPlan, PlanError> {
        let cpus = self.plan_cpus(vm, inventory.machine)?;
        let devices = device::plan(self, vm, inventory)?;
        let ram = place::place(self, vm, inventory)?;
        device::check_reach(&devices, ram, inventory)?;
        let (id, name) = (vm.id(), vm.full_name());
        let has_virtio_iommu = vm.has_virtio_iommu();
        let (dmamap, nested) = (vm.dmamap(), vm.nested());
        Ok(VmPlan { id, name, vmid: Vmid::of(id), ram, cpus, devices, dmamap, nested, has_virtio_iommu })
    }

    fn plan_cpus(&self, vm: &Vm, machine: &Machine) -> Result<Vec<CpuId, VCPUS_MAX>, PlanError> {
        for cpu in vm.cpus() {
            if machine.cpu(cpu).is_none() {
                return Err(PlanError::CpuAbsent { cpu, count: machine.cpus.len() });
            }
            if let Some(other) = self.plans.iter().find(|plan| plan.cpus.contains(&cpu)) {
                return Err(PlanError::CpuTaken { cpu, other: other.name });
            }
        }
        Ok(vm.cpus().collect())
    }

    /// The VMs that can start, in the bundle's order.
    pub fn plans(&self) -> &[VmPlan] {
        &self.plans
    }

    /// The VMs that cannot, and why.
    pub fn refused(&self) -> &[(VmId, Name, PlanError)] {
        &self.refused
    }

    /// What a VM gets, unless it was refused.
    pub fn plan_of(&self, vm: VmId) -> Option<&VmPlan> {
        self.plans.iter().find(|plan| plan.id == vm)
    }

    /// The VM that a CPU belongs to, and its vCPU there.
    pub fn vcpu_of(&self, cpu: CpuId) -> Option<(&VmPlan, usize)> {
        self.plans.iter().find_map(|plan| {
            let vcpu = plan.cpus.iter().position(|&other| other == cpu)?;
            Some((plan, vcpu))
        })
    }

    /// The VM and the device that a stream belongs to.
    pub fn owner_of_stream(&self, stream: StreamKey) -> Option<(&VmPlan, &DevicePlan)> {
        self.find_device(|device| device.grant.stream() == stream)
    }

    /// The VM that a function belongs to.
    pub fn owner_of_function(&self, function: PciFunction) -> Option<(&VmPlan, &DevicePlan)> {
        self.find_device(|device| device.function == function)
    }

    fn find_device(&self, mut matches: impl FnMut(&DevicePlan) -> bool) -> Option<(&VmPlan, &DevicePlan)> {
        self.plans.iter().find_map(|plan| {
            let device = plan.devices.iter().find(|device| matches(device))?;
            Some((plan, device))
        })
    }
}

/// Puts `item` before the first that `is_after` it. The lists hold as many as a bundle has VMs: none is ever full.
fn insert<T>(list: &mut Vec<T, VMS_MAX>, item: T, is_after: impl Fn(&T) -> bool) {
    let place = list.iter().position(is_after).unwrap_or(list.len());
    let _ = list.insert(place, item);
}
