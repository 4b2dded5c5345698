//! Passed-through devices: PCI addresses, DMA modes, one owner each.

use bulkhead_core::{
    bundle::{DeviceRecord, dma_mode},
    ids::PciFunction,
    vplat::DEVICES_MAX,
};

use super::super::{
    problem::Problem,
    schema::{DeviceSection, Manifest, VmSection},
};

/// The records of one VM's devices.
pub fn records(section: &VmSection, problems: &mut Vec<Problem>) -> Option<Vec<DeviceRecord>> {
    let count = section.devices.len();
    if count > DEVICES_MAX {
        problems.push(Problem::TooManyDevices { vm: section.name.clone(), count });
    }
    if let Some(first) = section.devices.first()
        && let Some(other) = section.devices.iter().find(|device| device.dma != first.dma)
    {
        let (device, mode, first) = (other.pci.clone(), other.dma.clone(), first.dma.clone());
        problems.push(Problem::MixedDma { vm: section.name.clone(), device, mode, first });
    }
    // Every device is looked at before the first fault ends the list.
    let records: Vec<_> = section.devices.iter().map(|device| record(&section.name, device, problems)).collect();
    records.into_iter().collect()
}

fn record(vm: &str, device: &DeviceSection, problems: &mut Vec<Problem>) -> Option<DeviceRecord> {
    let function = parse(&device.pci);
    if function.is_none() {
        problems.push(Problem::PciSyntax { vm: vm.to_owned(), text: device.pci.clone() });
    }
    let dma_mode = match device.dma.as_str() {
        "identity" => dma_mode::IDENTITY,
        "dmamap" => dma_mode::DMAMAP,
        "nested" => dma_mode::NESTED,
        "virtio-iommu" => dma_mode::VIRTIO_IOMMU,
        mode => {
            let (device, mode) = (device.pci.clone(), mode.to_owned());
            problems.push(Problem::DmaMode { vm: vm.to_owned(), device, mode });
            return None;
        }
    };
    let function = function?;
    let (segment, routing_id) = (function.segment(), function.routing_id());
    Some(DeviceRecord { segment, routing_id, dma_mode })
}

/// Every device of the manifest that has a valid address, with its VM's name.
pub fn assigned(manifest: &Manifest) -> impl Iterator<Item = (&str, PciFunction)> {
    manifest.vms.iter().flat_map(|section| {
        let devices = section.devices.iter().filter_map(|device| parse(&device.pci));
        devices.map(|function| (section.name.as_str(), function))
    })
}

/// Finds devices that are given twice.
pub fn owners(manifest: &Manifest, problems: &mut Vec<Problem>) {
    let mut owners: Vec<(&str, PciFunction)> = Vec::new();
    for (vm, device) in assigned(manifest) {
        if let Some((owner, _)) = owners.iter().find(|(_, taken)| *taken == device) {
            problems.push(Problem::DeviceTwice { vm: vm.to_owned(), device, owner: (*owner).to_owned() });
        }
        owners.push((vm, device));
    }
}

/// `SSSS:BB:DD.F`, hexadecimal, each part at its full width.
pub fn parse(text: &str) -> Option<PciFunction> {
    let (segment, rest) = text.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let part = |text: &str, digits: usize| {
        let is_hex = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u16::from_str_radix(text, 16).ok()).flatten()
    };
    let byte = |text: &str, digits| u8::try_from(part(text, digits)?).ok();
    PciFunction::new(part(segment, 4)?, byte(bus, 2)?, byte(device, 2)?, byte(function, 1)?)
}
