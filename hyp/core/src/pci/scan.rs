//! Finds functions, silences them, numbers buses.

use heapless::Vec;

use super::{
    BRIDGE_DEPTH_MAX, ConfigSpace, PciError, bar, capability,
    device::{BridgeBuses, Capabilities, DeviceFault, FunctionReset, MsixTable, PciDevice, PciDevices},
    registers as reg,
};
use crate::{ids::PciFunction, machine::PciHost};

/// Turns bus mastering and decode off in every function of the root bus, bridges included: then nothing
/// behind them reaches memory either, whatever bus numbers firmware left.
pub fn silence_root_bus(config: &mut impl ConfigSpace, host: &PciHost) {
    for device_function in 0..=u8::MAX {
        let function =
            PciFunction::from_routing_id(host.segment, u16::from_be_bytes([host.first_bus, device_function]));
        if is_present(config, function) {
            silence(config, function);
        }
    }
}

/// No mastering, no decode, no INTx: a line may be shared. The status half is written as zeros, which clears nothing.
fn silence(config: &mut impl ConfigSpace, function: PciFunction) {
    config.write32(function, reg::COMMAND, u32::from(reg::COMMAND_INTX_DISABLE));
}

fn is_present(config: &impl ConfigSpace, function: PciFunction) -> bool {
    let [low, high, ..] = config.read32(function, reg::IDS).to_le_bytes();
    !matches!(u16::from_le_bytes([low, high]), 0 | u16::MAX)
}

/// A bus being scanned.
struct Bus {
    number: u8,
    /// Next device and function, up to 256.
    next: u16,
    is_device0_multifunction: bool,
    /// Behind a PCI Express port there is device 0 alone; some ports show it at every device number.
    is_link: bool,
    /// Place of the bridge above among the devices.
    bridge: Option<usize>,
}

/// Adds every function of the segment, depth first: a bridge's buses follow each other.
pub fn scan(config: &mut impl ConfigSpace, host: &PciHost, devices: &mut PciDevices) -> Result<(), PciError> {
    let mut last_bus = host.first_bus;
    let mut buses: Vec<Bus, { BRIDGE_DEPTH_MAX + 1 }> = Vec::new();
    let root = Bus { number: last_bus, next: 0, is_device0_multifunction: false, is_link: false, bridge: None };
    // The first of nine always fits.
    let _ = buses.push(root);
    while let Some(bus) = buses.last_mut() {
        let devices_of_bus = if bus.is_link { 8 } else { 256 };
        if bus.next >= devices_of_bus {
            close(config, devices, bus.bridge, last_bus);
            buses.pop();
            continue;
        }
        let [_, place] = bus.next.to_be_bytes();
        let function = PciFunction::from_routing_id(host.segment, u16::from_be_bytes([bus.number, place]));
        bus.next += 1;
        let is_first = function.function() == 0;
        if !is_first && !bus.is_device0_multifunction {
            continue;
        }
        if is_first {
            bus.is_device0_multifunction = false;
        }
        if !is_present(config, function) {
            continue;
        }
        silence(config, function);
        let header_type = config.read8(function, reg::HEADER_TYPE);
        if is_first {
            bus.is_device0_multifunction = header_type & 0x80 != 0;
        }
        let is_multifunction = bus.is_device0_multifunction;
        let mut device = describe(config, function, header_type & 0x7f);
        device.is_multifunction = is_multifunction;
        let is_bridge = header_type & 0x7f == 1;
        if is_bridge {
            if last_bus == host.last_bus {
                return Err(PciError::NoBusLeft { function, last: host.last_bus });
            }
            last_bus += 1;
            device.bridge = Some(open(config, &device, function.bus(), last_bus, host.last_bus));
        }
        devices.push(device).map_err(|_| PciError::TooManyFunctions(function))?;
        if is_bridge {
            let below = Bus {
                number: last_bus,
                next: 0,
                is_device0_multifunction: false,
                is_link: is_downstream_port(config, &device),
                bridge: Some(devices.len() - 1),
            };
            buses.push(below).map_err(|_| PciError::TooDeep(function))?;
        }
    }
    Ok(())
}

/// Gives a bridge its buses, up to the segment's last one while those behind it are being found.
fn open(config: &mut impl ConfigSpace, device: &PciDevice, primary: u8, secondary: u8, last: u8) -> BridgeBuses {
    let function = device.function;
    config.write32(function, reg::BUSES, u32::from_le_bytes([primary, secondary, last, 0]));
    // Base above limit: no window yet, and never one for I/O.
    config.write32(function, reg::IO_WINDOW, 0x00f0);
    config.write32(function, reg::MEMORY_WINDOW, 0x0000_fff0);
    config.write32(function, reg::PREFETCH_WINDOW, 0x0000_fff0);
    let has_prefetch64 = config.read32(function, reg::PREFETCH_WINDOW) & 0xf == 1;
    config.write32(function, reg::BRIDGE_ROM, 0);
    let is_isolating = isolate(config, device);
    BridgeBuses { secondary, subordinate: last, is_isolating, has_prefetch64 }
}

