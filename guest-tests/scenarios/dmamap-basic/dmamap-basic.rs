//! A driver's day with maps: tags, several segments, directions, loads again and again, everything given back.
#![no_std]
#![no_main]

use bulkhead_bus_dma::{Counter, Direction, Error, Map, MapState, Span, SyncOp, Tag, abi};
use bulkhead_guest_tests::{
    check,
    dmamap::{self, HvcBus, PROBE_BYTES, Probe},
    edu::Edu,
    mem, params, program,
};

program!(main);

const PAGE: u64 = 4096;

fn main() {
    let at = params::scratch();
    let bus = dmamap::attach(at);
    let mut probe = Probe::new(&bus, Edu::first(), 0, at + 0x1000);
    let limits = bus.limits();
    check!(limits.is_ok_and(|limits| limits.maps == 16 && limits.segments == 64), "the manifest's limits"; limits);

    segments(&bus, &mut probe, at + 0x10_0000);
    directions(&bus, &mut probe, at + 0x20_0000);
    constraints(&bus);
    again(&bus, &mut probe, at + 0x30_0000);
    big(&bus, &mut probe, at + 0x40_0000);

    probe.destroy(&bus);
    let left = [Counter::Maps, Counter::LeasedBytes].map(|counter| bus.counter(counter));
    check!(left == [Ok(0), Ok(0)], "everything was given back"; left);
    let counts = [Counter::Creates, Counter::Destroys].map(|counter| bus.counter(counter));
    check!(counts[0] == counts[1], "what was created was destroyed"; counts);
    check!(bus.counter(Counter::Timeouts) == Ok(0), "each flush was confirmed");
}

/// Three segments as a packet has them, in one map.
fn segments(bus: &HvcBus, probe: &mut Probe, at: u64) {
    let map = Map::create(bus, 0, &Tag::new(3 * PAGE, 3)).expect("a map");
    check!(map.lease_bytes() >= 7 * PAGE, "a lease of size, segments and guard"; map.lease_bytes());
    let spans = [(at + 0xf80, 0x100), (at + 0x8010, 1448), (at + 0x5000, PAGE)].map(|(ipa, bytes)| Span { ipa, bytes });
    let loaded = map.load(bus, Direction::Both, spans).expect("loaded");
    let iovas = [0, 1, 2].map(|place| loaded.segments()[place].iova);
    check!(iovas.map(|iova| iova % PAGE) == [0xf80, 0x10, 0], "offsets in pages are kept"; iovas);
    check!(loaded.map().state(bus) == Ok(Some(MapState::Loaded)), "it is loaded");
    check!(probe.reaches(iovas[0], spans[0].ipa, 0x100), "first segment, over a page's end");
    check!(probe.reaches(iovas[1], spans[1].ipa, 1448), "second segment");
    check!(probe.reaches(iovas[2], spans[2].ipa, PAGE), "third segment, a page");
    let synced = loaded.sync(bus, SyncOp::POSTREAD | SyncOp::POSTWRITE, 0x100, 1448);
    check!(synced.is_ok(), "sync of the second"; synced);
    let (map, _) = loaded.unload(bus).expect("unloaded");
    let refused = [0, 1, 2].map(|place| probe.is_refused(iovas[place], spans[place].ipa));
    check!(refused == [true; 3], "unloaded: nothing"; refused);
    map.destroy(bus).expect("destroyed");
}

fn directions(bus: &HvcBus, probe: &mut Probe, at: u64) {
    let map = Map::create(bus, 0, &Tag::single(PAGE)).expect("a map");
    let span = Span { ipa: at, bytes: PROBE_BYTES };
    let loaded = map.load(bus, Direction::DeviceReads, span).expect("loaded");
    let iova = loaded.iova();
    check!(probe.reads(iova, at, PROBE_BYTES) && !probe.writes(iova, at, PROBE_BYTES), "for reading: no write");
    let (map, _) = loaded.unload(bus).expect("unloaded");
    let loaded = map.load(bus, Direction::DeviceWrites, span).expect("loaded");
    let iova = loaded.iova();
    check!(probe.writes(iova, at, PROBE_BYTES) && !probe.reads(iova, at, PROBE_BYTES), "for writing: no read");
    loaded.destroy(bus).expect("destroyed");
    check!(probe.is_refused(iova, at), "destroyed as it was: nothing");
}

fn constraints(bus: &HvcBus) {
    let aligned = Map::create(bus, 0, &Tag::single(PAGE).alignment(1 << 16).bits32()).expect("a map");
    let base = aligned.base();
    check!(base.is_multiple_of(1 << 16) && base + aligned.lease_bytes() <= 1 << 32, "alignment and 32 bits"; base);
    aligned.destroy(bus).expect("destroyed");
    let refused = Map::create(bus, 0, &Tag::single(PAGE).limit(0xfff)).err();
    check!(refused == Some(Error::Call(abi::Error::NoSpace)), "no space below page 1"; refused);
    let refused = Map::create(bus, 8, &Tag::single(PAGE)).err();
    check!(refused == Some(Error::Call(abi::Error::NoChannel)), "no ninth channel"; refused);
}

/// A map is loaded with other memory each time: what it held before is out of reach.
fn again(bus: &HvcBus, probe: &mut Probe, at: u64) {
    let mut map = Map::create(bus, 0, &Tag::single(PAGE)).expect("a map");
    let created = bus.counter(Counter::Creates);
    for round in 0..1000 {
        let span = Span { ipa: at + round % 64 * PAGE, bytes: PAGE };
        let loaded = map.load(bus, Direction::Both, span).expect("loaded");
        if round % 250 == 3 {
            let (iova, before) = (loaded.iova(), span.ipa - PAGE);
            mem::fill(before, PAGE, 7);
            let is_own = probe.reaches(iova, span.ipa, PAGE) && mem::find_changed(before, PAGE, 7).is_none();
            check!(is_own, "load {round}: its own memory, not that of before");
        }
        (map, _) = loaded.unload(bus).expect("unloaded");
    }
    check!(bus.counter(Counter::Creates) == created, "a thousand loads create nothing");
    map.destroy(bus).expect("destroyed");
}

/// A map of several leaf tables.
fn big(bus: &HvcBus, probe: &mut Probe, at: u64) {
    const BYTES: u64 = 5 << 20;
    let map = Map::create(bus, 0, &Tag::single(BYTES)).expect("a map");
    let loaded = map.load(bus, Direction::Both, Span { ipa: at, bytes: BYTES }).expect("loaded");
    let iova = loaded.iova();
    for offset in [0, (2 << 20) - 8, 2 << 20, (4 << 20) + 0x1000, BYTES - 8] {
        check!(probe.reaches(iova + offset, at + offset, 8), "at {offset:#x} of 5 MiB");
    }
    check!(!probe.writes(iova + BYTES, at + BYTES, PROBE_BYTES), "nothing behind it");
    let (map, _) = loaded.unload(bus).expect("unloaded");
    check!(probe.is_refused(iova + (4 << 20), at + (4 << 20)), "unloaded: nothing");
    map.destroy(bus).expect("destroyed");
}
