//! A BAR pointed where the machine has the hypervisor (`at=`), then read: own registers, ones, or the end; nothing else.
#![no_std]
#![no_main]

use bulkhead_guest_tests::{
    check,
    edu::{self, Edu},
    mem, params, pci, println, program, timer,
};

program!(main);

fn main() {
    let at = params::number("at", 0x4800_0000);
    let edu = Edu::first();
    timer::delay_ms(params::number("wait", 0));
    edu.function.set_command(0);
    edu.function.set_bar(0, u32::try_from(at).expect("below 4 GiB"));
    edu.function.set_command(pci::MEMORY_ENABLE);
    println!("reading {at:#x} with a BAR there");
    let own = [edu::IDENTIFICATION, u32::MAX, 0];
    let mut is_own = own.contains(&mem::read32(at));
    for offset in [4, 0x1000, 0x8_0000] {
        // Registers without a meaning read as ones or zeros.
        is_own &= matches!(mem::read32(at + offset), 0 | u32::MAX);
    }
    check!(is_own, "nothing of the hypervisor is seen there");
}
