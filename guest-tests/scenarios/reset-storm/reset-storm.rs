//! CPU_ON and SYSTEM_RESET in one breath, boot after boot: the started CPU finds its VM on the way out.
#![no_std]
#![no_main]

use bulkhead_guest_tests::{params, println, program, psci, smp, timer};

program!(main);

fn never() {
    println!("started");
}

fn main() {
    // Memory is as new after each boot; the physical counter alone goes on.
    if timer::seconds() >= params::number("until", 6) {
        println!("enough boots");
        return;
    }
    smp::start(1, never);
    psci::system_reset();
}
