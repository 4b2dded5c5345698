//! PCI host bridges: configuration space, windows, streams and pins.

use heapless::Vec;

use super::{
    LOOKUPS_MAX, Machine,
    error::MachineError,
    interrupt::{Controller, Interrupt},
    read::push,
    tree::{Node, Path, Tree},
};
use crate::{
    addr::{AddrRange, PhysAddr},
    ids::{PciFunction, SmmuId, StreamId, StreamKey},
};

/// Most entries of `iommu-map` that lead to an SMMU.
pub const STREAM_ENTRIES_MAX: usize = 8;
/// Most entries of `interrupt-map` that lead to the GIC.
pub const INTX_ENTRIES_MAX: usize = 32;

/// A generic ECAM host bridge (binding pci-host-ecam-generic).
#[derive(Clone, Debug)]
pub struct PciHost {
    /// Segment: `linux,pci-domain`, or the place among the host bridges.
    pub segment: u16,
    /// Configuration space of the buses from `first_bus` on, 1 MiB a bus.
    pub ecam: AddrRange<PhysAddr>,
    /// The root bus.
    pub first_bus: u8,
    /// The last bus that has configuration space.
    pub last_bus: u8,
    /// Window for 32-bit BARs.
    pub mem32: Option<Window>,
    /// Window above 4 GiB.
    pub mem64: Option<Window>,
    /// `iommu-map-mask`.
    pub stream_mask: u16,
    /// Entries of `iommu-map` that lead to an SMMU of the machine.
    pub streams: Vec<StreamEntry, STREAM_ENTRIES_MAX>,
    /// `interrupt-map-mask`: of the address's first cell, and of the pin.
    pub intx_mask: (u32, u32),
    /// Entries of `interrupt-map` that lead to the GIC.
    pub intx: Vec<IntxEntry, INTX_ENTRIES_MAX>,
    /// Whether DMA is coherent with the CPUs' caches.
    pub is_coherent: bool,
}

/// A window: PCI memory addresses that the CPUs reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// First address on the PCI bus.
    pub pci_base: u64,
    /// The same bytes as the CPUs address them.
    pub cpu: AddrRange<PhysAddr>,
    /// Whether it is prefetchable.
    pub is_prefetchable: bool,
}

impl Window {
    /// Length in bytes.
    pub fn size_bytes(self) -> u64 {
        self.cpu.size_bytes()
    }

    /// One past the last PCI address.
    pub fn pci_end(self) -> u64 {
        self.pci_base.saturating_add(self.size_bytes())
    }
}

/// One entry of `iommu-map`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamEntry {
    /// First Routing ID, after masking.
    pub first: u32,
    /// Number of Routing IDs.
    pub count: u32,
    /// The SMMU.
    pub smmu: SmmuId,
    /// StreamID of the first Routing ID.
    pub stream: u32,
}

/// One entry of `interrupt-map`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IntxEntry {
    /// First cell of the unit address, masked: bus 23:16, device 15:11, function 10:8.
    pub address: u32,
    /// Pin, 1 = INTA#.
    pub pin: u32,
    /// The interrupt that it raises.
    pub interrupt: Interrupt,
}

impl PciHost {
    /// Stream of a function, through `iommu-map`.
    pub fn stream_of(&self, function: PciFunction) -> Option<StreamKey> {
        let id = u32::from(function.routing_id() & self.stream_mask);
        self.streams.iter().find_map(|entry| {
            let offset = id.checked_sub(entry.first).filter(|&offset| offset < entry.count)?;
            Some(StreamKey { smmu: entry.smmu, stream: StreamId(entry.stream.checked_add(offset)?) })
        })
    }

    /// Interrupt of a pin of a function on the root bus, through `interrupt-map`.
    pub fn intx_of(&self, function: PciFunction, pin: u8) -> Option<Interrupt> {
        let (address_mask, pin_mask) = self.intx_mask;
        let address = u32::from(function.routing_id()) << 8 & address_mask;
        let pin = u32::from(pin) & pin_mask;
        let entry = self.intx.iter().find(|entry| entry.address == address && entry.pin == pin)?;
        Some(entry.interrupt)
    }

