//! Loads and stores of every form that a syndrome describes, on an emulated device.
#![no_std]
#![no_main]

use bulkhead_core::vplat::GICD_BASE;
use bulkhead_guest_tests::{
    check,
    gic::{self, Bank},
    mem, program,
};

program!(main);

fn main() {
    gic::init();
    let gicd = GICD_BASE.as_u64();
    let typer = gicd + gic::GICD_TYPER;
    let word = mem::read32(typer);
    check!(mem::read_acquire(typer) == word, "load-acquire");

    // An enabled INTID 63 makes the word negative, 0xf0 the priority's byte.
    gic::set(63, Bank::Enable);
    let enabled = gicd + Bank::Enable as u64 + 4;
    let (_, signed_word) = mem::read_signed(enabled);
    check!(signed_word == -0x8000_0000, "32 bits, sign-extended"; signed_word);
    gic::set_priority(40, 0xf0);
    let (signed_byte, _) = mem::read_signed(gicd + gic::PRIORITY + 40);
    check!(signed_byte == -16, "8 bits, sign-extended"; signed_byte);
    check!(mem::read8(gicd + gic::PRIORITY + 40) == 0xf0, "8 bits, zero-extended");
    check!(mem::read32(enabled) == 0x8000_0000, "32 bits");

    mem::write64(gicd + gic::GICD_IROUTER + 40 * 8, 0);
    check!(mem::read64(gicd + gic::GICD_IROUTER + 40 * 8) == 0, "64 bits");
    // From and to the register that is no register: it must not become the stack pointer's neighbour 31.
    mem::touch_with_zero_register(enabled);
    check!(mem::read32(enabled) == 0x8000_0000, "zero register: stores zero, loads nothing");
    mem::write8(gicd + gic::PRIORITY + 41, 0x50);
    mem::write8(gicd + gic::PRIORITY + 43, 0x70);
    let bytes = mem::read32(gicd + gic::PRIORITY + 40);
    check!(bytes == 0x70a0_50f0, "bytes stay in their places"; bytes);
    mem::write32(gicd + gic::PRIORITY + 40, 0x1020_3040);
    check!(mem::read8(gicd + gic::PRIORITY + 42) == 0x20, "a word written is four bytes read");
}
