//! Random creates, loads, unloads and destroys, in batches by the ring, under an edu that tries what is loaded and
//! replays what no longer is.
//!
//! `operations=` says how many; the edu accesses one loaded address and one retired one a batch. To be run with
//! `-icount …,sleep=off`: a transfer takes 100 ms of virtual time, through which the guest sleeps.
#![no_std]
#![no_main]
#![allow(clippy::cast_possible_truncation, reason = "small numbers, 64-bit addresses")]

mod device;
mod maps;

use bulkhead_bus_dma::Counter;
use bulkhead_guest_tests::{check, dmamap, gic, heap, irq, params, println, program, random::Random};

use self::{
    device::Device,
    maps::{ARENA_BYTES, Maps},
};

program!(main);

/// Batches from one look at all of the memory to the next.
const LOOK: u64 = 1000;
/// Pages of the stack: the maps and what is in the ring lie there.
const STACK_PAGES: usize = 64;

fn main() {
    heap::init();
    heap::with_stack(STACK_PAGES, start);
}

extern "C" fn start() {
    // Past the stack.
    let at = params::scratch() + 0x10_0000;
    let arena = at + 0x10_0000;
    gic::init();
    irq::set_handler(device::on_interrupt);
    let bus = dmamap::attach(at);
    let mut random = Random::new(params::number("seed", 1));
    let mut device = Device::new(&bus, at + 0x1000);
    let mut maps = Maps::new(&bus, at + 0x1_0000, arena);
    let [tables, leased] = [Counter::Tables, Counter::LeasedBytes].map(|counter| bus.counter(counter));
    let wanted = params::number("operations", 10_000);

    let (mut batches, mut is_clean) = (0u64, true);
    while maps.operations() < wanted {
        maps.churn(&bus, &mut random);
        maps.batch(&bus, &mut random);
        if let Some(live) = maps.any_loaded(&mut random) {
            device.try_loaded(&live, &mut random);
        }
        if let Some(stale) = maps.any_retired(&mut random) {
            device.try_retired(&stale, &mut random);
        }
        batches += 1;
        if batches.is_multiple_of(LOOK) {
            is_clean &= device::is_clean(arena, ARENA_BYTES);
        }
    }
    is_clean &= device::is_clean(arena, ARENA_BYTES);
    println!("strict operations={} batches={batches} {maps} {device}", maps.operations());
    check!(maps.refused() == 0, "each call did what it should"; maps.refused());
    check!(device.wrong_loaded == 0, "what is loaded is reached, as far as its direction goes"; device.wrong_loaded);
    check!(device.wrong_retired == 0, "what was unloaded is not"; device.wrong_retired);
    check!(is_clean, "and nothing else was reached instead");

    maps.destroy_all(&bus);
    let after = [Counter::Tables, Counter::LeasedBytes].map(|counter| bus.counter(counter));
    // Magazines keep leases for loads to come.
    let keeps = params::argument("strategy") == Some("magazine");
    check!(keeps || after == [tables, leased], "tables and leases are as before"; (tables, leased, after));
    device.destroy(&bus);
    let left = bus.counters(Counter::Maps);
    let is_back = left.is_ok_and(|left| left[0] == 0 && (keeps || left == [0; 3]));
    check!(is_back, "everything was given back"; left);
    check!(bus.counter(Counter::Timeouts) == Ok(0), "each flush was confirmed");
}
