//! An exception injected into a guest whose VBAR_EL1 holds all ones: the guest is lost, nobody else is.
#![no_std]
#![no_main]

use bulkhead_guest_tests::{mmu, println, program, psci, smp, timer};

program!(main);

fn lose_the_way() {
    mmu::undefined_with_vectors_at(!0x1f);
}

fn main() {
    smp::start(1, lose_the_way);
    timer::delay_ms(500);
    println!("the other CPU is lost, this one is not");
    psci::system_off();
}
