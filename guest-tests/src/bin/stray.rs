//! One stray access: `how=` and `at=` say which, `wait=` after how many milliseconds. It is not to come back.
#![no_std]
#![no_main]

use bulkhead_core::vplat::{GICD_BASE, UART_BASE};
use bulkhead_guest_tests::{mem, mmu, params, println, program, timer};

program!(main);

fn main() {
    let how = params::argument("how").expect("how= is given");
    let at = params::number("at", 0x3000_0000);
    timer::delay_ms(params::number("wait", 0));
    println!("about to {how} {at:#x}");
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
