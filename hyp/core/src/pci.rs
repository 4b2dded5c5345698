//! The machine's PCI functions: found, silenced, given addresses, grouped.
//!
//! [`enumerate`] takes a segment over from whatever firmware left: before anything else is done, no function can
//! master the bus any more (security rule 2). Nothing here waits: [`Reset`] says how long its caller must.
//!
//! Register offsets are those of the PCI Express Base Specification, chapter 7.

mod allocate;
mod bar;
mod capability;
mod device;
mod group;
pub mod registers;
mod reset;
#[cfg(test)]
pub(crate) mod sample;
mod scan;
#[cfg(test)]
mod tests;

use thiserror::Error;

pub use self::{
    capability::{find_capability, find_capability_where, find_extended_capability},
    device::{Bar, BarKind, BridgeBuses, Capabilities, DeviceFault, FunctionReset, MsixTable, PciDevice, PciDevices},
    reset::{Reset, ResetStep, restore},
};
use crate::{ids::PciFunction, machine::PciHost};

/// Most functions of all segments together, bridges included.
pub const PCI_DEVICES_MAX: usize = 64;
/// Most bridges one behind the other.
pub const BRIDGE_DEPTH_MAX: usize = 8;

/// Configuration space. Offsets are multiples of 4 below 4,096; a function that is absent reads as all ones.
pub trait ConfigSpace {
    /// Reads a register.
    fn read32(&self, function: PciFunction, offset: u16) -> u32;
    /// Writes a register.
    fn write32(&mut self, function: PciFunction, offset: u16, value: u32);

    /// Reads half a register; `offset` is even.
    fn read16(&self, function: PciFunction, offset: u16) -> u16 {
        let [a, b, c, d] = self.read32(function, offset & !3).to_le_bytes();
        u16::from_le_bytes(if offset & 2 == 0 { [a, b] } else { [c, d] })
    }

    /// Reads a byte.
    fn read8(&self, function: PciFunction, offset: u16) -> u8 {
        let [low, high] = self.read16(function, offset & !1).to_le_bytes();
        if offset & 1 == 0 { low } else { high }
    }

    /// Writes half a register and leaves the other half as it is read; `offset` is even.
    ///
    /// Not for a half beside write-one-to-clear bits that matter.
    fn write16(&mut self, function: PciFunction, offset: u16, value: u16) {
        let [a, b, c, d] = self.read32(function, offset & !3).to_le_bytes();
        let [low, high] = value.to_le_bytes();
        let bytes = if offset & 2 == 0 { [low, high, c, d] } else { [a, b, low, high] };
        self.write32(function, offset & !3, u32::from_le_bytes(bytes));
    }
}

/// Why a segment could not be enumerated. What one function alone lacks is its [`PciDevice::fault`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[repr(u64)]
pub enum PciError {
    /// More functions than there is room for.
    #[error("PCI function {0} is one too many: this hypervisor has room for {PCI_DEVICES_MAX}")]
    TooManyFunctions(PciFunction),
    /// Bridges nested too deep.
    #[error("PCI bridge {0} is nested deeper than {BRIDGE_DEPTH_MAX} bridges")]
    TooDeep(PciFunction),
    /// No bus number is left.
    #[error("PCI bridge {function} has no bus number left: the host bridge has buses up to {last}")]
    NoBusLeft {
        /// The bridge.
        function: PciFunction,
        /// Last bus of the segment.
        last: u8,
    },
}

/// Takes every function behind `host` over and adds it to `devices`.
///
/// Afterwards no function masters the bus or decodes addresses, every memory BAR has an address of its own pages,
/// bridges have their buses and windows (and do not forward yet, see [`open_path`]), groups are known.
#[inline(never)]
pub fn enumerate(config: &mut impl ConfigSpace, host: &PciHost, devices: &mut PciDevices) -> Result<(), PciError> {
    scan::silence_root_bus(config, host);
    let first = devices.len();
    scan::scan(config, host, devices)?;
    let segment = devices.get_mut(first..).unwrap_or_default();
    allocate::assign(config, host, segment);
    group::assign(segment);
    Ok(())
}

/// The function's entry.
pub fn find(devices: &[PciDevice], function: PciFunction) -> Option<&PciDevice> {
    devices.iter().find(|device| device.function == function)
}

/// The bridge right above a function, if it is not on a root bus.
pub fn bridge_above(devices: &[PciDevice], function: PciFunction) -> Option<&PciDevice> {
    devices.iter().find(|device| {
        device.function.segment() == function.segment()
            && device.bridge.is_some_and(|buses| buses.secondary == function.bus())
    })
}

/// Lets the bridges above `function` forward its accesses and the CPUs'.
pub fn open_path(config: &mut impl ConfigSpace, devices: &[PciDevice], function: PciFunction) {
    let mut below = function;
    for _ in 0..BRIDGE_DEPTH_MAX {
        let Some(bridge) = bridge_above(devices, below) else { return };
        let command = registers::COMMAND_MEMORY | registers::COMMAND_MASTER;
        config.write32(bridge.function, registers::COMMAND, u32::from(command));
        below = bridge.function;
    }
}

/// Pin 1 to 4 that a device's `pin` arrives at above the bridge in front of it (PCI-to-PCI bridge specification 9.1).
pub const fn swizzle(device: u8, pin: u8) -> u8 {
    (pin.wrapping_sub(1).wrapping_add(device)) % 4 + 1
}

/// Where a function's interrupt pin arrives on the root bus: the function there, and the pin 1 to 4.
///
/// `None` for a function without a pin.
pub fn root_pin(devices: &[PciDevice], function: PciFunction) -> Option<(PciFunction, u8)> {
    let mut pin = find(devices, function)?.interrupt_pin?;
    let mut at = function;
    for _ in 0..BRIDGE_DEPTH_MAX {
        let Some(bridge) = bridge_above(devices, at) else { break };
        pin = swizzle(at.device(), pin);
        at = bridge.function;
    }
    Some((at, pin))
}