    /// Configuration space of a function: 4 KiB, or `None` when it is not behind this bridge.
    pub fn config_space(&self, function: PciFunction) -> Option<AddrRange<PhysAddr>> {
        let is_mine = function.segment() == self.segment && function.bus() <= self.last_bus;
        let bus = u64::from(function.bus().checked_sub(self.first_bus).filter(|_| is_mine)?);
        let place = bus << 20 | u64::from(function.routing_id() & 0xff) << 12;
        AddrRange::new(self.ecam.start().checked_add(place)?, 4096)
    }
}

/// Takes the host bridge at `path`; SMMUs must be known.
pub fn read(
    tree: &Tree<'_>,
    path: &Path<'_>,
    gic: Option<Controller>,
    machine: &mut Machine,
) -> Result<(), MachineError> {
    let node = path.node();
    if !node.is_compatible(&["pci-host-ecam-generic"]) {
        return Ok(());
    }
    let segment = match node.cell("linux,pci-domain") {
        Some(domain) => u16::try_from(domain).map_err(|_| node.bad("linux,pci-domain"))?,
        None => u16::try_from(machine.pci_hosts.len()).map_err(|_| node.bad("linux,pci-domain"))?,
    };
    if machine.pci_host(segment).is_some() {
        return Err(MachineError::DuplicateSegment(segment));
    }
    let ecam = path.reg(0)?;
    let buses_less_one = (ecam.size_bytes() >> 20).min(256).checked_sub(1).ok_or(node.bad("reg"))?;
    let (first_bus, last_bus) = buses(node, buses_less_one).ok_or(node.bad("bus-range"))?;
    let mut host = PciHost {
        segment,
        ecam,
        first_bus,
        last_bus,
        mem32: None,
        mem64: None,
        stream_mask: u16::MAX,
        streams: Vec::new(),
        intx_mask: (0, 0),
        intx: Vec::new(),
        is_coherent: path.is_coherent(),
    };
    read_windows(path, &mut host).ok_or(node.bad("ranges"))?;
    read_streams(path, machine, &mut host)?;
    if let Some(gic) = gic {
        read_pins(tree, path, gic, &mut host)?;
    }
    push(&mut machine.pci_hosts, host, "PCI host bridges")
}

/// The first and the last bus: of `bus-range`, and no more than there is configuration space for.
fn buses(node: Node<'_>, present_less_one: u64) -> Option<(u8, u8)> {
    let (first, last) = match node.property("bus-range") {
        Some(range) => {
            let mut cells = range.cells();
            (u8::try_from(cells.next()?).ok()?, u8::try_from(cells.next()?).ok()?)
        }
        None => (0, 255),
    };
    let present = u8::try_from(present_less_one).ok()?;
    (first <= last).then(|| (first, last.min(first.saturating_add(present))))
}

/// `ranges`: three cells of PCI address (space in bits 25:24 of the first, 2 and 3 memory, bit 30 prefetchable), then CPU address, size.
fn read_windows(path: &Path<'_>, host: &mut PciHost) -> Option<()> {
    let node = path.node();
    let Some(ranges) = node.property("ranges") else { return Some(()) };
    let cpu_cells = path.parent().map_or(2, |parent| parent.child_cells().0);
    let (_, size_cells) = node.child_cells();
    let mut cells = ranges.cells();
    while !cells.is_empty() {
        let high = cells.next()?;
        let pci_base = cells.number(2)?;
        let address = cells.number(cpu_cells)?;
        let size_bytes = cells.number(size_cells)?;
        if high >> 24 & 3 < 2 || size_bytes == 0 {
            continue;
        }
        let cpu = path.translate(address, size_bytes)?;
        let pci_end = pci_base.checked_add(size_bytes)?;
        let window = Window { pci_base, cpu, is_prefetchable: high & 1 << 30 != 0 };
        let slot = if pci_end <= 1 << 32 { &mut host.mem32 } else { &mut host.mem64 };
        if slot.is_none_or(|other| other.size_bytes() < size_bytes) {
            *slot = Some(window);
        }
    }
    Some(())
}

