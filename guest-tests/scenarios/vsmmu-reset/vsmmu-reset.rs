//! Ends with its own stage 1 in force and DMA under way through it: `how=off` by SYSTEM_OFF, else by a reset, and looks around.
#![no_std]
#![no_main]

use bulkhead_guest_tests::{
    check,
    edu::{self, BUFFER_BYTES},
    mem, params, pci, println, program, psci,
    smmu::{Access, Rig, register},
    timer,
};

program!(main);

const IOVA: u64 = 0x55_5555_5000;
/// Registers that a guest may write, all 0 after reset.
const WRITABLE: [u64; 17] = [
    register::CR0,
    register::CR0ACK,
    register::GBPA,
    register::IRQ_CTRL,
    register::GERROR,
    register::GERRORN,
    register::GERROR_IRQ_CFG0,
    register::STRTAB_BASE,
    register::STRTAB_BASE + 4,
    register::STRTAB_BASE_CFG,
    register::CMDQ_BASE,
    register::CMDQ_PROD,
    register::CMDQ_CONS,
    register::EVENTQ_BASE,
    register::EVENTQ_IRQ_CFG0,
    register::EVENTQ_PROD,
    register::EVENTQ_CONS,
];

/// Everything set that a reset has to take back, the translation cached, and DMA under way.
fn first(rig: &mut Rig, target: u64, until: u64) {
    let smmu = rig.smmu;
    rig.space.map(IOVA, target, Access::Both);
    check!(rig.start() && rig.works(), "stage 1 works");
    check!(rig.probe.reaches(IOVA, target), "the page is reached");
    smmu.set_global_abort(true);
    smmu.submit(&[[0xff, 0]]);
    check!(smmu.error().is_some(), "the command queue stands still");
    while timer::seconds() < until {}
    rig.probe.load();
    (0..BUFFER_BYTES).step_by(8).for_each(|offset| mem::write64(target + offset, 0));
    rig.probe.edu.start_write(IOVA, 0, BUFFER_BYTES);
    println!("DMA under way: {}", rig.probe.edu.is_busy());
}

/// What the next boot finds.
fn second(rig: &mut Rig, target: u64) {
    let smmu = rig.smmu;
    let left = WRITABLE.into_iter().find(|offset| smmu.read(*offset) != 0);
    check!(left.is_none(), "registers are as after a reset"; left);
    timer::delay_ms(400);
    let changed = (0..BUFFER_BYTES).step_by(8).find(|offset| mem::read64(target + offset) != 0);
    check!(changed.is_none(), "DMA from before the reset wrote nothing"; changed);
    check!(rig.probe.reaches(target, target), "off: memory by its own address");
    let is_translated = rig.probe.writes(IOVA, target);
    timer::delay_ms(50);
    check!(!is_translated, "the IOVA of before leads nowhere");
    // No TLBI: what the TLB held of before is gone.
    let other = target + 0x1_0000;
    rig.space.map(IOVA, other, Access::Both);
    check!(rig.start() && rig.works(), "stage 1 works again");
    check!(rig.probe.reaches(IOVA, other), "the IOVA leads to the new page");
}

fn main() {
    // The physical counter goes on through a reset, memory does not: `until` tells the boots apart.
    let until = params::number("until", 0);
    let is_second = until != 0 && timer::seconds() >= until;
    let function = pci::Function::find(edu::ID, 0).expect("the edu is ours");
    check!(function.command() & pci::BUS_MASTER == 0, "no bus mastering");
    // Longer than the DMA that was under way, if it is.
    timer::delay_ms(300);
    let mut rig = Rig::new(3);
    let target = rig.free;
    if is_second {
        second(&mut rig, target);
        return;
    }
    first(&mut rig, target, until);
    if params::argument("how") == Some("off") {
        psci::system_off();
    }
    psci::system_reset();
}
