//! Two CPUs by PSCI: on, off, on again, and every form of SGI between them.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bulkhead_guest_tests::{check, cpu, gic, irq, program, psci, smp, timer};

program!(main);

const ON: i64 = 0;
const OFF: i64 = 1;

static BOOTS: AtomicU32 = AtomicU32::new(0);
static LEAVE: AtomicBool = AtomicBool::new(false);

fn secondary() {
    gic::init_cpu();
    BOOTS.fetch_add(1, Ordering::SeqCst);
    cpu::unmask();
    while !LEAVE.load(Ordering::SeqCst) {
        cpu::wfi();
    }
    cpu::mask();
}

fn ignore(_intid: u32) {}

fn came(cpu: usize, intid: u32, times: u32) -> bool {
    timer::wait_until(2000, || irq::count(cpu, intid) == times)
}

fn main() {
    gic::init();
    irq::set_handler(ignore);
    cpu::unmask();
    check!(psci::affinity_info(0) == ON, "cpu 0 is on");
    check!(psci::affinity_info(1) == OFF, "cpu 1 is off at first");
    check!(smp::start(1, secondary) == psci::SUCCESS, "CPU_ON succeeds");
    check!(timer::wait_until(2000, || BOOTS.load(Ordering::SeqCst) == 1), "cpu 1 runs, with its context in x0");
    check!(psci::affinity_info(1) == ON, "cpu 1 is on");
    check!(smp::start(1, secondary) == psci::ALREADY_ON, "CPU_ON of a running CPU is refused");

    gic::send_sgi(1, 0b10);
    check!(came(1, 1, 1) && irq::count(0, 1) == 0, "SGI to the other CPU alone");
    gic::send_sgi(2, 0b01);
    check!(came(0, 2, 1) && irq::count(1, 2) == 0, "SGI to itself alone");
    gic::send_sgi(3, 0b11);
    check!(came(0, 3, 1) && came(1, 3, 1), "SGI to a list of both");
    gic::send_sgi_to_others(4);
    check!(came(1, 4, 1) && irq::count(0, 4) == 0, "SGI to all but itself");
    gic::send_sgi(5, 0b1111_1111_1111_1100);
    gic::send_sgi(6, 0);
    for intid in 0..16 {
        gic::send_sgi(intid, 0b10);
        timer::wait_until(2000, || irq::count(1, intid) > 0);
    }
    let all_came = (0..16).all(|intid| irq::count(1, intid) == 1 + u32::from(matches!(intid, 1 | 3 | 4)));
    check!(all_came, "each of the 16 SGIs comes once; SGIs to CPUs that are not there go nowhere");

    for round in 0..500 {
        gic::send_sgi(7, 0b10);
        if !came(1, 7, 2 + round) {
            break;
        }
    }
    check!(irq::count(1, 7) == 501, "500 SGIs one after the other, each comes"; irq::count(1, 7));

    for round in 2..=5 {
        LEAVE.store(true, Ordering::SeqCst);
        gic::send_sgi(8, 0b10);
        let is_off = timer::wait_until(2000, || psci::affinity_info(1) == OFF);
        LEAVE.store(false, Ordering::SeqCst);
        let is_started = smp::start(1, secondary) == psci::SUCCESS;
        let is_up = timer::wait_until(2000, || BOOTS.load(Ordering::SeqCst) == round);
        check!(is_off && is_started && is_up, "off and on again, round {}", round - 1; (is_off, is_started, is_up));
    }
    // The VM ends with cpu 1 asleep: SYSTEM_OFF must stop it too.
}
