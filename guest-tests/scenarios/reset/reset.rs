//! SYSTEM_RESET: the VM boots again, its memory is as after the first boot, and nothing is left over.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, Ordering};

use bulkhead_guest_tests::{
    check, cpu,
    gic::{self, Bank},
    mem, params, println, program, psci, smp,
    sysreg::{ICC_HPPIR1_EL1, ICC_IAR1_EL1, ICC_RPR_EL1},
    timer::{self, Timer},
};

program!(main);

const BYTES: u64 = 1 << 20;

static IS_RESETTER: AtomicBool = AtomicBool::new(false);

fn spin() {
    loop {
        if cpu::index() == 1 && IS_RESETTER.load(Ordering::SeqCst) {
            println!("cpu 1 resets");
            psci::system_reset();
        }
        core::hint::spin_loop();
    }
}

fn main() {
    let until = params::number("until", 4);
    let at = params::scratch();
    check!((0..BYTES).step_by(8).all(|offset| mem::read64(at + offset) == 0), "memory is zero");
    check!(psci::affinity_info(1) == 1, "cpu 1 is off");
    gic::init_cpu();
    check!(ICC_RPR_EL1.read() == 0xff && ICC_HPPIR1_EL1.read() == 1023, "no interrupt active or pending");
    check!(!gic::is_set(40, Bank::SetActive) && !gic::is_set(40, Bank::Enable), "the distributor is as new");
    gic::init();

    if timer::seconds() >= until {
        println!("enough boots");
        return;
    }
    mem::fill(at, BYTES, 1);
    smp::start(1, spin);
    gic::set(40, Bank::Enable);
    gic::set(40, Bank::SetPending);
    timer::wait_until(1000, || ICC_HPPIR1_EL1.read() == 40);
    let active = ICC_IAR1_EL1.read();
    gic::set(27, Bank::Enable);
    Timer::Virtual.set(0);
    timer::delay_ms(300);
    cpu::dsb();
    if params::number("cpu", 0) == 1 {
        IS_RESETTER.store(true, Ordering::SeqCst);
        spin();
    }
    println!("resetting with {active} active, a timer due and cpu 1 running");
    psci::system_reset();
}
