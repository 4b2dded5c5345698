//! Dies with a thousand loaded maps and DMA under way, again and again: the device is quiet first, and nothing leaks.
//! With `end=stop` it waits to be stopped instead, its device at work.
#![no_std]
#![no_main]
#![allow(clippy::cast_possible_truncation, reason = "small numbers, 64-bit addresses")]

use bulkhead_bus_dma::{Counter, Direction, Map, Span, Tag};
use bulkhead_guest_tests::{
    check,
    dmamap::{self, HvcBus, Probe},
    edu::{BUFFER_BYTES, Edu},
    mem, params, println, program, psci, timer,
};

program!(main);

const MAPS: u64 = 1000;
const PAGE: u64 = 4096;

/// A thousand maps, all loaded; the first's IOVA.
fn load_all(bus: &HvcBus, at: u64) -> u64 {
    let mut first = 0;
    for place in 0..MAPS {
        let map = Map::create(bus, (place % 8) as u8, &Tag::new(2 * PAGE, 2));
        let map = map.unwrap_or_else(|error| panic!("map {place}: {error}"));
        let span = Span { ipa: at + place % 256 * PAGE, bytes: PAGE };
        let loaded = map.load(bus, Direction::Both, span).unwrap_or_else(|refused| panic!("map {place}: {refused}"));
        if place == 0 {
            first = loaded.iova();
        }
    }
    first
}

fn main() {
    let at = params::scratch();
    let target = at + 0x10_0000;
    let left = mem::read64(target);
    let bus = dmamap::attach(at);
    let edu = Edu::first();
    check!(left == 0, "memory is zero");
    let counters = [Counter::Maps, Counter::LeasedBytes, Counter::Creates, Counter::Loads];
    let counts = counters.map(|counter| bus.counter(counter));
    check!(counts == [Ok(0); 4], "no map is left"; counts);

    let mut probe = Probe::new(&bus, edu, 0, at + 0x1000);
    // Longer than the DMA that was under way when the VM died, if it is.
    timer::delay_ms(300);
    check!((0..256 * PAGE).step_by(8).all(|offset| mem::read64(target + offset) == 0), "no DMA came from before");
    // Leases are given out as in the boot before: this one was the first of the thousand.
    let map = Map::create(&bus, 0, &Tag::new(2 * PAGE, 2)).expect("a map");
    check!(probe.is_refused(map.base(), target), "the IOVA of before leads nowhere");
    map.destroy(&bus).expect("destroyed");

    let first = load_all(&bus, target);
    check!(bus.counter(Counter::Maps) == Ok(MAPS + 2), "a thousand maps are loaded");
    check!(probe.reaches(first, target, PAGE), "the first of them is there");
    if params::argument("end") == Some("stop") {
        println!("waits to be stopped");
        loop {
            edu.write(first, 0, BUFFER_BYTES);
        }
    }
    if timer::seconds() >= params::number("until", 12) {
        println!("enough deaths");
        return;
    }
    edu.start_write(first, 0, BUFFER_BYTES);
    println!("dies with DMA under way: {}", edu.is_busy());
    psci::system_reset();
}
