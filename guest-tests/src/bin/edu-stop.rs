//! Ends with DMA under way: `how=off` by SYSTEM_OFF, `how=stray` by a stray access, `how=reset` boots once more.
#![no_std]
#![no_main]

use bulkhead_guest_tests::{
    check, cpu,
    edu::{self, BUFFER_BYTES, Edu},
    gic::{self, Bank},
    mem, params, pci, println, program, psci,
    sysreg::{ICC_EOIR1_EL1, ICC_HPPIR1_EL1, ICC_IAR1_EL1},
    timer,
};

program!(main);

/// DMA of the edu starts 100 ms after the command.
fn start_dma(edu: Edu, at: u64) {
    mem::fill(at, BUFFER_BYTES, 0xd0a);
    let is_loaded = edu.read(at, 0, BUFFER_BYTES);
    mem::fill(at, BUFFER_BYTES, 0);
    edu.start_write(at, 0, BUFFER_BYTES);
    println!("DMA under way: {}", is_loaded && edu.is_busy());
}

/// The line is up and the interrupt active when the VM goes down.
fn raise(edu: Edu) {
    gic::init();
    gic::set(edu.function.intid(), Bank::Enable);
    edu.raise(1);
    timer::wait_until(1000, || ICC_HPPIR1_EL1.read() != 1023);
    println!("active: {}", ICC_IAR1_EL1.read() == u64::from(edu.function.intid()));
}

/// What the second boot finds.
fn after_reset(at: u64) {
    let function = pci::Function::find(edu::ID, 0).expect("the edu is still ours");
    check!(function.command() & (pci::BUS_MASTER | pci::MEMORY_ENABLE) == 0, "Command is as after a reset");
    // More than the DMA's 100 ms, without bus mastering and then with it.
    timer::delay_ms(400);
    check!((0..BUFFER_BYTES).step_by(8).all(|o| mem::read64(at + o) == 0), "DMA from before the reset wrote nothing");
    let edu = Edu::first();
    edu.wait();
    mem::fill(at, 64, 5);
    check!(edu.read(at, 0, 64) && edu.write(at + 0x1000, 0, 64), "DMA ends");
    check!(mem::find_changed(at + 0x1000, 64, 5).is_none(), "DMA works again");
    gic::init();
    let intid = edu.function.intid();
    edu.acknowledge(u32::MAX);
    gic::set(intid, Bank::Enable);
    timer::delay_ms(5);
    // The line of before may be taken once more.
    let stale = ICC_IAR1_EL1.read();
    if stale != 1023 {
        ICC_EOIR1_EL1.write(stale);
    }
    edu.raise(2);
    let came = timer::wait_until(1000, || ICC_HPPIR1_EL1.read() == u64::from(intid));
    check!(came && ICC_IAR1_EL1.read() == u64::from(intid), "its interrupt works again");
    edu.acknowledge(2);
    ICC_EOIR1_EL1.write(u64::from(intid));
}

fn main() {
    let how = params::argument("how").unwrap_or("off");
    let at = params::scratch();
    // The physical counter goes on through a reset, memory does not: `until` tells the boots apart.
    let is_second = timer::seconds() >= params::number("until", u64::MAX);
    if is_second {
        after_reset(at);
        return;
    }
    let edu = Edu::first();
    timer::delay_ms(params::number("wait", 0));
    if how == "reset" {
        raise(edu);
        while timer::seconds() < params::number("until", 0) {}
    }
    start_dma(edu, at);
    cpu::dsb();
    match how {
        "off" => psci::system_off(),
        "reset" => psci::system_reset(),
        _ => {
            mem::read32(0x3000_0000);
        }
    }
    println!("FAIL: it went on");
}
