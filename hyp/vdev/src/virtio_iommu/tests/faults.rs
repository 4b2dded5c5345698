//! Faults in the event queue.

use super::{
    super::{Fault, transport::offset},
    BUFFERS, ENDPOINTS, EVENT_AVAILABLE, EVENT_DESCRIPTORS, EVENT_USED, Guest, OK, RAM,
};
use crate::dmamap::model::Slab;
use bulkhead_core::addr::Ipa;

fn report(guest: &mut Guest, endpoint: u32, address: Option<u64>, is_write: bool) -> bool {
    let mut memory = Slab::new(Ipa::new(RAM), &guest.words);
    guest.device.report(&Fault { endpoint, address, is_write }, &mut memory)
}

/// A buffer of `bytes` bytes for the `index`th event.
fn offer(guest: &Guest, index: u16, bytes: u32) {
    guest.put(BUFFERS + 32 * u64::from(index), &[0xee; 32]);
    guest.descriptor(EVENT_DESCRIPTORS, index, BUFFERS + 32 * u64::from(index), bytes, 2, 0);
    guest.put(EVENT_AVAILABLE + 4 + 2 * u64::from(index), &index.to_le_bytes());
    guest.put(EVENT_AVAILABLE + 2, &(index + 1).to_le_bytes());
}

/// Would miss: a field out of place, a fault told as another endpoint's, one without an interrupt.
#[test]
fn a_fault_is_as_struct_virtio_iommu_fault() {
    let mut guest = Guest::new();
    assert_eq!(guest.attach(1, ENDPOINTS[1], 0), OK);
    guest.store(offset::INTERRUPT_ACK, 3);
    offer(&guest, 0, 24);
    offer(&guest, 1, 32);
    assert!(report(&mut guest, ENDPOINTS[0], Some(0x12_3456_7000), true));
    let head = |reason, flags: u16, endpoint: u32| {
        let [low, high] = flags.to_le_bytes();
        let [a, b, c, d] = endpoint.to_le_bytes();
        [reason, 0, 0, 0, low, high, 0, 0, a, b, c, d, 0, 0, 0, 0]
    };
    assert_eq!(guest.get::<16>(BUFFERS), head(1, 0x102, ENDPOINTS[0]));
    assert_eq!(guest.get::<8>(BUFFERS + 16), 0x12_3456_7000u64.to_le_bytes());
    assert_eq!(guest.get::<12>(EVENT_USED), [0, 0, 1, 0, 0, 0, 0, 0, 24, 0, 0, 0]);
    assert!(guest.device.irq_level());
    assert!(report(&mut guest, ENDPOINTS[1], None, false));
    assert_eq!(guest.get::<16>(BUFFERS + 32), head(2, 1, ENDPOINTS[1]));
    assert_eq!(guest.get::<12>(BUFFERS + 48), [0, 0, 0, 0, 0, 0, 0, 0, 0xee, 0xee, 0xee, 0xee]);
}

/// Would miss: a fault that waits for a buffer, one that is written to a buffer that is too short, a queue that is no queue.
#[test]
fn a_fault_without_a_buffer_is_dropped() {
    let mut guest = Guest::new();
    assert!(!report(&mut guest, ENDPOINTS[0], Some(0), false));
    offer(&guest, 0, 23);
    assert!(!report(&mut guest, ENDPOINTS[0], Some(0), false));
    assert_eq!(guest.get::<12>(EVENT_USED), [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!((guest.device.tally().faults, guest.device.tally().lost), (0, 2));
    guest.put(EVENT_AVAILABLE + 2, &[0xff, 0xff]);
    assert!(!report(&mut guest, ENDPOINTS[0], Some(0), false));
    assert_eq!(guest.load(offset::STATUS), 0x4f);
    let mut cold = Guest::cold();
    assert!(!report(&mut cold, ENDPOINTS[0], Some(0), false));
}
