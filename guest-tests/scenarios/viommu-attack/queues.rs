//! Queues and chains of descriptors that are none, and buffers where the VM has no memory.

use bulkhead_guest_tests::{
    check, mem, params,
    viommu::{DEVICE_WRITES, ENDPOINT, Rig, SIZE, Viommu, register, request},
};

use super::targets;

const NEXT: u16 = 1;
const INDIRECT: u16 = 4;

/// Whether it says that it needs a reset.
fn is_broken(iommu: Viommu) -> bool {
    iommu.read(register::STATUS) & register::NEEDS_RESET != 0
}

/// Offers the chain from descriptor `head` on: it must come back with nothing written, and the queue go on.
fn comes_back(iommu: Viommu, head: u16) -> bool {
    iommu.offer(head);
    iommu.kick() && iommu.written() == 0 && !is_broken(iommu)
}

/// Whether the device answers a request.
fn answers(iommu: Viommu) -> bool {
    iommu.attach(Rig::DOMAIN, ENDPOINT, 0) == request::OK
}

/// Chains of the good request at `at`, and of a place for its answer.
fn chains(rig: &mut Rig) {
    let iommu = rig.iommu;
    let at = iommu.buffers() + 0x4000;
    request::attach(2, ENDPOINT, 0).iter().zip((at..).step_by(4)).for_each(|(word, at)| mem::write32(at, *word));
    let answer = at + 0x100;
    let (read, write) = (NEXT, DEVICE_WRITES);
    for (name, first, second) in [
        ("a loop of one", (at, 20, read, 60), (answer, 4, write, 0)),
        ("a loop of two", (at, 20, read, 61), (answer, 4, write | NEXT, 60)),
        ("a loop of nothing to read", (at, 0, read, 61), (at, 0, read, 60)),
        ("on past the table's end", (at, 20, read, SIZE), (answer, 4, write, 0)),
        ("on far past it", (at, 20, read, 0xffff), (answer, 4, write, 0)),
        ("indirect", (at, 32, INDIRECT, 0), (answer, 4, write, 0)),
        ("indirect at its end", (at, 20, read, 61), (answer, 4, write | INDIRECT, 0)),
        ("nothing to write", (at, 20, 0, 0), (answer, 4, write, 0)),
        ("nothing to read", (answer, 4, write, 0), (answer, 4, write, 0)),
        ("to write before to read", (answer, 4, write | NEXT, 61), (at, 20, 0, 0)),
        ("too little to write", (at, 20, read, 61), (answer, 3, write, 0)),
        ("too little to read", (at, 19, read, 61), (answer, 4, write, 0)),
    ] {
        iommu.set_descriptor(60, first.0, first.1, first.2, first.3);
        iommu.set_descriptor(61, second.0, second.1, second.2, second.3);
        check!(comes_back(iommu, 60), "chain: {name}");
    }
    for target in targets() {
        let name = target.name;
        iommu.set_descriptor(60, target.at, 20, read, 61);
        iommu.set_descriptor(61, answer, 4, write, 0);
        check!(comes_back(iommu, 60), "a request at {name}");
        // One that is done, whatever becomes of its answer.
        iommu.set_descriptor(60, at + 0x200, 20, read, 61);
        iommu.set_descriptor(61, target.at, 4, write, 0);
        check!(comes_back(iommu, 60), "an answer at {name}");
    }
    let end = params::ram_end();
    iommu.set_descriptor(60, end - 8, 20, read, 61);
    iommu.set_descriptor(61, answer, 4, write, 0);
    check!(comes_back(iommu, 60), "a request over the end of RAM");
    iommu.set_descriptor(60, at, u32::MAX, read, 61);
    check!(!comes_back(iommu, 60), "a request of 4 GiB is read as far as one goes");
    iommu.set_descriptor(60, u64::MAX - 3, 20, read, 61);
    check!(comes_back(iommu, 60), "a request round the end of addresses");
    iommu.set_descriptor(60, at, 20, read, 61);
    iommu.set_descriptor(61, answer, u32::MAX, write, 0);
    iommu.offer(60);
    check!(iommu.kick() && iommu.written() == 4, "an answer of 4 GiB is a tail");
    check!(rig.restart(), "it works after chains");
}

