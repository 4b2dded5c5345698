//! DMA of an edu behind nothing but the hypervisor's own translation, for a while: every transfer must arrive.
#![no_std]
#![no_main]

use bulkhead_guest_tests::{
    check,
    edu::{BUFFER_BYTES, Edu},
    mem, params, println, program,
};

program!(main);

/// `rounds=N` of a page there and back, 200 ms each at least.
fn main() {
    let edu = Edu::first();
    let at = params::scratch();
    let rounds = params::number("rounds", 20);
    println!("traffic");
    let failed = (0..rounds).find(|round| {
        mem::fill(at, BUFFER_BYTES, *round);
        mem::fill(at + 0x1_0000, BUFFER_BYTES, !*round);
        let is_ended = edu.read(at, 0, BUFFER_BYTES) && edu.write(at + 0x1_0000, 0, BUFFER_BYTES);
        !is_ended || mem::find_changed(at + 0x1_0000, BUFFER_BYTES, *round).is_some()
    });
    check!(failed.is_none(), "{rounds} rounds of DMA"; failed);
}
