//! The vector registers are the guest's: no trap and no interrupt changes one.
#![no_std]
#![no_main]

use bulkhead_core::vplat::GICD_BASE;
use bulkhead_guest_tests::{
    check, code, cpu, fp,
    gic::{self, Bank},
    irq, mem, program, psci, smp,
    timer::{self, Timer},
};

program!(main);

fn on_interrupt(intid: u32) {
    if intid == 27 {
        Timer::Virtual.set(timer::ticks(200));
    }
}

fn survives(what: &str, body: impl Fn()) {
    let seed = 0x1234_5678_9abc_def0 ^ what.len() as u64;
    fp::fill(seed);
    body();
    let changed = fp::changed(seed);
    check!(changed == 0, "{what}"; changed);
}

fn body() {
    survives("a hypervisor call", || {
        psci::call32(psci::VERSION, [0; 3]);
    });
    survives("a trapped register", || {
        code::Encoding::new(3, 0, 0, 4, 0).map(code::read);
    });
    survives("an emulated distributor", || {
        mem::read32(GICD_BASE.as_u64());
    });
    survives("an emulated UART", || bulkhead_guest_tests::println!("text"));
    survives("100 ms of timer interrupts", || {
        gic::set(27, Bank::Enable);
        Timer::Virtual.set(timer::ticks(200));
        cpu::unmask();
        timer::delay_ms(100);
        // A loaded host may be late with them.
        timer::wait_until(5000, || irq::count(cpu::index(), 27) > 10);
        cpu::mask();
        Timer::Virtual.stop();
    });
    survives("100 SGIs to itself", || {
        cpu::unmask();
        for _ in 0..100 {
            gic::send_sgi(1, 1 << cpu::index());
        }
        cpu::mask();
    });
}

fn secondary() {
    gic::init_cpu();
    body();
}

fn main() {
    gic::init();
    irq::set_handler(on_interrupt);
    body();
    check!(irq::count(0, 27) > 10, "there were interrupts");
    smp::start(1, secondary);
    timer::wait_until(5000, || psci::affinity_info(1) == 1);
}
