//! The edu device in its own VM: registers, DMA in both directions, bus mastering off and on.
#![no_std]
#![no_main]

use bulkhead_core::vplat::RAM_BASE;
use bulkhead_guest_tests::{
    check,
    edu::{self, BUFFER_BYTES, Edu},
    mem, params, pci, program,
};

program!(main);

/// Memory to the device and back to another place.
fn round_trip(edu: Edu, from: u64, to: u64, bytes: u64) -> bool {
    mem::fill(from, bytes, from ^ to);
    mem::fill(to, bytes + 8, 0xdead);
    let is_ended = edu.read(from, 0, bytes) && edu.write(to, 0, bytes);
    let is_copied = mem::find_changed(to, bytes, from ^ to).is_none();
    // And not a byte more.
    let is_exact = mem::read64(to + bytes) == mem::pattern(0xdead, bytes);
    is_ended && is_copied && is_exact
}

fn main() {
    let edu = Edu::first();
    check!(edu.identification() == edu::IDENTIFICATION, "identification");
    check!(edu.liveness(0x1234_5678) == !0x1234_5678, "liveness");

    let base = params::scratch();
    check!(round_trip(edu, base, base + 0x10_0000, BUFFER_BYTES), "a page, there and back");
    check!(round_trip(edu, base + 8, base + 0x10_0ff8, 24), "24 bytes over a page boundary");
    check!(round_trip(edu, base + 0x1f_f800, base + 0x3f_f800, BUFFER_BYTES), "over a 2 MiB boundary");
    let last = params::ram_end() - BUFFER_BYTES;
    check!(round_trip(edu, last, base, BUFFER_BYTES), "from the last page of RAM");
    check!(round_trip(edu, base, last - 8, BUFFER_BYTES), "to the end of RAM, but for 8 bytes");
    // Reading the first page shows this program's own header.
    check!(edu.read(RAM_BASE.as_u64(), 0, 64) && edu.write(base, 0, 64), "from the first page of RAM");
    check!(mem::read32(base + 56) == u32::from_le_bytes(*b"ARM\x64"), "which holds the Image header");

    edu.read(base + 0x10_0000, 0, 64);
    mem::fill(base, 64, 7);
    edu.function.set_command(pci::MEMORY_ENABLE);
    edu.write(base, 0, 64);
    check!(mem::find_changed(base, 64, 7).is_none(), "bus mastering off: nothing is written");
    edu.function.set_command(pci::MEMORY_ENABLE | pci::BUS_MASTER);
    check!(round_trip(edu, base, base + 0x1000, 64), "bus mastering on: it works again");
}