/// A queue's parts where they may not be, and sizes that none has.
fn places(rig: &mut Rig) {
    let iommu = rig.iommu;
    let parts = ["descriptors", "available ring", "used ring"];
    for target in targets() {
        for (part, what) in parts.into_iter().enumerate() {
            iommu.start();
            iommu.write(register::QUEUE_SEL, 0);
            iommu.write(register::QUEUE_READY, 0);
            let mut places = iommu.places();
            places[part] = target.at;
            let name = target.name;
            check!(iommu.set_queue(0, places), "{what} at {name}");
            iommu.queue(&request::attach(Rig::DOMAIN, ENDPOINT, 0), 4);
            let is_whole = iommu.kick() && iommu.written() == 4;
            // Without descriptors there is only nothing to be read.
            check!(!is_whole && (part == 0 || is_broken(iommu)), "{what} at {name}: no answer");
        }
    }
    for size in [0, 3, 65, 128, 0x8000, 0x1_0000, u32::MAX] {
        iommu.negotiate();
        iommu.write(register::QUEUE_SEL, 0);
        iommu.write(register::QUEUE_NUM, size);
        iommu.write(register::QUEUE_READY, 1);
        check!(iommu.read(register::QUEUE_READY) == 0, "a queue of {size:#x}");
    }
    for (part, what) in parts.into_iter().enumerate() {
        iommu.negotiate();
        let mut places = iommu.places();
        places[part] += 1;
        check!(!iommu.set_queue(0, places), "{what} not aligned");
    }
    for queue in [2, 0x100, u32::MAX] {
        iommu.negotiate();
        check!(!iommu.set_queue(queue, iommu.places()), "queue {queue:#x}");
    }
    check!(rig.restart(), "it works after places");
}

/// Indices that no queue has.
fn indices(rig: &mut Rig) {
    let iommu = rig.iommu;
    for head in [SIZE, 0x8000, 0xffff] {
        iommu.start();
        iommu.offer(head);
        check!(!iommu.kick() && is_broken(iommu), "head {head:#x}");
    }
    for index in [SIZE + 1, 0x8000, 0xffff] {
        iommu.start();
        mem::write16(iommu.places()[1] + 2, index);
        check!(!iommu.kick() && is_broken(iommu), "index {index:#x}");
        mem::write16(iommu.places()[1] + 2, 0);
        check!(!answers(iommu), "index {index:#x}: nothing until a reset");
    }
    check!(rig.restart(), "it works after indices");
}

/// Faults told where they may not be: lost.
fn events(rig: &mut Rig) {
    let iommu = rig.iommu;
    for target in targets().take(4) {
        let name = target.name;
        check!(rig.start(), "events at {name}: a domain");
        iommu.write(register::QUEUE_SEL, 1);
        iommu.write(register::QUEUE_READY, 0);
        check!(iommu.set_queue(1, [target.at; 3]), "events at {name}");
        rig.probe.read(super::IOVA);
        bulkhead_guest_tests::timer::wait_until(500, || is_broken(iommu));
        check!(is_broken(iommu), "events at {name}: it needs a reset");
    }
    check!(rig.restart(), "it works after events");
}

/// Registers before the features, and all of them with all bits.
fn registers(rig: &mut Rig) {
    let iommu = rig.iommu;
    iommu.write(register::STATUS, 0);
    iommu.write(register::STATUS, register::LIVE);
    check!(iommu.read(register::STATUS) & register::DRIVER_OK == 0, "no features, no DRIVER_OK");
    iommu.write(register::DRIVER_FEATURES_SEL, 1);
    iommu.write(register::DRIVER_FEATURES, u32::MAX);
    iommu.write(register::STATUS, register::LIVE);
    check!(iommu.read(register::STATUS) & register::DRIVER_OK == 0, "features that it has not");
    for value in [u32::MAX, 1, 0] {
        (0..0x200).step_by(4).for_each(|offset| iommu.write(offset, value));
    }
    (0..0x1000).step_by(4).for_each(|offset| {
        let _ = iommu.read(offset);
    });
    check!(rig.restart(), "it works after registers");
}

pub fn attack(rig: &mut Rig) {
    chains(rig);
    places(rig);
    indices(rig);
    events(rig);
    registers(rig);
}
