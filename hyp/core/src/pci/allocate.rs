//! Gives every memory BAR pages of its own, and every bridge the windows that lead to them.

use super::{
    BRIDGE_DEPTH_MAX, ConfigSpace, bar,
    device::{Bar, BarKind, BridgeBuses, DeviceFault, PciDevice},
    registers as reg,
};
use crate::{
    addr::{PAGE_SIZE, PhysAddr},
    machine::{PciHost, Window},
};

/// Granularity of a bridge's windows in bytes.
const BRIDGE_ALIGNMENT: u64 = 1 << 20;

/// What is left of a window.
struct Space {
    window: Option<Window>,
    next: u64,
}

impl Space {
    fn new(window: Option<Window>) -> Self {
        // PCI address 0 means "no address" to many drivers.
        let next = window.map_or(0, |window| window.pci_base.max(PAGE_SIZE));
        Self { window, next }
    }

    /// The next `size_bytes` bytes on a multiple of them (a power of two): PCI and CPU address.
    fn take(&mut self, size_bytes: u64) -> Option<(u64, PhysAddr)> {
        let window = self.window?;
        let start = self.next.checked_next_multiple_of(size_bytes)?;
        let end = start.checked_add(size_bytes)?;
        if end > window.pci_end() {
            return None;
        }
        let cpu = window.cpu.start().checked_add(start - window.pci_base)?;
        self.next = end;
        Some((start, cpu))
    }

    /// Moves on to a bridge's granularity; where that is.
    fn align(&mut self) -> u64 {
        self.next = self.next.checked_next_multiple_of(BRIDGE_ALIGNMENT).unwrap_or(u64::MAX);
        self.next
    }

    fn size_bytes(&self) -> u64 {
        self.window.map_or(0, Window::size_bytes)
    }
}

/// The segment's windows.
struct Spaces {
    low: Space,
    high: Space,
}

/// Assigns addresses to the functions of one segment.
pub fn assign(config: &mut impl ConfigSpace, host: &PciHost, devices: &mut [PciDevice]) {
    let mut spaces = Spaces { low: Space::new(host.mem32), high: Space::new(host.mem64) };
    assign_bus(config, devices, &mut spaces, host.first_bus, Reach::Root, BRIDGE_DEPTH_MAX);
    for device in devices {
        bar::write(config, device.function, &device.bars);
    }
}

/// Which windows lead to a bus.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The root bus: the host's own windows.
    Root,
    /// Behind bridges that all have a 64-bit prefetchable window.
    Prefetch64,
    /// Behind a bridge that has not.
    LowOnly,
}

fn assign_bus(
    config: &mut impl ConfigSpace,
    devices: &mut [PciDevice],
    spaces: &mut Spaces,
    bus: u8,
    reach: Reach,
    depth: usize,
) {
    // Largest first: sizes are their own alignments, so nothing is lost between them.
    for size_log2 in (12..64).rev() {
        let on_bus = devices.iter_mut().filter(|device| device.function.bus() == bus);
        for device in on_bus {
            for number in 0..6 {
                let Some(bar) = device.bars.get(number).copied().flatten() else { continue };
                if bar.kind != BarKind::Io && bar.reserved_bytes() == 1 << size_log2 {
                    assign_bar(device, number, bar, spaces, reach);
                }
            }
        }
    }
    if depth == 0 {
        return;
    }
    for place in 0..devices.len() {
        let Some((function, Some(buses))) = devices.get(place).map(|device| (device.function, device.bridge)) else {
            continue;
        };
        if function.bus() != bus {
            continue;
        }
        let below = match reach {
            Reach::Root | Reach::Prefetch64 if buses.has_prefetch64 => Reach::Prefetch64,
            _ => Reach::LowOnly,
        };
        let (low, high) = (spaces.low.align(), spaces.high.align());
        assign_bus(config, devices, spaces, buses.secondary, below, depth - 1);
        let low = (low, spaces.low.align());
        let high = (high, spaces.high.align());
        if let Some(bridge) = devices.get(place) {
            write_windows(config, bridge, buses, low, high);
        }
    }
}

fn assign_bar(device: &mut PciDevice, number: usize, bar: Bar, spaces: &mut Spaces, reach: Reach) {
    let may_be_high = match (bar.kind, reach) {
        (BarKind::Memory64 { .. }, Reach::Root) => true,
        (BarKind::Memory64 { is_prefetchable }, Reach::Prefetch64) => is_prefetchable,
        _ => false,
    };
    let bytes = bar.reserved_bytes();
    let high = if may_be_high { spaces.high.take(bytes) } else { None };
    match high.or_else(|| spaces.low.take(bytes)) {
        Some((pci_address, cpu)) => {
            if let Some(slot) = device.bars.get_mut(number) {
                *slot = Some(Bar { pci_address, cpu, ..bar });
            }
        }
        None => {
            let window_bytes = spaces.low.size_bytes();
            device.fault =
                Some(DeviceFault::NoRoom { bar: bar::short(number), size_bytes: bar.size_bytes, window_bytes });
        }
    }
}

/// Programs the windows of a bridge to `[start, end)` each, in megabytes; an empty one is closed.
fn write_windows(
    config: &mut impl ConfigSpace,
    bridge: &PciDevice,
    buses: BridgeBuses,
    low: (u64, u64),
    high: (u64, u64),
) {
    // Bits 31:20 of base and limit are bits 15:4 of each half.
    let halves = |(start, end): (u64, u64)| {
        if start >= end {
            return 0x0000_fff0;
        }
        let last = end - 1;
        let base = u32::try_from(start >> 16 & 0xfff0).unwrap_or(0xfff0);
        let limit = u32::try_from(last >> 16 & 0xfff0).unwrap_or(0);
        limit << 16 | base
    };
    config.write32(bridge.function, reg::MEMORY_WINDOW, halves(low));
    config.write32(bridge.function, reg::PREFETCH_WINDOW, halves(high));
    if buses.has_prefetch64 {
        let upper = |address: u64| u32::try_from(address >> 32).unwrap_or(0);
        let (base, limit) = if high.0 >= high.1 { (u32::MAX, 0) } else { (upper(high.0), upper(high.1 - 1)) };
        config.write32(bridge.function, reg::PREFETCH_BASE_HIGH, base);
        config.write32(bridge.function, reg::PREFETCH_LIMIT_HIGH, limit);
    }
}
