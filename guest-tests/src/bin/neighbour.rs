//! The neighbour: keeps a pattern in all of its memory, ticks, and says that it is alive.
#![no_std]
#![no_main]

use bulkhead_guest_tests::{
    check, cpu,
    gic::{self, Bank},
    irq, mem, params, println, program,
    timer::{self, Timer},
};

program!(main);

fn on_interrupt(intid: u32) {
    if intid == 27 {
        Timer::Virtual.set(timer::ticks(10_000));
    }
}

/// `beats=N`, one each half second; `seed=S` of its pattern; `stride=BYTES` from one word of it to the next.
fn main() {
    let beats = params::number("beats", 6);
    let seed = params::number("seed", 0x5e17_17e1);
    gic::init();
    irq::set_handler(on_interrupt);
    gic::set(27, Bank::Enable);
    Timer::Virtual.set(timer::ticks(10_000));
    cpu::unmask();

    let start = params::scratch();
    let bytes = params::ram_end() - start;
    let stride = params::number("stride", 8);
    mem::fill_sparse(start, bytes, stride, seed);
    println!("sentinel over {bytes:#x} bytes");
    for beat in 1..=beats {
        let ticks_before = irq::count(0, 27);
        timer::delay_ms(500);
        // Generous: the machine that runs this may be busy.
        let is_ticking = timer::wait_until(5000, || irq::count(0, 27) > ticks_before + 5);
        let changed = mem::find_changed_sparse(start, bytes, stride, seed);
        if is_ticking && changed.is_none() {
            println!("alive {beat}");
        } else {
            println!("FAIL: beat {beat}: ticking {is_ticking}, changed {changed:x?}");
        }
    }
    let changed = mem::find_changed_sparse(start, bytes, stride, seed);
    check!(changed.is_none(), "sentinel unchanged"; changed);
}
