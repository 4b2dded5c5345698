//! A single TCP stream through a passed-through virtio NIC, each way, in virtual time.
//!
//! `dma=` on the command line chooses how the device reaches memory: `identity` or `dmamap`. `mib=` is how much goes each way.
#![no_std]
#![no_main]

extern crate alloc;

mod dma;
mod hal;
mod nic;
mod pci;
mod stack;
mod stream;

use bulkhead_guest_tests::{
    gic,
    heap::{self, Heap},
    params, println, program,
};

use dma::{Dma, identity::Identity, maps::Maps};
use nic::Nic;
use stack::Stack;
use stream::Way;

#[global_allocator]
static HEAP: Heap = Heap;

program!(main);

/// Pages of the stack: the DMA maps' ring holds all that is under way.
const STACK_PAGES: usize = 64;

fn main() {
    heap::init();
    gic::init();
    heap::with_stack(STACK_PAGES, start);
}

extern "C" fn start() {
    match params::argument("dma").unwrap_or("identity") {
        "identity" => run(Identity::default()),
        "dmamap" => run(Maps::new()),
        other => println!("FAIL: dma={other} is no way to reach memory"),
    }
}

fn run(dma: impl Dma) {
    let bytes = params::number("mib", 4) << 20;
    let Some((transport, intid)) = pci::find_nic() else {
        println!("FAIL: this VM has no virtio NIC");
        return;
    };
    let mut stack = Stack::new(Nic::new(transport, intid, dma));
    for way in [Way::Send, Way::Receive] {
        stream::run(&mut stack, way, bytes);
    }
}
