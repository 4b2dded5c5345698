//! The transport's registers and the configuration.

use super::{
    super::domains::Reach,
    super::transport::{feature, offset},
    ENDPOINTS, FEATURES, Guest, LAST, OK,
};
use crate::{dmamap::model::Slab, mmio::Width};
use bulkhead_core::addr::Ipa;

/// Would miss: a device that Linux's driver of the transport does not take for one.
#[test]
fn it_is_an_iommu_of_version_2() {
    let mut guest = Guest::cold();
    let id = [offset::MAGIC, offset::VERSION, offset::DEVICE_ID].map(|at| guest.load(at));
    assert_eq!(id, [u64::from(u32::from_le_bytes(*b"virt")), 2, 23]);
    for (half, bits) in [(0, feature::OFFERED & 0xffff_ffff), (1, feature::OFFERED >> 32), (2, 0), (u32::MAX, 0)] {
        guest.store(offset::DEVICE_FEATURES_SEL, half);
        assert_eq!(guest.load(offset::DEVICE_FEATURES), bits);
    }
    for (queue, most) in [(0, 64), (1, 64), (2, 0), (u32::MAX, 0)] {
        guest.store(offset::QUEUE_SEL, queue);
        assert_eq!(guest.load(offset::QUEUE_NUM_MAX), most);
    }
    // Shared memory that there is not.
    assert_eq!((guest.load(0xb0), guest.load(0xb4)), (0xffff_ffff, 0xffff_ffff));
}

/// Would miss: a field of the configuration in another's place, or in the wrong half of its word.
#[test]
fn the_configuration_is_as_struct_virtio_iommu_config() {
    let guest = Guest::cold();
    let field = |at: u64| guest.device.read(offset::CONFIG + at, Width::Word);
    let pair = |at: u64| field(at) | field(at + 4) << 32;
    assert_eq!((pair(0), pair(8), pair(16)), (0x4020_1000, 0, LAST));
    assert_eq!((field(24), field(28), field(32), field(36)), (0, 0xffff, 32, 0));
    assert_eq!(guest.device.read(offset::CONFIG, Width::Double), 0x4020_1000);
    assert_eq!(guest.device.read(offset::CONFIG + 1, Width::Byte), 0x10);
    assert_eq!(guest.device.read(offset::CONFIG + 2, Width::Half), 0x4020);
    // Past its end, and not aligned.
    assert_eq!((field(40), field(0xfc), guest.device.read(offset::CONFIG + 1, Width::Half)), (0, 0, 0));
}

/// Would miss: a driver that gets FEATURES_OK for features that were not offered, or without VERSION_1; DRIVER_OK
/// without it; features that change behind it; a status bit that can be taken back.
#[test]
fn features_are_negotiated_once() {
    for (features, is_taken) in [
        (FEATURES, true),
        (feature::VERSION_1, true),
        (FEATURES & !feature::VERSION_1, false),
        (FEATURES | 1 << 5, false),
        (FEATURES | 1 << 28, false),
        (FEATURES | 1 << 33, false),
    ] {
        let mut guest = Guest::cold();
        guest.negotiate(features);
        assert_eq!(guest.load(offset::STATUS), if is_taken { 0xb } else { 3 }, "{features:#x}");
        guest.store(offset::STATUS, 0xf);
        assert_eq!(guest.load(offset::STATUS), if is_taken { 0xf } else { 3 }, "{features:#x}");
    }
    let mut guest = Guest::new();
    guest.store(offset::DRIVER_FEATURES, 0);
    guest.store(offset::STATUS, 1);
    assert_eq!(guest.load(offset::STATUS), 0xf);
    assert_eq!(guest.attach(1, ENDPOINTS[0], 1), OK, "bypass is still negotiated");
}

/// Would miss: a queue of any size or alignment that becomes ready; one that changes while it is.
#[test]
fn a_queue_is_sound_or_not_ready() {
    let mut guest = Guest::cold();
    for (size, address, is_ready) in
        [(64, 0, 1), (1, 0, 1), (0, 0, 0), (3, 0, 0), (128, 0, 0), (u32::MAX, 0, 0), (64, 8, 0), (64, 2, 0), (64, 1, 0)]
    {
        guest.store(offset::QUEUE_NUM, size);
        for register in [offset::QUEUE_DESC_LOW, offset::QUEUE_DRIVER_LOW, offset::QUEUE_DEVICE_LOW] {
            guest.store(register, address);
        }
        guest.store(offset::QUEUE_READY, 1);
        assert_eq!(guest.load(offset::QUEUE_READY), is_ready, "{size} at {address}");
        if is_ready == 1 {
            guest.store(offset::QUEUE_NUM, 3);
            guest.store(offset::QUEUE_DESC_LOW, 1);
        }
        guest.store(offset::QUEUE_READY, 0);
        assert_eq!(guest.load(offset::QUEUE_READY), 0);
        guest.store(offset::QUEUE_READY, 1);
        assert_eq!(guest.load(offset::QUEUE_READY), is_ready, "as it was");
        guest.store(offset::QUEUE_READY, 0);
    }
}

/// Would miss: registers that half of a word, or two, can reach; a reset that leaves an endpoint in its domain.
#[test]
fn a_reset_takes_everything_but_bypass_away() {
    let mut guest = Guest::new();
    assert_eq!((guest.attach(5, ENDPOINTS[0], 0), guest.attach(5, ENDPOINTS[1], 0)), (OK, OK));
    let bypass = |guest: &mut Guest, value| {
        let mut memory = Slab::new(Ipa::new(super::RAM), &guest.words);
        let at = offset::CONFIG + 36;
        let _ = guest.device.write(at, Width::Byte, value, &mut memory, &mut guest.domains);
        assert_eq!(guest.device.read(at, Width::Byte), value & 1);
    };
    bypass(&mut guest, 1);
    // The third alone is in no domain.
    let reaches = |guest: &Guest| ENDPOINTS.map(|endpoint| guest.domains.reach[&endpoint]);
    assert_eq!(reaches(&guest), [Reach::Domain(0), Reach::Domain(0), Reach::Ram]);
    for width in [Width::Byte, Width::Half, Width::Double] {
        let mut memory = Slab::new(Ipa::new(super::RAM), &guest.words);
        let _ = guest.device.write(offset::STATUS, width, 0, &mut memory, &mut guest.domains);
        assert_eq!((guest.device.read(offset::STATUS, width), guest.load(offset::STATUS)), (0, 0xf));
    }
    guest.store(offset::STATUS, 0);
    assert_eq!(reaches(&guest), [Reach::Ram; 3]);
    assert!(guest.domains.domains.iter().all(Option::is_none));
    assert_eq!((guest.load(offset::STATUS), guest.load(offset::QUEUE_READY)), (0, 0));
    // Without negotiation the field is read-only.
    let mut memory = Slab::new(Ipa::new(super::RAM), &guest.words);
    let _ = guest.device.write(offset::CONFIG + 36, Width::Byte, 0, &mut memory, &mut guest.domains);
    assert_eq!(reaches(&guest), [Reach::Ram; 3]);
    guest.device.reset();
    assert_eq!(guest.device.read(offset::CONFIG + 36, Width::Byte), 0, "a machine's reset");
}