fn close(config: &mut impl ConfigSpace, devices: &mut PciDevices, bridge: Option<usize>, last_bus: u8) {
    let Some(device) = bridge.and_then(|place| devices.get_mut(place)) else { return };
    let Some(buses) = &mut device.bridge else { return };
    buses.subordinate = last_bus;
    let numbers = [device.function.bus(), buses.secondary, last_bus, 0];
    config.write32(device.function, reg::BUSES, u32::from_le_bytes(numbers));
}

/// Turns access control services of a downstream port on; whether they then isolate what is behind it.
fn isolate(config: &mut impl ConfigSpace, device: &PciDevice) -> bool {
    let Some(acs) = device.capabilities.acs else { return false };
    if !is_downstream_port(config, device) {
        return false;
    }
    let needed = reg::ACS_SOURCE_VALIDATION
        | reg::ACS_REQUEST_REDIRECT
        | reg::ACS_COMPLETION_REDIRECT
        | reg::ACS_UPSTREAM_FORWARDING;
    let wanted = needed | reg::ACS_TRANSLATION_BLOCKING;
    let present = config.read16(device.function, acs + reg::ACS_CONTROL);
    config.write16(device.function, acs + reg::ACS_CONTROL + 2, present & wanted);
    config.read16(device.function, acs + reg::ACS_CONTROL + 2) & needed == needed
}

/// Root port (4) or downstream port of a switch (6).
fn is_downstream_port(config: &impl ConfigSpace, device: &PciDevice) -> bool {
    device.capabilities.express.is_some_and(|express| {
        matches!(config.read16(device.function, u16::from(express) + reg::EXPRESS_FLAGS) >> 4 & 0xf, 4 | 6)
    })
}

fn describe(config: &mut impl ConfigSpace, function: PciFunction, layout: u8) -> PciDevice {
    let [vendor_low, vendor_high, device_low, device_high] = config.read32(function, reg::IDS).to_le_bytes();
    let bar_count = match layout {
        0 => 6,
        1 => 2,
        _ => 0,
    };
    let (bars, mut fault) = match bar::size(config, function, bar_count) {
        Ok(bars) => (bars, None),
        Err(fault) => ([None; 6], Some(fault)),
    };
    if layout == 0 {
        config.write32(function, reg::ROM, 0);
    } else if layout > 1 {
        fault = Some(DeviceFault::UnknownHeader(layout));
    }
    let pin = config.read8(function, reg::INTERRUPT + 1);
    PciDevice {
        function,
        vendor: u16::from_le_bytes([vendor_low, vendor_high]),
        device: u16::from_le_bytes([device_low, device_high]),
        class: config.read32(function, reg::CLASS) >> 8,
        bars,
        interrupt_pin: matches!(pin, 1..=4).then_some(pin),
        capabilities: capabilities(config, function),
        bridge: None,
        group: function.routing_id(),
        is_multifunction: false,
        fault,
    }
}

fn capabilities(config: &mut impl ConfigSpace, function: PciFunction) -> Capabilities {
    let find = |id| capability::find_capability(config, function, id);
    let (express, power) = (find(reg::CAP_EXPRESS), find(reg::CAP_POWER));
    let (msi, msix, advanced) = (find(reg::CAP_MSI), find(reg::CAP_MSIX), find(reg::CAP_ADVANCED));
    let mut found = Capabilities { express, power, msi, msix, ..Capabilities::default() };
    if let Some(express) = express.map(u16::from) {
        found.acs = capability::find_extended_capability(config, function, reg::EXT_ACS);
        let device_caps = config.read32(function, express + reg::EXPRESS_DEVICE_CAPS);
        found.has_phantoms = device_caps & reg::DEVICE_CAPS_PHANTOM != 0;
        if device_caps & reg::DEVICE_CAPS_FLR != 0 {
            found.reset = u8::try_from(express).ok().map(FunctionReset::Express);
        }
        let control = config.read32(function, express + reg::EXPRESS_DEVICE_CONTROL);
        let quiet = control & reg::DEVICE_CONTROL_MASK & !reg::DEVICE_CONTROL_PHANTOM & !reg::DEVICE_CONTROL_FLR;
        config.write32(function, express + reg::EXPRESS_DEVICE_CONTROL, quiet);
    }
    if let (None, Some(advanced)) = (found.reset, advanced)
        && config.read8(function, u16::from(advanced) + reg::ADVANCED_CAPS) & 0b10 != 0
    {
        found.reset = Some(FunctionReset::Advanced(advanced));
    }
    if let (None, Some(power)) = (found.reset, power) {
        let control = config.read32(function, u16::from(power) + reg::POWER_CONTROL);
        if control & reg::POWER_NO_SOFT_RESET == 0 {
            found.reset = Some(FunctionReset::Power(power));
        }
    }
    found.msix_tables = msix.map(|msix| msix_tables(config, function, u16::from(msix)));
    found
}

/// Message control (10:0 vectors - 1), table and pending bits (2:0 BAR, 31:3 offset).
fn msix_tables(config: &impl ConfigSpace, function: PciFunction, msix: u16) -> MsixTable {
    let (table, pending) = (config.read32(function, msix + 4), config.read32(function, msix + 8));
    MsixTable {
        vectors: (config.read16(function, msix + 2) & 0x7ff) + 1,
        table_bar: table.to_le_bytes()[0] & 7,
        table_offset: table & !7,
        pending_bar: pending.to_le_bytes()[0] & 7,
        pending_offset: pending & !7,
    }
}
