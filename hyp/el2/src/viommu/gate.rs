//! What the rest of EL2 calls for a VM behind a virtio IOMMU, and for no other.
//!
//! Nothing else leads to the code of this mode after boot, so that without such a VM it is given back with what runs at
//! boot alone (`tools/src/boot_only` tells it by this module's name). None of these may be inlined.

use bulkhead_core::ids::StreamId;
use bulkhead_smmu::Error;
use bulkhead_vdev::{
    mmio::Width,
    virtio_iommu::{Fault, Next},
};

use super::{Acting, VirtualIommu, show, tell_level};
use crate::{guest_view::GuestView, lock::Mutex, percpu::PerCpu, smmu::Driver, vm::Vm};

/// A stream of the VM's, which waits for the guest to attach it.
#[inline(never)]
pub fn stand_by(driver: &mut Driver, stream: StreamId) -> Result<(), Error> {
    driver.stand_by(stream)
}

/// The guest reads a register.
#[inline(never)]
pub fn read(viommu: &Mutex<VirtualIommu>, offset: u64, width: Width) -> u64 {
    viommu.lock().device.read(offset, width)
}

/// The guest writes a register. False when there is more to do: the write is to be repeated.
#[inline(never)]
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

/// Writes a fault into the guest's event queue.
#[inline(never)]
pub fn deliver(viommu: &Mutex<VirtualIommu>, cpu: &'static PerCpu, vm: &'static Vm, fault: &Fault) {
    let Some(mut memory) = GuestView::new(cpu, vm) else { return };
    let mut locked = viommu.lock();
    let was_high = locked.device.irq_level();
    // Told or not is counted.
    let _ = locked.device.report(fault, &mut memory);
    tell_level(vm, was_high, locked.device.irq_level());
}

/// The VM has ended and its streams are in abort: takes every domain away, and back to the reset state. False when a flush
/// did not complete.
#[inline(never)]
pub fn take_down(viommu: &Mutex<VirtualIommu>, vm: &Vm) -> bool {
    let mut viommu = viommu.lock();
    viommu.device.reset();
    viommu.tables.take_down(vm)
}

/// Prints what a VM's is doing.
#[inline(never)]
pub fn show(viommu: &Mutex<VirtualIommu>, vm: &Vm) {
    show::show(&viommu.lock(), vm);
}
