//! A ring: batches of loads and unloads by one call and one flush, its bounds, and a guest that writes what it likes.
#![no_std]
#![no_main]
#![allow(clippy::cast_possible_truncation, reason = "small numbers, 64-bit addresses")]

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bulkhead_bus_dma::{
    Counter, Direction, Done, Error, Loaded, Map, Ring, Span, Tag,
    abi::{self, ring},
};
use bulkhead_guest_tests::{
    check,
    dmamap::{self, HvcBus, Probe},
    edu::Edu,
    hypercall, params, program,
};

program!(main);

const PAGE: u64 = 4096;
const CHANNEL: u8 = 1;
const ENTRIES: usize = 32;
const BATCH: usize = 32;

type Packet = [Span; 3];
type PacketRing = Ring<'static, Packet, ENTRIES>;

/// Userland's packet: a header somewhere, data over two pages.
fn packet(at: u64, place: u64) -> Packet {
    let at = at + place * 4 * PAGE;
    [(at + 0x40, 66), (at + PAGE + 0x800, 1448), (at + 3 * PAGE - 8, 16)].map(|(ipa, bytes)| Span { ipa, bytes })
}

fn load_batch(
    bus: &HvcBus,
    ring: &mut PacketRing,
    maps: &mut [Option<Map>],
    at: u64,
) -> [Option<Loaded<Packet>>; BATCH] {
    for (place, map) in (0..).zip(maps.iter_mut()) {
        let map = map.take().expect("a map");
        ring.load(bus, map, Direction::Both, packet(at, place)).unwrap_or_else(|refused| panic!("{refused}"));
    }
    let run = ring.run(bus).expect("a run");
    assert_eq!((run.consumed, run.left, run.failed), (BATCH as u64, 0, 0), "each is loaded");
    core::array::from_fn(|_| match ring.take() {
        Some(Done::Loaded(loaded)) => Some(loaded),
        other => panic!("{other:?}"),
    })
}

fn unload_batch(
    bus: &HvcBus,
    ring: &mut PacketRing,
    loaded: [Option<Loaded<Packet>>; BATCH],
    maps: &mut [Option<Map>],
) {
    for loaded in loaded.into_iter().flatten() {
        ring.unload(loaded).unwrap_or_else(|refused| panic!("{refused}"));
    }
    ring.run(bus).expect("a run");
    for map in maps {
        match ring.take() {
            Some(Done::Unloaded(unloaded, _)) => *map = Some(unloaded),
            other => panic!("{other:?}"),
        }
    }
}

fn main() {
    let at = params::scratch();
    let bus = dmamap::attach(at);
    let mut probe = Probe::new(&bus, Edu::first(), 0, at + 0x1000);
    let words = dmamap::words(at + 0x1_0000, 0x1_0000);
    let mut ring: PacketRing = Ring::setup(&bus, CHANNEL, words).expect("a ring");
    let mut maps: [Option<Map>; BATCH] =
        core::array::from_fn(|_| Some(Map::create(&bus, CHANNEL, &Tag::new(2 * PAGE, 3)).expect("a map")));
    let bases = maps.each_ref().map(|map| map.as_ref().map_or(0, Map::base));
    check!(bases.is_sorted(), "maps created in order lie in order"; bases);

    let buffers = at + 0x10_0000;
    let loaded = load_batch(&bus, &mut ring, &mut maps, buffers);
    for place in [0, 13, 31] {
        let spans = packet(buffers, place);
        let segments = loaded[place as usize].as_ref().expect("loaded").segments();
        let reached = [0, 1, 2].map(|n| probe.reaches(segments[n].iova, spans[n].ipa, spans[n].bytes & !7));
        check!(reached == [true; 3], "packet {place} of a batch"; reached);
    }
    let iova = loaded[13].as_ref().expect("loaded").iova();
    let before = bus.counters(Counter::PageCommands).expect("counters");
    let syncs = bus.counter(Counter::Syncs).expect("a counter");
    unload_batch(&bus, &mut ring, loaded, &mut maps);
    let after = bus.counters(Counter::PageCommands).expect("counters");
    check!(bus.counter(Counter::Syncs) == Ok(syncs + 1), "32 unloads, one SYNC");
    let commands: u64 = (0..3).map(|n| after[n] - before[n]).sum();
    check!((1..=32).contains(&commands), "and a few commands"; commands);
    check!(probe.is_refused(iova, packet(buffers, 13)[0].ipa), "unloaded: nothing");

    // A stream of packets: calls, commands and table pages do not grow with them.
    let [calls, tables] = [Counter::Calls, Counter::Tables].map(|counter| bus.counter(counter).expect("a counter"));
    for _ in 0..100 {
        let loaded = load_batch(&bus, &mut ring, &mut maps, buffers);
        unload_batch(&bus, &mut ring, loaded, &mut maps);
    }
    let calls = bus.counter(Counter::Calls).expect("a counter") - calls;
    check!(calls <= 3200 * 2 / 32 + 2, "a call for 32 loads or unloads"; calls);
    check!(bus.counter(Counter::Tables) == Ok(tables), "no table page more");

    refusals(&bus, &mut ring, &mut maps, buffers);
    ring.remove(&bus).unwrap_or_else(|refused| panic!("{refused}"));
    hostile(words);
    for map in maps.into_iter().flatten() {
        map.destroy(&bus).expect("destroyed");
    }
    probe.destroy(&bus);
    check!(bus.counter(Counter::Maps) == Ok(0), "everything was given back");
}

