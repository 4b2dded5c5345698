//! Whole pages of faults, one after the other; then a reset, after which the device works.
#![no_std]
#![no_main]

use bulkhead_guest_tests::{
    check,
    edu::{BUFFER_BYTES, Edu},
    mem, params, println, program, psci, timer,
};

program!(main);

/// Up to `until=` seconds of the physical counter, which goes on through a reset, it floods.
fn main() {
    let until = params::number("until", 5);
    let at = params::scratch();
    let edu = Edu::first();
    edu.wait();
    if timer::seconds() >= until {
        mem::fill(at, BUFFER_BYTES, 1);
        let is_ended = edu.read(at, 0, BUFFER_BYTES) && edu.write(at + 0x1_0000, 0, BUFFER_BYTES);
        let changed = mem::find_changed(at + 0x1_0000, BUFFER_BYTES, 1);
        check!(is_ended && changed.is_none(), "DMA works after the reset"; changed);
        return;
    }
    println!("flooding");
    let mut page = params::ram_end();
    while timer::seconds() < until {
        edu.write(page, 0, BUFFER_BYTES);
        page += BUFFER_BYTES;
    }
    println!("resetting");
    psci::system_reset();
}
