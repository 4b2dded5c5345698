//! Queues and chains of every shape.

use super::{
    super::{VirtioIommu, transport::offset},
    AVAILABLE, BUFFERS, DESCRIPTORS, ENDPOINTS, Guest, OK, RAM, RAM_BYTES, SIZE, USED, words,
};

const NEXT: u16 = 1;
const WRITE: u16 = 2;

fn is_broken(guest: &Guest) -> bool {
    guest.load(offset::STATUS) & 64 != 0
}

/// Would miss: a request in more than two descriptors, or an answer in several.
#[test]
fn any_arrangement_of_descriptors_will_do() {
    let mut guest = Guest::new();
    let request = words(1, &[1, ENDPOINTS[0], 0, 0]);
    guest.put(BUFFERS, &request);
    for (number, (offset, bytes)) in [(0u64, 1u32), (1, 6), (7, 0), (7, 13)].into_iter().enumerate() {
        let number = u16::try_from(number).expect("few");
        guest.descriptor(DESCRIPTORS, 10 - number, BUFFERS + offset, bytes, NEXT, 9 - number);
    }
    guest.descriptor(DESCRIPTORS, 6, BUFFERS + 0x101, 1, NEXT | WRITE, 5);
    guest.descriptor(DESCRIPTORS, 5, BUFFERS + 0x207, 2, NEXT | WRITE, 4);
    guest.descriptor(DESCRIPTORS, 4, BUFFERS + 0x300, 9, WRITE, 0);
    guest.put(BUFFERS + 0x100, &[0xee; 0x210]);
    guest.make_available(10);
    guest.kick();
    assert_eq!((guest.used_index(), guest.written()), (1, 4));
    assert_eq!(guest.get(BUFFERS + 0x100), [0xee, OK, 0xee]);
    assert_eq!((guest.get(BUFFERS + 0x206), guest.get(BUFFERS + 0x300)), ([0xee, 0, 0, 0xee], [0, 0xee]));
}

/// Would miss: a loop, a chain past the queue, one that is too long, an indirect one, one to be read behind what is
/// written, memory that is not the VM's: nothing of them is acted on, and the queue goes on.
#[test]
fn what_is_no_chain_comes_back_unwritten() {
    let request = words(1, &[1, ENDPOINTS[0], 0, 0]);
    type Link = (u64, u32, u16, u16);
    let at = BUFFERS;
    let to = BUFFERS + 0x40;
    let chains: [&[Link]; 9] = [
        &[(at, 20, NEXT, 0)],
        &[(at, 20, NEXT, 1), (to, 4, WRITE | NEXT, 1)],
        &[(at, 20, NEXT, SIZE)],
        &[(at, 20, NEXT, 1), (to, 4, WRITE | NEXT, u16::MAX)],
        &[(at, 20, NEXT, 1), (to, 4, WRITE | 4, 0)],
        &[(to, 4, WRITE | NEXT, 1), (at, 20, 0, 0)],
        &[(RAM - 8, 20, NEXT, 1), (to, 4, WRITE, 0)],
        &[(RAM + RAM_BYTES - 8, 20, NEXT, 1), (to, 4, WRITE, 0)],
        &[(u64::MAX - 7, 20, NEXT, 1), (to, 4, WRITE, 0)],
    ];
    let mut guest = Guest::new();
    for chain in chains {
        guest.put(at, &request);
        guest.put(to, &[0xee; 4]);
        for (number, (at, bytes, flags, next)) in (0..).zip(chain) {
            guest.descriptor(DESCRIPTORS, number, *at, *bytes, *flags, *next);
        }
        guest.make_available(0);
        guest.kick();
        assert_eq!((guest.used_index(), guest.written()), (guest.sent, 0), "{chain:x?}");
        assert_eq!((guest.get(to), guest.domains.attaches), ([0xee; 4], 0), "{chain:x?}");
        assert!(!is_broken(&guest));
    }
    // Long, with a request in it all the same.
    guest.descriptor(DESCRIPTORS, 0, at, 20, NEXT, 1);
    for number in 1..9 {
        guest.descriptor(DESCRIPTORS, number, to, 4, NEXT | WRITE, number + 1);
    }
    guest.descriptor(DESCRIPTORS, 9, to, 4, WRITE, 0);
    guest.make_available(0);
    guest.kick();
    assert_eq!((guest.written(), guest.domains.attaches), (0, 0));
    assert_eq!(guest.attach(1, ENDPOINTS[0], 0), OK);
}

/// Would miss: an answer to memory that is not the VM's, which is written anywhere or ends the device.
#[test]
fn an_answer_has_to_be_in_ram() {
    let mut guest = Guest::new();
    guest.put(BUFFERS, &words(1, &[1, ENDPOINTS[0], 0, 0]));
    for at in [0, RAM - 1, RAM + RAM_BYTES, RAM + RAM_BYTES - 2, u64::MAX - 1] {
        guest.descriptor(DESCRIPTORS, 0, BUFFERS, 20, NEXT, 1);
        guest.descriptor(DESCRIPTORS, 1, at, 4, WRITE, 0);
        guest.make_available(0);
        guest.kick();
        assert_eq!((guest.used_index(), guest.written(), is_broken(&guest)), (guest.sent, 0, false), "{at:#x}");
    }
}

