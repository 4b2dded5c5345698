//! PCI through ECAM: configuration space, capabilities, BARs.

use bulkhead_core::vplat::{ECAM_BASE, PCI_MEM_BASE};

use crate::{mem, params};

/// Offset of Vendor ID and Device ID.
pub const ID: u64 = 0x00;
/// Offset of Command and Status.
pub const COMMAND: u64 = 0x04;
/// Offset of the cache line size, latency timer, header type and BIST.
pub const HEADER: u64 = 0x0c;
/// Offset of BAR 0.
pub const BAR0: u64 = 0x10;
/// Offset of the expansion ROM's BAR.
pub const ROM_BAR: u64 = 0x30;
/// Offset of the pointer to the first capability.
pub const CAPABILITIES: u64 = 0x34;
/// Offset of Interrupt Line and Interrupt Pin.
pub const INTERRUPT: u64 = 0x3c;
/// Command: memory space enable.
pub const MEMORY_ENABLE: u16 = 1 << 1;
/// Command: bus master enable.
pub const BUS_MASTER: u16 = 1 << 2;
/// Command: INTx disable.
pub const INTX_DISABLE: u16 = 1 << 10;

/// Function 0 of a device on bus 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    config: u64,
    device: u64,
}

/// The ECAM window's address. Bulkhead's, or `ecam=` of the command line.
pub fn ecam() -> u64 {
    params::number("ecam", ECAM_BASE.as_u64())
}

/// Address of a configuration register.
pub fn config_address(device: u64, function: u64, register: u64) -> u64 {
    ecam() + (device << 15) + (function << 12) + register
}

impl Function {
    /// Function 0 of `device`, whether or not it is there.
    pub fn at(device: u64) -> Self {
        Self { config: config_address(device, 0, 0), device }
    }

    /// The first function with this Vendor ID and Device ID, from device 1 on, after `skip` others.
    pub fn find(vendor_device: u32, skip: usize) -> Option<Self> {
        (1..32).map(Self::at).filter(|function| function.read32(ID) == vendor_device).nth(skip)
    }

    /// Device number.
    pub fn device(self) -> u64 {
        self.device
    }

    /// Address of a register.
    pub fn address(self, register: u64) -> u64 {
        self.config + register
    }

    /// Reads a 32-bit register.
    pub fn read32(self, register: u64) -> u32 {
        mem::read32(self.config + register)
    }

    /// Writes a 32-bit register.
    pub fn write32(self, register: u64, value: u32) {
        mem::write32(self.config + register, value);
    }

    /// The Command register.
    pub fn command(self) -> u16 {
        mem::read16(self.config + COMMAND)
    }

    /// Writes the Command register.
    pub fn set_command(self, value: u16) {
        mem::write16(self.config + COMMAND, value);
    }

    /// Interrupt Pin, 1 to 4, or 0 without one.
    pub fn pin(self) -> u8 {
        mem::read8(self.config + INTERRUPT + 1)
    }

    /// The SPI of its pin: the virtual bridge does not swizzle.
    pub fn intid(self) -> u32 {
        bulkhead_core::vplat::INTX_INTID_BASE.0 + u32::from(self.pin()) - 1
    }

    /// Raw value of BAR `index`.
    pub fn bar(self, index: u64) -> u32 {
        self.read32(BAR0 + index * 4)
    }

    /// Writes BAR `index` raw.
    pub fn set_bar(self, index: u64, value: u32) {
        self.write32(BAR0 + index * 4, value);
    }

    /// What BAR `index` reads after all ones; its value is put back.
    pub fn size_mask(self, index: u64) -> u32 {
        let value = self.bar(index);
        self.set_bar(index, u32::MAX);
        let mask = self.bar(index);
        self.set_bar(index, value);
        mask
    }

    /// Puts 32-bit memory BAR 0 at its usual place, a 16 MiB slot a device, and turns memory and bus mastering on.
    /// Returns the address.
    pub fn enable(self) -> u64 {
        let address = PCI_MEM_BASE.as_u64() + (self.device << 24);
        self.set_bar(0, u32::try_from(address).expect("the window lies below 4 GiB"));
        self.set_command(MEMORY_ENABLE | BUS_MASTER);
        address
    }

    /// Ids of its capabilities, in the order of the list; a list that does not end is cut at 48.
    pub fn capabilities(self) -> impl Iterator<Item = (u8, u64)> {
        let has_list = self.read32(COMMAND) & 1 << 20 != 0;
        let mut next = if has_list { u64::from(mem::read8(self.config + CAPABILITIES)) } else { 0 };
        core::iter::from_fn(move || {
            let at = next & !3;
            if at < 0x40 {
                return None;
            }
            let id = mem::read8(self.config + at);
            next = u64::from(mem::read8(self.config + at + 1));
            Some((id, at))
        })
        .take(48)
    }

    /// First header of the extended configuration space: 0 where there is none.
    pub fn extended_header(self) -> u32 {
        self.read32(0x100)
    }
}