/// `iommu-map`: Routing ID, phandle of the SMMU, StreamID, count.
fn read_streams(path: &Path<'_>, machine: &Machine, host: &mut PciHost) -> Result<(), MachineError> {
    let (node, bad) = (path.node(), path.node().bad("iommu-map"));
    if let Some(mask) = node.cell("iommu-map-mask") {
        host.stream_mask = u16::try_from(mask & 0xffff).map_err(|_| bad)?;
    }
    let Some(map) = node.property("iommu-map") else { return Ok(()) };
    let mut cells = map.cells();
    while let Some(first) = cells.next() {
        let (Some(phandle), Some(stream), Some(count)) = (cells.next(), cells.next(), cells.next()) else {
            return Err(bad);
        };
        let place = machine.smmus.iter().position(|smmu| smmu.phandle == phandle);
        let Some(smmu) = place.and_then(|place| u8::try_from(place).ok()) else { continue };
        let entry = StreamEntry { first, count, smmu: SmmuId(smmu), stream };
        push(&mut host.streams, entry, "iommu-map entries")?;
    }
    Ok(())
}

/// `interrupt-map`: unit address (3 cells), pin, phandle, the controller's unit address, its specifier.
fn read_pins(tree: &Tree<'_>, path: &Path<'_>, gic: Controller, host: &mut PciHost) -> Result<(), MachineError> {
    let (node, bad) = (path.node(), path.node().bad("interrupt-map"));
    let Some(map) = node.property("interrupt-map") else { return Ok(()) };
    let mut mask = node.property("interrupt-map-mask").ok_or(bad)?.cells();
    let (Some(address_mask), Some(pin_mask)) = (mask.next(), mask.nth(2)) else { return Err(bad) };
    host.intx_mask = (address_mask, pin_mask);
    let mut cells = map.cells();
    // Most maps name one controller: it is looked up once.
    let mut lookups = 0..LOOKUPS_MAX;
    let mut known: Option<(u32, usize, usize)> = None;
    while let Some(address) = cells.next() {
        let (Some(()), Some(pin), Some(phandle)) = (cells.skip_cells(2), cells.next(), cells.next()) else {
            return Err(bad);
        };
        let (_, address_cells, specifier_cells) = match known {
            Some(controller) if controller.0 == phandle => controller,
            _ => {
                let too_many = MachineError::TooMany { what: "interrupt controllers in a map", limit: LOOKUPS_MAX };
                lookups.next().ok_or(too_many)?;
                controller(tree, phandle).ok_or(bad)?
            }
        };
        known = Some((phandle, address_cells, specifier_cells));
        cells.skip_cells(address_cells).ok_or(bad)?;
        if phandle != gic.phandle {
            cells.skip_cells(specifier_cells).ok_or(bad)?;
            continue;
        }
        let interrupt = gic.decode(&mut cells).ok_or(bad)?;
        let entry = IntxEntry { address: address & host.intx_mask.0, pin: pin & host.intx_mask.1, interrupt };
        push(&mut host.intx, entry, "interrupt-map entries")?;
    }
    Ok(())
}

fn controller(tree: &Tree<'_>, phandle: u32) -> Option<(u32, usize, usize)> {
    let node = tree.by_phandle(phandle)?.node();
    let address_cells = node.cell("#address-cells").map_or(Some(0), |cells| usize::try_from(cells).ok())?;
    let specifier_cells = usize::try_from(node.cell("#interrupt-cells")?).ok()?;
    Some((phandle, address_cells, specifier_cells))
}
