//! The edu device aimed at everything that is not this VM's memory: nothing is written, nothing is read.
#![no_std]
#![no_main]

use bulkhead_core::vplat::{ECAM_BASE, GICD_BASE, PCI_MEM_BASE, UART_BASE};
use bulkhead_guest_tests::{
    check,
    edu::{BUFFER_BYTES, Edu},
    mem, params, println, program, timer,
};

program!(main);

/// The least that a transfer has: one fault for a write, one for a read.
const PROBE_BYTES: u64 = 4;
/// A transfer over the end of RAM.
const STRADDLE_BYTES: u64 = 64;
const ATTACK: u64 = 0xa77a_c4a7_7ac4_a77a;

/// Where our own scratch memory has its parts.
struct Buffers {
    /// What the device is filled with.
    pattern: u64,
    /// Where its buffer is looked at.
    result: u64,
}

fn load_pattern(edu: Edu, buffers: &Buffers) -> bool {
    mem::fill(buffers.pattern, BUFFER_BYTES, ATTACK);
    edu.read(buffers.pattern, 0, BUFFER_BYTES)
}

/// What the device's buffer holds after it was told to read the target: our pattern, ones or zeros, never more. Where the
/// device has been stopped, the buffer does not come to us either, and what we laid there stays.
fn has_read_nothing(edu: Edu, buffers: &Buffers, bytes: u64) -> bool {
    for offset in (0..BUFFER_BYTES).step_by(4) {
        mem::write32(buffers.result + offset, 0x3333_3333);
    }
    edu.write(buffers.result, 0, bytes);
    (0..bytes).step_by(4).all(|offset| {
        let word = mem::read32(buffers.result + offset);
        word == mem::read32(buffers.pattern + offset) || word == 0x3333_3333 || word == 0 || word == u32::MAX
    })
}

fn attack(edu: Edu, buffers: &Buffers, name: &str, target: u64, bytes: u64) {
    println!("target {name} at {target:#x}");
    let is_loaded = load_pattern(edu, buffers);
    edu.write(target, 0, bytes);
    edu.read(target, 0, bytes);
    // Let the hypervisor's line come before ours.
    timer::delay_ms(50);
    check!(is_loaded && has_read_nothing(edu, buffers, bytes), "{name}: nothing foreign was read");
}

/// The physical address of the hypervisor is an address of our own RAM as well: there the device reaches our RAM.
fn own_at(edu: Edu, buffers: &Buffers, name: &str, target: u64) {
    mem::fill(target, BUFFER_BYTES, 9);
    load_pattern(edu, buffers);
    edu.write(target, 0, BUFFER_BYTES);
    let changed = mem::find_changed(target, BUFFER_BYTES, ATTACK);
    check!(changed.is_none(), "{name}: the device writes our own memory there"; changed);
    mem::fill(target, BUFFER_BYTES, 11);
    edu.read(target, 0, BUFFER_BYTES);
    edu.write(buffers.result, 0, BUFFER_BYTES);
    let changed = mem::find_changed(buffers.result, BUFFER_BYTES, 11);
    check!(changed.is_none(), "{name}: and reads it"; changed);
}

fn straddle(edu: Edu, buffers: &Buffers) {
    let half = STRADDLE_BYTES / 2;
    let start = params::ram_end() - half;
    mem::fill(start, half, 13);
    println!("target straddle at {start:#x}");
    load_pattern(edu, buffers);
    edu.write(start, 0, STRADDLE_BYTES);
    let own = (0..half).step_by(8).all(|offset| {
        let word = mem::read64(start + offset);
        word == mem::pattern(ATTACK, offset) || word == mem::pattern(13, offset)
    });
    timer::delay_ms(50);
    check!(own, "straddle: our half holds what was sent or what it held");
}

fn main() {
    let edu = Edu::first();
    let base = params::scratch();
    let ram_end = params::ram_end();
    let buffers = Buffers { pattern: base + 0x10_0000, result: base + 0x11_0000 };

    own_at(edu, &buffers, "the hypervisor's address", params::number("hyp", 0x4020_0000));
    own_at(edu, &buffers, "our last page", ram_end - BUFFER_BYTES);

    timer::delay_ms(params::number("wait", 0));
    let victim = params::number("victim", 0x6000_0000);
    let victim_bytes = params::number("victim_bytes", 0x400_0000);
    let targets = [
        ("past-the-end", ram_end),
        ("bundle", params::number("bundle", 0x4800_0000)),
        ("hole", 0x3000_0000),
        ("zero", 0),
        ("uart", UART_BASE.as_u64()),
        ("gicd", GICD_BASE.as_u64()),
        ("its", 0x0809_0000),
        ("smmu", 0x0905_0000),
        ("ecam", ECAM_BASE.as_u64()),
        ("own-registers", edu.base()),
        ("above-ipa", 0x80_0000_0000),
        ("top", 0xffff_ffff_ffff_f000),
        ("victim-first", victim),
        ("victim-last", victim + victim_bytes - PROBE_BYTES),
    ];
    // Few faults each: the hypervisor stops naming them when there are too many.
    for (name, target) in targets {
        attack(edu, &buffers, name, target, PROBE_BYTES);
    }
    own_at(edu, &buffers, "afterwards", base + 0x20_0000);
    straddle(edu, &buffers);
    // From here on the hypervisor may silence the device, or stop it altogether.
    attack(edu, &buffers, "whole page", PCI_MEM_BASE.as_u64(), BUFFER_BYTES);
    // Page tables and queues are somewhere in the machine's DRAM, the victim is too.
    let dram_end = params::number("dram_end", 0x4200_0000);
    let step = params::number("step", 0x20_0000);
    let mut target = ram_end.next_multiple_of(0x20_0000);
    while target < dram_end {
        attack(edu, &buffers, "dram", target, BUFFER_BYTES);
        target += step;
    }
}
