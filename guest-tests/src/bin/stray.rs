//! One stray access, by `cpu=`: `how=` and `at=` say which, `wait=` after how many milliseconds. It is not to come back.
#![no_std]
#![no_main]

use bulkhead_core::vplat::{GICD_BASE, UART_BASE};
use bulkhead_guest_tests::{cpu, mem, mmu, params, println, program, psci, smp, timer};

program!(main);

fn main() {
    if params::number("cpu", 0) == 0 {
        access();
    } else {
        smp::start(1, access);
        // `busy=1` spins, or else sleeps: the VM must end from either.
        while params::number("busy", 0) != 0 {
            core::hint::spin_loop();
        }
        cpu::halt();
    }
}

fn access() {
    let how = params::argument("how").expect("how= is given");
    let at = params::number("at", 0x3000_0000);
    timer::delay_ms(params::number("wait", 0));
    match params::argument("at") {
        Some(_) => println!("about to {how} {at:#x}"),
        None => println!("about to {how}"),
    }
    match how {
        "read" => {
            mem::read32(at);
        }
        "read8" => {
            mem::read8(at);
        }
        "write" => mem::write64(at, 0x6666_6666_6666_6666),
        "fetch" => mem::fetch(at),
        "ldp" => {
            mem::read_pair(at);
        }
        "stp" => mem::write_pair(at, 1, 2),
        "zero" => mem::zero_block(at),
        "exclusive" => {
            mem::read_exclusive(at);
        }
        "past-ram" => {
            mem::read64(params::ram_end());
        }
        "beyond-ipa" => {
            mem::read64(mmu::BEYOND_IPA);
        }
        "walk" => mmu::walk_from(at),
        "vectors" => mmu::vectors_at(at),
        "stack" => mmu::stack_at(at),
        "off" => psci::system_off(),
        "clean" => mem::clean_line(at),
        // The emulated devices, in ways that no syndrome describes. Each may be emulated or end the VM.
        "uart-exclusive" => {
            mem::read_exclusive(mmu::NORMAL_ALIAS + UART_BASE.as_u64());
        }
        "uart-fetch" => mem::fetch(mmu::NORMAL_ALIAS + UART_BASE.as_u64()),
        "gic-ldp" => {
            mem::read_pair(GICD_BASE.as_u64());
        }
        "gic-stp" => mem::write_pair(GICD_BASE.as_u64(), 1, 2),
        "gic-post" => {
            mem::read32_post_indexed(GICD_BASE.as_u64());
        }
        "gic-zero" => mem::zero_block(mmu::NORMAL_ALIAS + GICD_BASE.as_u64()),
        _ => panic!("how={how}"),
    }
    println!("came back from {how}");
}
