//! Maps, loads and a fault of known number, for the hypervisor's shell to show. The shell ends the VM.
#![no_std]
#![no_main]

use bulkhead_bus_dma::{Counter, Direction, Map, Span, Tag};
use bulkhead_guest_tests::{check, cpu, dmamap, edu::Edu, params, program};

program!(main);

const PAGE: u64 = 4096;

fn main() {
    let at = params::scratch();
    let bus = dmamap::attach(at);
    let mut map = Map::create(&bus, 0, &Tag::new(3 * PAGE, 3)).expect("a map");
    let spans = [(0x1000, 100), (0x3000, PAGE), (0x8000, 1448)].map(|(offset, bytes)| Span { ipa: at + offset, bytes });
    for _ in 0..10 {
        let loaded = map.load(&bus, Direction::Both, spans).expect("loaded");
        (map, _) = loaded.unload(&bus).expect("unloaded");
    }
    let other = Map::create(&bus, 1, &Tag::single(PAGE)).expect("a map");
    let loaded = other.load(&bus, Direction::DeviceReads, Span { ipa: at, bytes: PAGE }).expect("loaded");
    check!(Edu::first().read(loaded.iova(), 0, 8), "the first device reads what is loaded");
    if let Some(second) = Edu::find(1) {
        check!(second.read(loaded.iova() + PAGE, 0, 8), "the second device tries the guard page");
    }
    let sampled = [Counter::SampledPages, Counter::TouchedPages].map(|counter| bus.counter(counter));
    check!(sampled == [Ok(0), Ok(0)], "nothing is sampled without access flags"; sampled);
    check!(bus.counter(Counter::Loads) == Ok(11), "eleven loads: over to the shell");
    loop {
        cpu::wfi();
    }
}
