//! Which devices a VM gets, with their streams and interrupt lines.

use heapless::Vec;

use super::{DeviceInterrupt, DevicePlan, Inventory, Ledger, PlanError, StreamGrant};
use crate::{
    addr::{AddrRange, PhysAddr},
    bundle::{DeviceRecord, Vm},
    ids::{IntId, PciFunction, StreamKey},
    machine::{Interrupt, Machine},
    pci::{self, PciDevice},
    vplat::{DEVICES_MAX, FIRST_PCI_DEVICE, INTX_PINS},
};

/// Plans every device of `vm`.
pub fn plan(ledger: &Ledger, vm: &Vm, inventory: &Inventory<'_>) -> Result<Vec<DevicePlan, DEVICES_MAX>, PlanError> {
    let mut plans: Vec<DevicePlan, DEVICES_MAX> = Vec::new();
    for (virtual_device, record) in (FIRST_PCI_DEVICE..).zip(vm.devices()) {
        let function = record.function();
        check_function(ledger, vm, inventory, function)?;
        let stream = check_stream(inventory, function, vm)?;
        let interrupt = match line_of(inventory, function) {
            Some(physical) => Some(check_line(ledger, &plans, inventory.machine, function, physical)?),
            None => None,
        };
        let grant = StreamGrant::new(stream, vm.id(), function);
        // A record has no more devices than a plan.
        let _ = plans.push(DevicePlan { function, grant, virtual_device, interrupt });
    }
    Ok(plans)
}

fn check_function(ledger: &Ledger, vm: &Vm, inventory: &Inventory<'_>, function: PciFunction) -> Result<(), PlanError> {
    let device = pci::find(inventory.devices, function).ok_or(PlanError::DeviceAbsent(function))?;
    if device.bridge.is_some() {
        return Err(PlanError::DeviceIsBridge(function));
    }
    if let Some(fault) = device.fault {
        return Err(PlanError::DeviceFault { function, fault });
    }
    if let Some((other, _)) = ledger.owner_of_function(function) {
        return Err(PlanError::DeviceTaken { function, other: other.name });
    }
    let is_reserved = inventory.machine.device_reservations.iter().any(|reservation| {
        reservation.segment == function.segment() && reservation.function.is_none_or(|reserved| reserved == function)
    });
    if is_reserved {
        return Err(PlanError::ReservedRegion(function));
    }
    check_group(vm.devices(), inventory.devices, device)
}

/// The whole group, bridges left out, is this VM's. So no other VM can have a part of it.
fn check_group(records: &[DeviceRecord], devices: &[PciDevice], device: &PciDevice) -> Result<(), PlanError> {
    let function = device.function;
    let missing = devices.iter().find(|other| {
        let is_same = other.function.segment() == function.segment() && other.group == device.group;
        is_same && other.bridge.is_none() && !records.iter().any(|record| record.function() == other.function)
    });
    match missing {
        Some(missing) => Err(PlanError::GroupNotWhole { function, missing: missing.function }),
        None => Ok(()),
    }
}

fn check_stream(inventory: &Inventory<'_>, function: PciFunction, vm: &Vm) -> Result<StreamKey, PlanError> {
    let key = inventory.machine.stream_of(function).ok_or(PlanError::NoStream(function))?;
    let smmu = key.smmu.0;
    let ability = inventory.smmus.get(usize::from(smmu)).copied().flatten();
    let ability = ability.ok_or(PlanError::SmmuUnusable { function, smmu })?;
    if !ability.has_stage2 {
        return Err(PlanError::NoStage2 { function, smmu });
    }
    let is_nested = vm.nested().is_some();
    if is_nested && !ability.has_stage1 {
        return Err(PlanError::NoStage1 { function, smmu });
    }
    // The guest is told that its tables need no cleaning: its device tree is written before the machine is known. Those of
    // its domains are not cleaned either.
    if (is_nested || vm.has_virtio_iommu()) && !ability.is_coherent {
        return Err(PlanError::NotCoherent { function, smmu });
    }
    if u64::from(key.stream.0) >> ability.stream_bits.min(32) != 0 {
        return Err(PlanError::StreamTooLarge { function, key, bits: ability.stream_bits });
    }
    // Also a function that nobody has: what it sent would reach this VM.
    let is_alias = |other: &PciFunction| *other != function && inventory.machine.stream_of(*other) == Some(key);
    match inventory.devices.iter().map(|device| device.function).find(is_alias) {
        Some(with) => Err(PlanError::StreamTaken { function, key, with }),
        None => Ok(key),
    }
}

/// The line of the machine's GIC that a function's pin leads to.
fn line_of(inventory: &Inventory<'_>, function: PciFunction) -> Option<Interrupt> {
    let (at, pin) = pci::root_pin(inventory.devices, function)?;
    inventory.machine.pci_host(at.segment())?.intx_of(at, pin)
}

fn check_line(
    ledger: &Ledger,
    plans: &[DevicePlan],
    machine: &Machine,
    function: PciFunction,
    physical: Interrupt,
) -> Result<DeviceInterrupt, PlanError> {
    let line = physical.id;
    if is_kept(machine, line) {
        return Err(PlanError::InterruptKept { function, line });
    }
    let uses = |device: &DevicePlan| device.interrupt.filter(|interrupt| interrupt.physical.id == line);
    if let Some((other, with)) = ledger.find_device(|device| uses(device).is_some()) {
        return Err(PlanError::InterruptTaken { function, line, with: with.function, other: other.name });
    }
    if let Some(shared) = plans.iter().find_map(uses) {
        return Ok(shared);
    }
    let pins = plans.iter().filter_map(|plan| plan.interrupt.map(|interrupt| interrupt.virtual_pin));
    let virtual_pin = pins.max().unwrap_or(0) + 1;
    if u32::from(virtual_pin) > INTX_PINS {
        return Err(PlanError::NoPinLeft(function));
    }
    Ok(DeviceInterrupt { physical, virtual_pin })
}

fn is_kept(machine: &Machine, line: IntId) -> bool {
    let is_line = |interrupt: Option<Interrupt>| interrupt.is_some_and(|interrupt| interrupt.id == line);
    let is_console = machine.console.is_some_and(|uart| is_line(uart.interrupt));
    is_console
        || machine.smmus.iter().any(|smmu| {
            let lines = smmu.interrupts;
            [lines.event_queue, lines.page_requests, lines.command_sync, lines.global_error, lines.combined]
                .into_iter()
                .any(is_line)
        })
}

/// Whether the SMMU in front of each device can put out the addresses of the VM's RAM (security rule 11).
pub fn check_reach(
    devices: &[DevicePlan],
    ram: AddrRange<PhysAddr>,
    inventory: &Inventory<'_>,
) -> Result<(), PlanError> {
    for device in devices {
        let smmu = device.grant.stream().smmu.0;
        let ability = inventory.smmus.get(usize::from(smmu)).copied().flatten();
        let bits = ability.map_or(0, |ability| ability.output_bits);
        let end = ram.end().as_u64();
        if bits < 64 && end > 1 << bits {
            return Err(PlanError::RamPastSmmu { function: device.function, smmu, end, bits });
        }
    }
    Ok(())
}