/// One bad entry among good ones; a map loaded again before its batch's SYNC.
fn refusals(bus: &HvcBus, ring: &mut PacketRing, maps: &mut [Option<Map>], at: u64) {
    let uart = [Span { ipa: 0x0900_0000, bytes: 8 }; 3];
    for (place, spans) in [packet(at, 0), uart, packet(at, 1)].into_iter().enumerate() {
        let map = maps[place].take().expect("a map");
        ring.load(bus, map, Direction::Both, spans).unwrap_or_else(|refused| panic!("{refused}"));
    }
    let run = ring.run(bus).expect("a run");
    check!((run.consumed, run.failed) == (3, 1), "one of three is refused"; run);
    for slot in maps.iter_mut().take(3) {
        *slot = match ring.take() {
            Some(Done::Loaded(loaded)) => {
                ring.unload(loaded).unwrap_or_else(|refused| panic!("{refused}"));
                None
            }
            Some(Done::NotLoaded(map, _, error)) => {
                check!(error == Error::Call(abi::Error::NotRam), "it was the UART"; error);
                Some(map)
            }
            other => panic!("{other:?}"),
        };
    }
    ring.run(bus).expect("a run");
    while let Some(Done::Unloaded(map, _)) = ring.take() {
        *maps.iter_mut().find(|slot| slot.is_none()).expect("a slot") = Some(map);
    }
}

/// Indices and entries from a hostile hand, in a ring of 256.
fn hostile(words: &[AtomicU64]) {
    const LOG2: u64 = 8;
    let setup = |ipa| hypercall::hvc(abi::Function::RingSetup.id(), &[CHANNEL.into(), ipa, LOG2])[0];
    let run = || hypercall::hvc(abi::Function::RingRun.id(), &[CHANNEL.into()]);
    let ipa = words.as_ptr().addr() as u64;
    for (name, ipa) in [
        ("RAM's end", params::ram_end() - PAGE),
        ("a boundary of 2 MiB", (ipa & !(abi::BLOCK_BYTES - 1)) + abi::BLOCK_BYTES - PAGE),
        ("UART", 0x0900_0000),
        ("odd", ipa + 64),
        ("top", u64::MAX - PAGE + 1),
    ] {
        check!(setup(ipa) == abi::Error::BadAddress.register(), "no ring at {name}");
    }
    let [producer, consumer] = [ring::PRODUCER_OFFSET, ring::CONSUMER_OFFSET].map(|offset| &words[offset as usize / 8]);
    producer.store(1, Relaxed);
    check!(setup(ipa) == abi::Error::BadRing.register(), "no ring that has begun");
    producer.store(0, Relaxed);
    check!(setup(ipa) == 0, "a ring of 256");
    for ahead in [257, 0x8000_0000, 0xffff_ffff] {
        producer.store(ahead, Relaxed);
        check!(run()[0] == abi::Error::BadRing.register(), "producer {ahead:#x} ahead");
    }
    // A consumer in memory that lies, and entries of all ones: each fails, none is skipped.
    consumer.store(0x55aa, Relaxed);
    producer.store(256, Relaxed);
    for word in &words[32..32 + 256 * 16] {
        word.store(u64::MAX, Relaxed);
    }
    check!(run() == [0, 128, 128, 128], "a run takes 128");
    check!(run() == [0, 128, 0, 128], "another the rest");
    check!(consumer.load(Relaxed) == 256, "the index in memory is true again");
    check!(run() == [0; 4], "nothing is left");
    check!(hypercall::hvc(abi::Function::RingSetup.id(), &[CHANNEL.into(), 0, 0])[0] == 0, "the ring is taken away");
    check!(run()[0] == abi::Error::NoRing.register(), "no run without it");
}
