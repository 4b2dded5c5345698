//! Configuration space of the machine's PCI host bridges, by ECAM.

use bulkhead_core::{ids::PciFunction, machine::Machine, pci::ConfigSpace};

/// Bytes of configuration space of one function (PCIe base specification 7.2.2).
const FUNCTION_BYTES: u64 = 4096;

/// ECAM of every host bridge, mapped at EL2.
#[derive(Clone, Copy)]
pub struct Ecam {
    machine: &'static Machine,
}

impl Ecam {
    /// # Safety
    /// Every host bridge's ECAM range is mapped as device memory; accesses are serialised by the caller.
    pub const unsafe fn new(machine: &'static Machine) -> Self {
        Self { machine }
    }

    fn register(&self, function: PciFunction, offset: u16) -> Option<*mut u32> {
        let host = self.machine.pci_host(function.segment())?;
        let bus = u64::from(function.bus()).checked_sub(u64::from(host.first_bus))?;
        let offset = u64::from(offset & !3);
        if offset >= FUNCTION_BYTES {
            return None;
        }
        let within = bus << 20 | u64::from(function.routing_id() & 0xff) << 12 | offset;
        if within + 4 > host.ecam.size_bytes() {
            return None;
        }
        Some(core::ptr::with_exposed_provenance_mut(usize::try_from(host.ecam.start().as_u64() + within).ok()?))
    }
}

impl ConfigSpace for Ecam {
    fn read32(&self, function: PciFunction, offset: u16) -> u32 {
        // SAFETY: `register` checked the bounds of the mapped ECAM range; a configuration read changes nothing here.
        self.register(function, offset).map_or(!0, |register| unsafe { register.read_volatile() })
    }

    fn write32(&mut self, function: PciFunction, offset: u16, value: u32) {
        if let Some(register) = self.register(function, offset) {
            // SAFETY: `register` checked the bounds of the mapped ECAM range.
            unsafe { register.write_volatile(value) };
        }
    }
}
