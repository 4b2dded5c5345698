//! The reset that a virtio function has when it has no function-level reset: its own status register.
//!
//! Virtio 1.2, 4.1.4.3 (common configuration) and 2.4.2 (device reset).

use bulkhead_core::{
    addr::{AddrRange, PhysAddr},
    pci::{self, ConfigSpace, PciDevice, registers},
};

use crate::{memory, mmu::Access, pointer, time};

/// Vendor of every virtio function.
const VENDOR: u16 = 0x1af4;
/// Vendor-specific capability.
const CAP_VENDOR: u8 = 0x09;
/// cfg_type of the common configuration.
const COMMON: u8 = 1;
/// Bytes of the common configuration up to and with device_status.
const COMMON_BYTES: u32 = 21;
/// Offset of device_status in it.
const DEVICE_STATUS: u64 = 20;
/// How long a device may take to say that it was reset.
const TIMEOUT_US: u64 = 1_000_000;

/// Where the status register of a virtio function is; `None` for any other function.
fn status_register(config: &impl ConfigSpace, device: &PciDevice) -> Option<PhysAddr> {
    if device.vendor != VENDOR {
        return None;
    }
    let function = device.function;
    // cfg_type is the capability's fourth byte.
    let is_common = |offset, id| id == CAP_VENDOR && config.read8(function, u16::from(offset) + 3) == COMMON;
    let at = u16::from(pci::find_capability_where(config, function, is_common)?);
    let bar = usize::from(config.read8(function, at + 4));
    let (start, bytes) = (config.read32(function, at + 8), config.read32(function, at + 12));
    let pages = device.bars.get(bar).copied().flatten()?.pages()?;
    let register = pages.start().checked_add(u64::from(start) + DEVICE_STATUS)?;
    (bytes >= COMMON_BYTES && pages.contains(register)).then_some(register)
}

/// Maps what [`reset`] needs, at boot. Whether the function can be reset so.
pub fn prepare(config: &impl ConfigSpace, device: &PciDevice) -> bool {
    let register = status_register(config, device).and_then(|register| AddrRange::new(register, 1));
    register.is_some_and(|register| memory::map(register, Access::Device).is_ok())
}

/// Resets the function, which does not master the bus. False when it has no such reset, or does not answer.
pub fn reset(config: &mut impl ConfigSpace, device: &PciDevice) -> bool {
    let Some(register) = status_register(config, device) else { return false };
    pci::restore(config, device);
    config.write32(device.function, registers::COMMAND, u32::from(registers::COMMAND_MEMORY));
    let status: *mut u8 = pointer::to(register.as_u64());
    // SAFETY: `prepare` mapped the register, which lies inside the function's own BAR; decode is on.
    unsafe { status.write_volatile(0) };
    let start = time::now_us();
    let is_reset = loop {
        // SAFETY: as above.
        let value = unsafe { status.read_volatile() };
        if value == 0 || time::now_us() - start > TIMEOUT_US {
            break value == 0;
        }
    };
    config.write32(device.function, registers::COMMAND, 0);
    is_reset
}
