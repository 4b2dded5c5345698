//! Counts the A64 instructions of the DMA map paths and of the virtual SMMU: run directly on QEMU with `-cpu max -icount shift=0`.
//!
//! There CNTPCT advances by one an instruction. Every figure is the difference of two run lengths, so that set-up
//! cancels; from those of maps and flushes, the same difference of the same loop around functions that do nothing is taken away.
//! Lines: `count NAME instructions=N` and `figure NAME value=V`.
#![no_std]
#![no_main]

extern crate alloc;

mod leases;
mod maps;
mod meter;
mod stage1;
mod submit;
mod vsmmu;

use bulkhead_guest_tests::{
    heap::{self, Heap},
    program,
};

#[global_allocator]
static HEAP: Heap = Heap;

program!(main);

/// Pages of the stack: a space and its storage pass over it by value.
const STACK_PAGES: usize = 64;

fn main() {
    heap::init();
    heap::with_stack(STACK_PAGES, count);
}

extern "C" fn count() {
    meter::check();
    leases::run();
    stage1::run();
    submit::run();
    vsmmu::run();
    maps::run();
}
