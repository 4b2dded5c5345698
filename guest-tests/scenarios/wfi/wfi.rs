//! Sleep ends: by a timer, by the other CPU's SGI, masked or not; WFE by the other CPU's event.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bulkhead_guest_tests::{
    check, cpu,
    gic::{self, Bank},
    irq, program, smp,
    timer::{self, Timer},
};

program!(main);

static IS_UP: AtomicBool = AtomicBool::new(false);
static ASKED: AtomicU32 = AtomicU32::new(0);

fn secondary() {
    gic::init_cpu();
    IS_UP.store(true, Ordering::SeqCst);
    let mut answered = 0;
    loop {
        let asked = ASKED.load(Ordering::SeqCst);
        if asked != answered {
            answered = asked;
            // Let cpu 0 fall asleep first.
            timer::delay_ms(5);
            gic::send_sgi(2, 1);
            cpu::dsb();
            cpu::sev();
        }
        core::hint::spin_loop();
    }
}

fn on_interrupt(intid: u32) {
    if intid == 27 {
        Timer::Virtual.stop();
    }
}

fn main() {
    gic::init();
    irq::set_handler(on_interrupt);
    gic::set(27, Bank::Enable);

    let start = Timer::Virtual.count();
    Timer::Virtual.set(timer::ticks(50_000));
    while !Timer::Virtual.is_due() {
        cpu::wfi();
    }
    let slept = Timer::Virtual.count() - start;
    Timer::Virtual.stop();
    check!(slept >= timer::ticks(50_000) && slept < timer::ticks(2_000_000), "masked WFI ends by the timer");

    cpu::unmask();
    Timer::Virtual.set(timer::ticks(50_000));
    while irq::count(0, 27) == 0 {
        cpu::wfi();
    }
    check!(irq::count(0, 27) == 1, "WFI ends with the timer's interrupt taken");

    smp::start(1, secondary);
    timer::wait_until(2000, || IS_UP.load(Ordering::SeqCst));
    for round in 1..=200 {
        ASKED.store(round, Ordering::SeqCst);
        while irq::count(0, 2) < round {
            cpu::wfi();
        }
    }
    check!(irq::count(0, 2) == 200, "WFI ends 200 times by the other CPU's SGI");

    ASKED.store(1000, Ordering::SeqCst);
    cpu::wfe();
    check!(timer::wait_until(2000, || irq::count(0, 2) == 201), "WFE ends by an event");
    check!(irq::spurious() == 0, "no spurious interrupt");
}
