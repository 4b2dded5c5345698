//! Checks a manifest against a board's device tree.

use bulkhead_core::{
    ids::{PciFunction, StreamKey},
    machine::{Machine, SmmuKind},
};

use super::{
    check::{assigned, physical_range, ram_bytes},
    problem::Problem,
    schema::{Manifest, VmSection},
};

/// Every problem of `manifest` on the board that `dtb` describes.
pub fn check(manifest: &Manifest, dtb: &[u8]) -> Vec<Problem> {
    let machine = match Machine::from_dtb(dtb) {
        Ok(machine) => machine,
        Err(error) => return vec![Problem::Board(error.to_string())],
    };
    let mut problems = board_itself(manifest, &machine);
    for section in &manifest.vms {
        cpus(section, &machine, &mut problems);
        memory_place(section, &machine, &mut problems);
    }
    memory_sum(manifest, &machine, &mut problems);
    devices(manifest, &machine, &mut problems);
    problems
}

fn board_itself(manifest: &Manifest, machine: &Machine) -> Vec<Problem> {
    let has_devices = manifest.vms.iter().any(|section| !section.devices.is_empty());
    let has_smmu = machine.smmus.iter().any(|smmu| smmu.kind == SmmuKind::V3);
    let mut problems = Vec::new();
    if machine.cpus.is_empty() {
        problems.push(Problem::Board("it has no CPUs: give the board's complete tree".to_owned()));
    }
    if has_devices && !has_smmu {
        let text = "it has no SMMUv3, so nothing would hold the devices' DMA in: remove the devices";
        problems.push(Problem::Board(text.to_owned()));
    }
    problems
}

fn cpus(section: &VmSection, machine: &Machine, problems: &mut Vec<Problem>) {
    let count = u32::try_from(machine.cpus.len()).unwrap_or(u32::MAX);
    for &cpu in section.cpus.iter().filter(|cpu| **cpu >= count) {
        problems.push(Problem::CpuAbsent { vm: section.name.clone(), cpu, last: count.saturating_sub(1) });
    }
}

fn memory_place(section: &VmSection, machine: &Machine, problems: &mut Vec<Problem>) {
    let Some(range) = physical_range(section) else { return };
    let vm = section.name.clone();
    // A tree whose memory the firmware fills in has none here: nothing can be said of a place in it.
    if !machine.memory.is_empty() && !machine.memory.iter().any(|dram| dram.contains_range(range)) {
        let dram = machine.memory.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        problems.push(Problem::RamOutside { vm: vm.clone(), range, dram });
    }
    if let Some(reserved) = machine.reserved.iter().find(|reserved| reserved.range.overlaps(range)) {
        problems.push(Problem::RamReserved { vm, range, reserved: reserved.range });
    }
}

fn memory_sum(manifest: &Manifest, machine: &Machine, problems: &mut Vec<Problem>) {
    let asked: u64 = manifest.vms.iter().filter_map(|section| ram_bytes(section, &mut Vec::new())).sum();
    let present: u64 = machine.memory.iter().map(|range| range.size_bytes()).sum();
    if present > 0 && asked >= present {
        problems.push(Problem::MemoryMissing { asked: asked >> 20, present: present >> 20 });
    }
}

fn devices(manifest: &Manifest, machine: &Machine, problems: &mut Vec<Problem>) {
    let mut streams: Vec<(StreamKey, &str, PciFunction)> = Vec::new();
    for (vm, device) in assigned(manifest) {
        let vm_name = vm.to_owned();
        if let Some(reason) = absence(machine, device) {
            problems.push(Problem::DeviceAbsent { vm: vm_name, device, reason });
            continue;
        }
        let of_device = |function: Option<PciFunction>| function.is_none_or(|function| function == device);
        let reservations = &machine.device_reservations;
        if reservations.iter().any(|entry| entry.segment == device.segment() && of_device(entry.function)) {
            problems.push(Problem::DeviceReserved { vm: vm_name.clone(), device });
        }
        let Some(stream) = machine.stream_of(device) else {
            problems.push(Problem::DeviceWithoutStream { vm: vm_name, device });
            continue;
        };
        let shared = streams.iter().find(|(other, owner, _)| *other == stream && *owner != vm);
        if let Some(&(_, owner, other)) = shared {
            problems.push(Problem::StreamShared { vm: vm_name, device, owner: owner.to_owned(), other });
        }
        streams.push((stream, vm, device));
    }
}

/// Why a device cannot be there, as far as the tree says.
fn absence(machine: &Machine, device: PciFunction) -> Option<String> {
    let Some(host) = machine.pci_host(device.segment()) else {
        let segments: Vec<String> = machine.pci_hosts.iter().map(|host| host.segment.to_string()).collect();
        let present = if segments.is_empty() { "none".to_owned() } else { segments.join(", ") };
        return Some(format!("the board's PCI segments are: {present}; give a device of one of them"));
    };
    let buses = host.first_bus..=host.last_bus;
    let is_outside = !buses.contains(&device.bus());
    is_outside.then(|| {
        format!("segment {} has buses {:#x} to {:#x}: give one of them", host.segment, buses.start(), buses.end())
    })
}

#[cfg(test)]
mod tests;
