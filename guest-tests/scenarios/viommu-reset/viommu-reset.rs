//! Resets itself with a domain in force, a notification that finds a broken queue, and DMA under way; then looks around.
#![no_std]
#![no_main]

use bulkhead_guest_tests::{
    check,
    edu::{self, BUFFER_BYTES},
    mem, params, pci, println, program, psci, timer,
    viommu::{
        Rig, Viommu, register,
        request::{NOENT, OK, READ, WRITE},
    },
};

program!(main);

const IOVA: u64 = 0x55_5555_5000;
const RANGE: (u64, u64) = (IOVA, IOVA + BUFFER_BYTES - 1);

/// The translation cached, the device broken, and DMA under way.
fn first(rig: &mut Rig, target: u64, until: u64) {
    let iommu = rig.iommu;
    check!(rig.restart(), "a domain works");
    check!(iommu.map(Rig::DOMAIN, RANGE, target, READ | WRITE) == OK, "MAP");
    check!(rig.probe.reaches(IOVA, target), "the page is reached");
    while timer::seconds() < until {}
    rig.probe.load();
    (0..BUFFER_BYTES).step_by(8).for_each(|offset| mem::write64(target + offset, 0));
    // An index that no queue has.
    mem::write16(iommu.places()[1] + 2, 0x8000);
    iommu.write(register::QUEUE_NOTIFY, 0);
    check!(iommu.read(register::STATUS) & register::NEEDS_RESET != 0, "the device needs a reset");
    rig.probe.edu.start_write(IOVA, 0, BUFFER_BYTES);
    println!("DMA under way: {}", rig.probe.edu.is_busy());
}

/// What the next boot finds.
fn second(rig: &mut Rig, target: u64) {
    let iommu: Viommu = rig.iommu;
    let registers = [register::STATUS, register::QUEUE_READY, register::INTERRUPT_STATUS, register::BYPASS];
    let left = registers.into_iter().find(|offset| iommu.read(*offset) != 0);
    check!(left.is_none(), "registers are as after a reset"; left);
    timer::delay_ms(400);
    let changed = (0..BUFFER_BYTES).step_by(8).find(|offset| mem::read64(target + offset) != 0);
    check!(changed.is_none(), "DMA from before the reset wrote nothing"; changed);
    check!(!rig.probe.writes(IOVA, target), "the IOVA of before leads nowhere");
    check!(iommu.start() && iommu.map(Rig::DOMAIN, RANGE, target, READ) == NOENT, "the domain of before has gone");
    check!(rig.restart(), "a domain works again");
    let other = target + 0x1_0000;
    check!(iommu.map(Rig::DOMAIN, RANGE, other, READ | WRITE) == OK, "MAP");
    check!(rig.probe.reaches(IOVA, other), "the IOVA leads to the new page");
}

fn main() {
    // The physical counter goes on through a reset, memory does not: `until` tells the boots apart.
    let until = params::number("until", 0);
    let is_second = timer::seconds() >= until;
    let function = pci::Function::find(edu::ID, 0).expect("the edu is ours");
    check!(function.command() & pci::BUS_MASTER == 0, "no bus mastering");
    // Longer than the DMA that was under way, if it is.
    timer::delay_ms(300);
    let mut rig = Rig::new();
    let target = rig.free;
    if is_second {
        second(&mut rig, target);
        return;
    }
    first(&mut rig, target, until);
    psci::system_reset();
}
