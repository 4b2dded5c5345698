//! RAM, and what of it firmware keeps.

use heapless::Vec;

use super::{
    LOOKUPS_MAX, MEMORY_MAX, Machine,
    error::MachineError,
    read::push,
    tree::{Path, Tree, Value},
};
use crate::{
    addr::{AddrRange, PhysAddr},
    ids::PciFunction,
};

/// Memory that is not the hypervisor's to give.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reserved {
    /// Where it is.
    pub range: AddrRange<PhysAddr>,
    /// Whether a device's DMA needs it mapped from boot on (`iommu-addresses`).
    pub is_for_device: bool,
}

/// A PCI function, or all of a segment, with a region that must be mapped from boot: not assigned (security rule 9).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceReservation {
    /// The segment.
    pub segment: u16,
    /// The function; `None` for every function of the segment.
    pub function: Option<PciFunction>,
}

/// Takes the memory node at `path`.
pub fn read(path: &Path<'_>, machine: &mut Machine) -> Result<(), MachineError> {
    let node = path.node();
    if path.depth() == 1 && node.property("device_type").and_then(|kind| kind.text()) == Some("memory") {
        for range in path.regs().flatten() {
            insert(&mut machine.memory, range)?;
        }
    }
    let is_reserved = path.parent().is_some_and(|parent| parent.base_name() == "reserved-memory");
    if is_reserved && path.depth() == 2 {
        let is_for_device = node.has("iommu-addresses");
        // Not through `ranges`: without that property the memory is kept all the same.
        let ranges = path.bus_regs().filter_map(|(start, size_bytes)| AddrRange::new(PhysAddr::new(start), size_bytes));
        for range in ranges {
            push(&mut machine.reserved, Reserved { range, is_for_device }, "reserved memory ranges")?;
        }
    }
    Ok(())
}

/// Takes the memory reservation block.
pub fn read_block(tree: &Tree<'_>, machine: &mut Machine) -> Result<(), MachineError> {
    for (start, size_bytes) in tree.reservations() {
        if let Some(range) = AddrRange::new(PhysAddr::new(start), size_bytes) {
            push(&mut machine.reserved, Reserved { range, is_for_device: false }, "reserved memory ranges")?;
        }
    }
    Ok(())
}

/// Takes the PCI functions that `iommu-addresses` of the reserved-memory node at `path` names.
pub fn read_device_reservations(tree: &Tree<'_>, path: &Path<'_>, machine: &mut Machine) -> Result<(), MachineError> {
    let is_reserved = path.parent().is_some_and(|parent| parent.base_name() == "reserved-memory");
    let Some(addresses) = path.node().property("iommu-addresses").filter(|_| is_reserved) else {
        return Ok(());
    };
    let mut cells = addresses.cells();
    let mut lookups = 0..LOOKUPS_MAX;
    while let Some(phandle) = cells.next() {
        lookups.next().ok_or(MachineError::TooMany { what: "entries of iommu-addresses", limit: LOOKUPS_MAX })?;
        let Some(device) = tree.by_phandle(phandle) else { return Err(path.node().bad("iommu-addresses")) };
        let (address_cells, size_cells) = device.parent().map_or((2, 1), |parent| parent.child_cells());
        cells.skip_cells(address_cells.saturating_add(size_cells)).ok_or(path.node().bad("iommu-addresses"))?;
        if let Some(reservation) = reservation(&device, machine) {
            push(&mut machine.device_reservations, reservation, "device reservations")?;
        }
    }
    Ok(())
}

fn reservation(device: &Path<'_>, machine: &Machine) -> Option<DeviceReservation> {
    let segment_of = |path: &Path<'_>| {
        let ecam = path.reg(0).ok()?;
        machine.pci_hosts.iter().find(|host| host.ecam.start() == ecam.start()).map(|host| host.segment)
    };
    if let Some(segment) = segment_of(device) {
        return Some(DeviceReservation { segment, function: None });
    }
    let segment = segment_of(&device.up()?)?;
    // The first cell of a PCI device's `reg` is phys.hi: the Routing ID is bits 23:8.
    let high = device.node().property("reg").map(Value::cells)?.next()?;
    let routing_id = u16::try_from(high >> 8 & 0xffff).ok()?;
    Some(DeviceReservation { segment, function: Some(PciFunction::from_routing_id(segment, routing_id)) })
}

/// Adds `range`, keeping the list sorted and ranges that touch merged.
fn insert(memory: &mut Vec<AddrRange<PhysAddr>, MEMORY_MAX>, range: AddrRange<PhysAddr>) -> Result<(), MachineError> {
    let (mut start, mut end) = (range.start(), range.end());
    memory.retain(|other| {
        let touches = other.start() <= end && start <= other.end();
        if touches {
            start = start.min(other.start());
            end = end.max(other.end());
        }
        !touches
    });
    let Some(merged) = AddrRange::between(start, end) else { return Ok(()) };
    let place = memory.iter().position(|other| other.start() > start).unwrap_or(memory.len());
    memory.insert(place, merged).map_err(|_| MachineError::TooMany { what: "memory ranges", limit: MEMORY_MAX })
}
