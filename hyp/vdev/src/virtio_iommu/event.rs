//! Faults, told by the event queue (virtio 1.3, 5.13.6.9).

use super::{VirtioIommu, chain::Chain, queue::Broken, transport::interrupt};
use crate::dmamap::GuestMemory;

/// An endpoint's access that was aborted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The endpoint.
    pub endpoint: u32,
    /// The address, where it is known.
    pub address: Option<u64>,
    /// It was a write.
    pub is_write: bool,
}

/// Bytes of struct virtio_iommu_fault.
const FAULT_BYTES: usize = 24;
const WRITTEN: u32 = 24;
const REASON_DOMAIN: u8 = 1;
const REASON_MAPPING: u8 = 2;
const FLAG_READ: u32 = 1 << 0;
const FLAG_WRITE: u32 = 1 << 1;
const FLAG_ADDRESS: u32 = 1 << 8;

impl VirtioIommu {
    /// Tells the guest of a fault; false when it has no buffer for it, and it is dropped.
    pub fn report(&mut self, fault: &Fault, memory: &mut impl GuestMemory) -> bool {
        if !self.transport.is_live() || !self.events.is_ready {
            return false;
        }
        let record = self.record(fault);
        let is_told = match self.tell(&record, memory) {
            Ok(is_told) => is_told,
            Err(Broken) => {
                self.transport.break_down();
                false
            }
        };
        let count = if is_told { &mut self.tally.faults } else { &mut self.tally.lost };
        *count = count.wrapping_add(1);
        is_told
    }

    fn record(&self, fault: &Fault) -> [u8; FAULT_BYTES] {
        let reason = if self.is_attached(fault.endpoint) { REASON_MAPPING } else { REASON_DOMAIN };
        let access = if fault.is_write { FLAG_WRITE } else { FLAG_READ };
        let flags = access | if fault.address.is_some() { FLAG_ADDRESS } else { 0 };
        let bytes = [reason, 0, 0, 0].into_iter().chain(flags.to_le_bytes()).chain(fault.endpoint.to_le_bytes());
        let bytes = bytes.chain([0; 4]).chain(fault.address.unwrap_or(0).to_le_bytes());
        let mut record = [0; FAULT_BYTES];
        record.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
        record
    }

    fn tell(&mut self, record: &[u8; FAULT_BYTES], memory: &mut impl GuestMemory) -> Result<bool, Broken> {
        if self.events.waiting(memory)? == 0 {
            return Ok(false);
        }
        let head = self.events.take(memory)?;
        let buffer = Chain::read(&self.events, memory, head);
        let is_told = buffer.and_then(|chain| chain.answer.write(memory, 0, record)).is_some();
        self.events.fill(memory, head, if is_told { WRITTEN } else { 0 })?;
        if self.events.publish(memory)? {
            self.transport.interrupt |= interrupt::USED;
        }
        Ok(is_told)
    }
}
