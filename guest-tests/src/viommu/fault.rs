//! Faults, as the event queue tells them (virtio 1.3, 5.13.6.9).

use super::{SIZE, Viommu, register};
use crate::{mem, timer};

/// An access that was aborted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// VIRTIO_IOMMU_FAULT_R_*.
    pub reason: u8,
    /// VIRTIO_IOMMU_FAULT_F_*.
    pub flags: u32,
    /// The endpoint.
    pub endpoint: u32,
    /// The address.
    pub address: u64,
}

impl Fault {
    /// The endpoint is in no domain.
    pub const DOMAIN: u8 = 1;
    /// No mapping, or one that does not allow it.
    pub const MAPPING: u8 = 2;
    /// It was a read, with an address.
    pub const READ: u32 = 1 | 1 << 8;
    /// It was a write, with an address.
    pub const WRITE: u32 = 2 | 1 << 8;
}

/// Bytes of a buffer.
pub const BUFFER: u32 = 32;

impl Viommu {
    /// Takes the oldest fault, and gives its buffer back.
    pub fn take_fault(self) -> Option<Fault> {
        let taken = mem::read16(self.cell());
        let used = self.at + Self::EVENT_USED;
        if mem::read16(used + 2) == taken {
            return None;
        }
        let number = mem::read16(used + 4 + 8 * u64::from(taken % SIZE));
        let at = self.at + Self::EVENT_BUFFERS + u64::from(BUFFER * u32::from(number));
        let fault = Fault {
            reason: mem::read8(at),
            flags: mem::read32(at + 4),
            endpoint: mem::read32(at + 8),
            address: mem::read64(at + 16),
        };
        mem::write16(self.cell(), taken.wrapping_add(1));
        let available = self.at + Self::EVENT_AVAILABLE;
        mem::write16(available + 4 + 2 * u64::from(taken % SIZE), number % SIZE);
        mem::write16(available + 2, taken.wrapping_add(1 + SIZE));
        self.write(register::QUEUE_NOTIFY, 1);
        Some(fault)
    }

    /// The next one, which may take a while.
    pub fn wait_fault(self) -> Option<Fault> {
        timer::wait_until(500, || mem::read16(self.at + Self::EVENT_USED + 2) != mem::read16(self.cell()));
        self.take_fault()
    }

    /// Throws away what was told; how many.
    pub fn drain_faults(self) -> u32 {
        let mut count = 0;
        while self.take_fault().is_some() {
            count += 1;
        }
        count
    }

    /// Faults that were taken.
    fn cell(self) -> u64 {
        self.at + 0xf000
    }
}
