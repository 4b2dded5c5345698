//! Finds the NIC, gives it its window addresses, and hands it to `virtio-drivers`.

use alloc::vec::Vec;

use bulkhead_core::vplat::{FIRST_PCI_DEVICE, PCI_MEM_BASE};
use bulkhead_guest_tests::{
    mem,
    pci::{self, Function},
};
use virtio_drivers::transport::{
    DeviceType,
    pci::{
        PciTransport,
        bus::{BarInfo, Command, ConfigurationAccess, DeviceFunction, MemoryBarType, PciRoot},
        virtio_device_type,
    },
};

use crate::hal::NicHal;

/// The virtual bridge's configuration space.
struct Ecam;

fn address(function: DeviceFunction, register: u8) -> u64 {
    pci::config_address(u64::from(function.device), u64::from(function.function), u64::from(register))
}

impl ConfigurationAccess for Ecam {
    fn read_word(&self, function: DeviceFunction, register: u8) -> u32 {
        mem::read32(address(function, register))
    }

    fn write_word(&mut self, function: DeviceFunction, register: u8, data: u32) {
        mem::write32(address(function, register), data);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self
    }
}

/// The first virtio NIC, enabled, and the interrupt that it raises.
pub fn find_nic() -> Option<(PciTransport, u32)> {
    let mut root = PciRoot::new(Ecam);
    let is_nic = |info: &_| virtio_device_type(info) == Some(DeviceType::Network);
    let (function, _) = root.enumerate_bus(0).find(|(_, info)| is_nic(info))?;
    place_bars(&mut root, function);
    root.set_command(function, Command::MEMORY_SPACE | Command::BUS_MASTER);
    let intid = Function::at(u64::from(function.device)).intid();
    PciTransport::new::<NicHal, _>(&mut root, function).ok().map(|transport| (transport, intid))
}

/// Each memory BAR at the next multiple of its size, in a slot of the window of its device's own.
fn place_bars(root: &mut PciRoot<Ecam>, function: DeviceFunction) {
    let slot = u64::from(function.device.saturating_sub(FIRST_PCI_DEVICE));
    let mut next = PCI_MEM_BASE.as_u64() + (slot << 24);
    let bars: Vec<_> = root.bars(function).into_iter().flatten().collect();
    for (index, bar) in (0..).zip(bars) {
        let Some(BarInfo::Memory { address_type, size, .. }) = bar else { continue };
        if size == 0 {
            continue;
        }
        next = next.next_multiple_of(size);
        match address_type {
            MemoryBarType::Width64 => root.set_bar_64(function, index, next),
            _ => root.set_bar_32(function, index, u32::try_from(next).expect("the window lies below 4 GiB")),
        }
        next += size;
    }
}
