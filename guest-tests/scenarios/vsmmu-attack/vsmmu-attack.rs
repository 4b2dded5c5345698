//! Addresses that are not the VM's, in everything that its SMMU takes one from: nothing there is read or changed.
#![no_std]
#![no_main]

mod tables;

use bulkhead_core::vplat::VSMMU_BASE;
use bulkhead_guest_tests::{
    check,
    forbidden::{self, Target},
    params, println, program,
    smmu::{Access, Event, Rig, STREAM, command, register},
    timer,
};

program!(main);

/// Where a target is mapped, a page each.
const IOVA: u64 = 0x30_0000_0000;
const PAGE: u64 = 4096;

fn targets() -> impl Iterator<Item = Target> {
    forbidden::targets([("ITS", 0x0809_0000), ("SMMU", VSMMU_BASE.as_u64())])
}

/// Those that are unlike each other, for what takes long: DMA of the edu takes 100 ms.
fn few_targets() -> impl Iterator<Item = Target> {
    targets().take(4)
}

/// Stage 1 says that a page is at the target: our stage 2 says that it is not, and the VM hears nothing of that.
fn leaf(rig: &mut Rig, number: u64, Target { name, at }: Target) {
    let iova = IOVA + number * PAGE;
    println!("page at {name}");
    rig.space.map(iova, at, Access::Both);
    rig.probe.load();
    rig.probe.write(iova);
    rig.probe.read(iova);
    // Let the hypervisor's line come before ours.
    timer::delay_ms(50);
    check!(rig.probe.has_read_nothing(), "page at {name}: nothing foreign was read");
    rig.space.unmap(iova);
    check!(rig.smmu.drain_events() == 0, "page at {name}: nothing is shown of stage 2");
}

/// The device reads through something that is not a table: the VM hears of it, as of an abort.
fn walks_nowhere(rig: &mut Rig, what: &str, name: &str, iova: u64) {
    rig.probe.read(iova);
    let event = rig.smmu.wait_event();
    let expected = [Event::WALK_ABORT, Event::TRANSLATION, Event::CD_FETCH, Event::STE_FETCH, Event::BAD_STE];
    let is_told = event.is_some_and(|event| expected.contains(&event.reason()) && event.stream() == STREAM);
    check!(is_told, "{what} at {name}: the guest is told"; event);
    rig.smmu.drain_events();
}

/// The hypervisor's address in the machine is an address of our own RAM as well: there the device reaches our RAM.
fn own_at(rig: &mut Rig, at: u64) {
    rig.space.map(IOVA, at, Access::Both);
    check!(rig.smmu.sync(&[command::tlbi_all()]), "flushed");
    check!(rig.probe.reaches(IOVA, at), "the hypervisor's address: our own memory");
    rig.space.unmap(IOVA);
    check!(rig.smmu.sync(&[command::tlbi_all()]), "and flushed again");
}

/// The command queue at the target: an abort, which the guest gets over.
fn command_queue(rig: &mut Rig, Target { name, at }: Target) {
    let smmu = rig.smmu;
    assert!(smmu.set_control(register::SMMUEN), "the queues go off");
    smmu.write64(register::CMDQ_BASE, at | 8);
    smmu.write(register::CMDQ_PROD, 0);
    smmu.write(register::CMDQ_CONS, 0);
    assert!(smmu.set_control(register::QUEUES | register::SMMUEN), "the queues go on");
    smmu.write(register::CMDQ_PROD, 16);
    let error = smmu.error();
    check!(error == Some(register::ERROR_ABORT), "commands at {name}: CERROR_ABT"; error);
    assert!(smmu.set_control(register::SMMUEN), "the queues go off");
    smmu.acknowledge();
}

/// Events, and messages about events, at the target: lost, and said so.
fn event_queue(rig: &mut Rig, Target { name, at }: Target) {
    let smmu = rig.smmu;
    assert!(smmu.set_control(register::SMMUEN), "the queues go off");
    smmu.write64(register::EVENTQ_BASE, at | 7);
    smmu.write(register::EVENTQ_PROD, 0);
    smmu.write(register::EVENTQ_CONS, 0);
    assert!(smmu.set_control(register::QUEUES | register::SMMUEN), "the queues go on");
    rig.probe.read(IOVA);
    timer::wait_until(500, || smmu.read(register::GERROR) != smmu.read(register::GERRORN));
    let active = smmu.acknowledge();
    check!(active == register::GERROR_EVENTQ, "events at {name}: EVENTQ_ABT_ERR"; active);
}

/// Messages of CMD_SYNC and of the event queue at the target.
fn messages(rig: &mut Rig, Target { name, at }: Target) {
    let smmu = rig.smmu;
    smmu.submit(&[command::sync_message(at + 0x40, 0xa77a_c4a7)]);
    check!(smmu.is_drained(), "message at {name}: the queue goes on");
    let active = smmu.acknowledge();
    check!(active == register::GERROR_MSI_CMDQ, "message at {name}: MSI_CMDQ_ABT_ERR"; active);
    smmu.write(register::IRQ_CTRL, 0);
    smmu.write64(register::EVENTQ_IRQ_CFG0, at + 0x40);
    smmu.write(register::IRQ_CTRL, register::IRQ_EVENTQ);
    rig.probe.read(IOVA);
    check!(smmu.wait_event().is_some(), "message at {name}: the event is there");
    let active = smmu.acknowledge();
    check!(active == register::GERROR_MSI_EVENTQ, "message at {name}: MSI_EVENTQ_ABT_ERR"; active);
    smmu.drain_events();
    smmu.write(register::IRQ_CTRL, 0);
    smmu.write64(register::EVENTQ_IRQ_CFG0, 0);
    smmu.write(register::IRQ_CTRL, register::IRQ_EVENTQ | register::IRQ_GERROR);
}

fn main() {
    timer::delay_ms(params::number("wait", 0));
    let mut rig = Rig::new(1);
    check!(rig.start() && rig.works(), "stage 1 works");
    own_at(&mut rig, params::number("hyp", 0x4020_0000));
    for (number, target) in (0..).zip(targets()) {
        leaf(&mut rig, number, target);
    }
    check!(rig.works(), "stage 1 works after pages");
    tables::attack(&mut rig);
    for target in few_targets() {
        messages(&mut rig, target);
    }
    for target in few_targets() {
        event_queue(&mut rig, target);
    }
    for target in targets() {
        command_queue(&mut rig, target);
    }
    check!(rig.start() && rig.works(), "stage 1 works after queues");
}
