//! A VM's virtio IOMMU: the guest's requests to tables and streams, faults of its devices to the guest.

mod domains;

use bulkhead_core::{
    addr::{AddrRange, Ipa},
    ids::{SmmuId, StreamKey},
    ledger::VmPlan,
    vplat::{self, GICD_BASE, UART_BASE, VIOMMU_INTID},
};
use bulkhead_dma::domain::DomainError;
use bulkhead_smmu::Event;
use bulkhead_vdev::{
    mmio::Width,
    virtio_iommu::{Ability, Fault, Next, Range, Tally, VirtioIommu},
};

pub use self::domains::TABLES;
use self::domains::{Acting, Tables};
use crate::{guest_view::GuestView, lock::Mutex, percpu::PerCpu, virtual_gic, vm, vm::Vm};

/// Why a VM cannot have a virtio IOMMU.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[repr(u64)]
pub enum IommuError {
    /// The frame pool is too small.
    #[error("its virtio iommu needs {needed} frames of 4 KiB, {left} are left in the hypervisor's pool")]
    Pool {
        /// Frames for tables and what is known of them.
        needed: usize,
        /// Frames that nobody has.
        left: usize,
    },
    /// An SMMU that reads its tables from memory alone.
    #[error("smmu {0} does not snoop the caches, which a virtio iommu needs: use dma = \"identity\"")]
    NotCoherent(u8),
    /// The settings do not go with the machine.
    #[error("its virtio iommu: {0}")]
    Domain(#[from] DomainError),
}

/// The virtio IOMMU of one VM.
pub struct VirtualIommu {
    device: VirtioIommu,
    tables: Tables,
}

impl VirtualIommu {
    /// A virtio IOMMU in its reset state, with room for all tables that there can be; every function reaches nothing.
    ///
    /// # Errors
    /// The pool does not suffice, or an SMMU cannot walk such tables.
    #[inline(never)]
    pub fn new(plan: &VmPlan, ram: AddrRange<Ipa>, bits: (u8, u8)) -> Result<Self, IommuError> {
        let tables = Tables::new(plan, ram, bits)?;
        let ability =
            Ability { last: (1 << bits.0) - 1, msi: Range { first: GICD_BASE.as_u64(), last: UART_BASE.as_u64() - 1 } };
        let endpoints = (0..plan.devices.len()).map(vplat::virtual_stream);
        Ok(Self { device: VirtioIommu::new(ability, endpoints), tables })
    }

    /// What was asked and told.
    pub const fn tally(&self) -> Tally {
        self.device.tally()
    }

    /// What stands behind it.
    pub const fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Back to the reset state; its domains are gone.
    pub fn reset(&mut self) {
        self.device.reset();
    }

    /// Takes every domain away: no stream of the VM's walks one any more. False when a flush did not complete.
    pub fn take_down(&mut self, vm: &Vm) -> bool {
        self.tables.take_down(vm)
    }

    /// The guest reads a register.
    pub fn read(&self, offset: u64, width: Width) -> u64 {
        self.device.read(offset, width)
    }
}

/// The guest writes a register. False when there is more to do: the write is to be repeated.
pub fn write(
    viommu: &Mutex<VirtualIommu>,
    cpu: &'static PerCpu,
    vm: &'static Vm,
    (offset, width, value): (u64, Width, u64),
) -> bool {
    let Some(mut memory) = GuestView::new(cpu, vm) else { return false };
    let mut locked = viommu.lock();
    let VirtualIommu { device, tables } = &mut *locked;
    let was_high = device.irq_level();
    let next = device.write(offset, width, value, &mut memory, &mut Acting { vm, tables });
    tell_level(vm, was_high, device.irq_level());
    next == Next::Done
}

/// Under the device's lock: no older level may follow.
fn tell_level(vm: &Vm, was_high: bool, is_high: bool) {
    if was_high != is_high {
        virtual_gic::set_level(vm, VIOMMU_INTID, is_high);
    }
}

/// Faults for guests that are handled at a time.
const FAULTS: usize = 64;

/// Faults of endpoints, with the VM that each is for.
pub type Faults = heapless::Vec<(&'static Vm, Fault), FAULTS>;

/// Takes note of an event that a guest is to be told of.
pub fn collect(smmu: SmmuId, event: &Event, faults: &mut Faults) {
    let key = StreamKey { smmu, stream: event.stream };
    let found = vm::all().find_map(|vm| Some((vm, vm.devices().position(|device| device.stream == key)?)));
    let Some((vm, place)) = found.filter(|(vm, _)| vm.viommu.is_some()) else { return };
    let address = event.iova.map(|iova| iova.as_u64());
    let is_write = event.access.is_some_and(|access| access.is_write);
    // As many as are handled at a time.
    let _ = faults.push((vm, Fault { endpoint: vplat::virtual_stream(place), address, is_write }));
}

/// Writes `faults` into their guests' event queues.
pub fn deliver(faults: &Faults) {
    let cpu = PerCpu::current();
    for (vm, fault) in faults {
        let Some(viommu) = &vm.viommu else { continue };
        let Some(mut memory) = GuestView::new(cpu, vm) else { continue };
        let mut locked = viommu.lock();
        let was_high = locked.device.irq_level();
        let _ = locked.device.report(fault, &mut memory);
        tell_level(vm, was_high, locked.device.irq_level());
    }
}