/// Would miss: indices that jump, a head past the queue, rings out of RAM: no loop, and a device that says so.
#[test]
fn a_queue_that_is_none_breaks_the_device() {
    let broken = |spoil: fn(&mut Guest)| {
        let mut guest = Guest::new();
        spoil(&mut guest);
        guest.kick();
        assert!(is_broken(&guest) && guest.device.irq_level() && guest.used_index() == 0);
        guest.store(offset::STATUS, 0);
        assert!(!is_broken(&guest) && !guest.device.irq_level());
    };
    broken(|guest| guest.put(AVAILABLE + 2, &(SIZE + 1).to_le_bytes()));
    broken(|guest| guest.put(AVAILABLE + 2, &u16::MAX.to_le_bytes()));
    broken(|guest| guest.make_available(SIZE));
    broken(|guest| guest.make_available(u16::MAX));
    let moved = |register: u64, half: u32| {
        let mut guest = Guest::new();
        let at = guest.queue(&words(1, &[1, ENDPOINTS[0], 0, 0]), 4);
        guest.store(offset::QUEUE_SEL, 0);
        guest.store(offset::QUEUE_READY, 0);
        guest.store(register, half);
        guest.store(offset::QUEUE_READY, 1);
        guest.kick();
        (is_broken(&guest), guest.get::<4>(at))
    };
    for (register, low, high) in [
        (offset::QUEUE_DRIVER_LOW, u32::try_from(RAM - 4).expect("low"), 1),
        (offset::QUEUE_DRIVER_LOW, u32::MAX - 1, u32::MAX),
        (offset::QUEUE_DEVICE_LOW, u32::try_from(RAM + RAM_BYTES).expect("low"), 1),
        (offset::QUEUE_DEVICE_LOW, u32::MAX - 3, u32::MAX),
    ] {
        assert!(moved(register, low).0 && moved(register + 4, high).0, "{register:#x}");
    }
    // Descriptors elsewhere are no chains.
    assert_eq!(moved(offset::QUEUE_DESC_HIGH, 1), (false, [0xee; 4]));
    assert_eq!(moved(offset::QUEUE_DESC_LOW, 0xffff_fff0), (false, [0xee; 4]));
}

/// Would miss: a queue that is worked on before the driver is ready, while it is not ready, or after another's notification.
#[test]
fn a_queue_waits_for_its_driver() {
    let mut guest = Guest::cold();
    guest.negotiate(super::FEATURES);
    guest.set_up(0, DESCRIPTORS, AVAILABLE, USED);
    guest.queue(&words(1, &[1, ENDPOINTS[0], 0, 0]), 4);
    guest.kick();
    guest.store(offset::STATUS, 0xf);
    for other in [1, 2, u32::MAX] {
        guest.store(offset::QUEUE_NOTIFY, other);
    }
    guest.store(offset::QUEUE_READY, 0);
    guest.kick();
    assert_eq!(guest.used_index(), 0);
    guest.store(offset::QUEUE_READY, 1);
    guest.kick();
    assert_eq!(guest.used_index(), 1);
}

/// Would miss: an interrupt that the driver does not want, or that stays after its acknowledgement.
#[test]
fn interrupts_are_as_the_driver_wants_them() {
    let mut guest = Guest::new();
    guest.put(AVAILABLE, &1u16.to_le_bytes());
    assert_eq!((guest.attach(1, ENDPOINTS[0], 0), guest.device.irq_level()), (OK, false));
    guest.put(AVAILABLE, &0u16.to_le_bytes());
    assert_eq!((guest.detach(1, ENDPOINTS[0]), guest.load(offset::INTERRUPT_STATUS)), (OK, 1));
    guest.store(offset::INTERRUPT_ACK, 2);
    assert!(guest.device.irq_level());
    guest.store(offset::INTERRUPT_ACK, 1);
    assert!(!guest.device.irq_level());
}

/// Would miss: indices that do not wrap, and a turn that is not bounded.
#[test]
fn rings_wrap() {
    let mut guest = Guest::new();
    for _ in 0..70_000 {
        guest.queue(&words(9, &[]), 4);
        assert_eq!(guest.kick(), 1);
    }
    assert_eq!(guest.used_index(), guest.sent);
    assert!(size_of::<VirtioIommu>() < 1024, "{}", size_of::<VirtioIommu>());
}

/// Would miss: as many changes of domain in one turn as requests that take nothing of the SMMU.
#[test]
fn a_turn_is_bounded_by_work() {
    let [probe, attach, detach] =
        [words(9, &[0]), words(1, &[1, ENDPOINTS[0], 0, 0]), words(2, &[1, ENDPOINTS[0], 0, 0])];
    for (requests, turns) in [([&probe, &probe], 1), ([&attach, &detach], 4), ([&attach, &probe], 3)] {
        let mut guest = Guest::new();
        for number in 0..32 {
            let _ = guest.queue(requests[number % 2], 4);
        }
        assert_eq!((guest.kick(), guest.used_index()), (turns, 32), "{requests:x?}");
    }
}
