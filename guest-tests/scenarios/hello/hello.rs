//! Says hello: the least that a guest needs.
#![no_std]
#![no_main]

use bulkhead_guest_tests::{boot, check, cpu, params, println, program};

program!(main);

fn main() {
    println!("hello from EL{}, cpu {}", cpu::exception_level(), cpu::index());
    println!("cmdline: {}", params::arguments());
    println!("{} cpus, ram ends at {:#x}", params::cpus(), params::ram_end());
    check!(boot::image_start() >= 0x4000_0000 && boot::image_end() < params::ram_end(), "loaded inside RAM");
}
