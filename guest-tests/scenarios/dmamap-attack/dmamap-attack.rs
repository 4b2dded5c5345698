//! The edu and the calls aimed at what no map holds: before, after, beside, and with made-up handles and segments.
#![no_std]
#![no_main]

use bulkhead_bus_dma::{
    Counter, Direction, Error, Map, MapState, Span, Tag,
    abi::{self, Function},
};
use bulkhead_core::vplat::{ECAM_BASE, GICD_BASE, PCI_MEM_BASE, UART_BASE};
use bulkhead_guest_tests::{
    check,
    dmamap::{self, HvcBus, PROBE_BYTES, Probe},
    edu::Edu,
    hypercall, mem, params, println, program, timer,
};

program!(main);

const PAGE: u64 = 4096;

fn create(bus: &HvcBus) -> Map {
    Map::create(bus, 0, &Tag::new(2 * PAGE, 2)).unwrap_or_else(|error| panic!("create: {error}"))
}

fn span(ipa: u64, bytes: u64) -> Span {
    Span { ipa, bytes }
}

fn main() {
    let at = params::scratch();
    let bus = dmamap::attach(at);
    let mut probe = Probe::new(&bus, Edu::first(), 0, at + 0x1000);
    let target = at + 0x10_0000;

    println!("target no map");
    check!(probe.is_refused(target, target), "memory by its own address");
    check!(probe.is_refused(0, target), "page 0");

    in_time(&bus, &mut probe, target);
    beside(&bus, &mut probe, target);
    reuse(&bus, &mut probe, target);
    handles(&bus);
    segments(&bus, &mut probe, target);
    quota(&bus, &mut probe, target);

    timer::delay_ms(params::number("wait", 0));
    check!(bus.counter(Counter::Timeouts) == Ok(0), "each flush was confirmed");
    never_unload(&bus, &mut probe, target);
}

/// Before the load, and after the unload.
fn in_time(bus: &HvcBus, probe: &mut Probe, target: u64) {
    println!("target in time");
    let map = create(bus);
    let base = map.base();
    check!(probe.is_refused(base, target), "before the load");
    let loaded = map.load(bus, Direction::Both, span(target, PAGE)).expect("loaded");
    check!(probe.reaches(base, target, PAGE), "while it is loaded");
    let (map, _) = loaded.unload(bus).expect("unloaded");
    check!(probe.is_refused(base, target), "after the unload");
    map.destroy(bus).expect("destroyed");
    check!(probe.is_refused(base, target), "after the destroy");
}

/// Behind what is loaded, the guard page, the neighbour's lease, rights that were not given.
fn beside(bus: &HvcBus, probe: &mut Probe, target: u64) {
    println!("target beside");
    let (map, neighbour) = (create(bus), create(bus));
    let (base, end) = (map.base(), map.base() + map.lease_bytes());
    check!(neighbour.base() >= end || neighbour.base() + neighbour.lease_bytes() <= base, "leases lie apart");
    let loaded = map.load(bus, Direction::DeviceReads, span(target + 0x800, 0x400)).expect("loaded");
    mem::fill(target + PAGE, PAGE, 3);
    check!(!probe.writes(loaded.iova(), target + 0x800, PROBE_BYTES), "a write where it may read");
    check!(probe.is_refused(base + PAGE, target + PAGE), "the page behind what is loaded");
    check!(probe.is_refused(end - PAGE, target + PAGE), "the guard page");
    check!(probe.is_refused(base - PROBE_BYTES, target), "in front of the lease");
    check!(probe.is_refused(neighbour.base(), target), "the neighbour's lease, empty");
    let beside = neighbour.load(bus, Direction::Both, span(target + 8 * PAGE, PAGE)).expect("loaded");
    check!(probe.is_refused(beside.iova() + PAGE, target + 9 * PAGE), "behind the neighbour's page");
    let (neighbour, _) = beside.unload(bus).expect("unloaded");
    check!(probe.reads(loaded.iova(), target + 0x800, PROBE_BYTES), "the neighbour's unload takes nothing of ours");
    check!(probe.is_refused(neighbour.base(), target + 8 * PAGE), "the neighbour's lease, unloaded");
    neighbour.destroy(bus).expect("destroyed");
    loaded.destroy(bus).expect("destroyed");
}

/// A freed lease is another map's: the old IOVA leads to the new memory, never to the old.
fn reuse(bus: &HvcBus, probe: &mut Probe, target: u64) {
    println!("target reuse");
    let (old, new) = (target, target + 16 * PAGE);
    let loaded = create(bus).load(bus, Direction::Both, span(old, PAGE)).expect("loaded");
    let (iova, handle) = (loaded.iova(), loaded.map().handle());
    check!(probe.reaches(iova, old, PROBE_BYTES), "the old map");
    loaded.destroy(bus).expect("destroyed");
    let again = create(bus).load(bus, Direction::Both, span(new, PAGE)).expect("loaded");
    check!(again.iova() == iova, "its lease is given out again"; (iova, again.iova()));
    check!(again.map().handle() != handle, "its handle is not");
    mem::fill(old, PAGE, 5);
    check!(probe.reaches(iova, new, PROBE_BYTES), "the IOVA leads to the new memory");
    check!(mem::find_changed(old, PAGE, 5).is_none(), "and not to the old");
    let status = hypercall::hvc(Function::Unload.id(), &[handle.register()])[0];
    check!(status == abi::Error::NoMap.register(), "the old handle unloads nothing");
    check!(probe.writes(iova, new, PROBE_BYTES), "the new map is still loaded");
    again.destroy(bus).expect("destroyed");
}

/// Each bit of a handle flipped.
fn handles(bus: &HvcBus) {
    println!("target handles");
    let loaded = create(bus).load(bus, Direction::Both, span(params::scratch() + 0x10_0000, 8)).expect("loaded");
    let handle = loaded.map().handle().register();
    let forged = (0..64).map(|bit| handle ^ 1 << bit).chain([0, u64::MAX]);
    let is_refused = forged.into_iter().all(|handle| {
        [Function::Unload, Function::Destroy, Function::Query, Function::Load, Function::Sync].into_iter().all(
            |function| {
                let arguments = if function == Function::Load { [params::scratch(), 1, 3] } else { [1, 0, 1] };
                let [x2, x3, x4] = arguments;
                hypercall::hvc(function.id(), &[handle, x2, x3, x4])[0] == abi::Error::NoMap.register()
            },
        )
    });
    check!(is_refused, "forged handles");
    check!(loaded.map().state(bus) == Ok(Some(MapState::Loaded)), "the true one is untouched");
    loaded.destroy(bus).expect("destroyed");
}

/// Segments that wrap, that are not RAM, that are others' RAM.
fn segments(bus: &HvcBus, probe: &mut Probe, target: u64) {
    println!("target segments");
    let mut map = create(bus);
    let base = map.base();
    let end = params::ram_end();
    let hypervisor = params::number("hyp", 0x4020_0000);
    let victim = params::number("victim", 0x6000_0000);
    for (name, ipa, bytes, error) in [
        ("empty", target, 0, abi::Error::BadSegment),
        ("wrapping", u64::MAX - 7, 16, abi::Error::BadSegment),
        ("wrapping to RAM", target, u64::MAX - target + 2, abi::Error::BadSegment),
        ("huge", target, 1 << 40, abi::Error::NotRam),
        ("longer than the map", target, 4 * PAGE, abi::Error::TooLong),
        ("UART", UART_BASE.as_u64(), 8, abi::Error::NotRam),
        ("GICD", GICD_BASE.as_u64(), PAGE, abi::Error::NotRam),
        ("ECAM", ECAM_BASE.as_u64(), PAGE, abi::Error::NotRam),
        ("BAR", PCI_MEM_BASE.as_u64(), PAGE, abi::Error::NotRam),
        ("SMMU", 0x0905_0000, PAGE, abi::Error::NotRam),
        ("below RAM", 0x3fff_f000, PAGE, abi::Error::NotRam),
        ("into RAM", 0x3fff_fff8, 16, abi::Error::NotRam),
        ("past RAM", end, PAGE, abi::Error::NotRam),
        ("out of RAM", end - 8, 16, abi::Error::NotRam),
        ("bundle and tables", 0x4800_0000, PAGE, abi::Error::NotRam),
        ("another VM", victim, PAGE, abi::Error::NotRam),
        ("top", u64::MAX - PAGE + 1, PAGE - 1, abi::Error::NotRam),
    ] {
        // The second segment is the bad one: the first must not stay.
        map = match map.load(bus, Direction::Both, [span(target, 8), span(ipa, bytes)]) {
            Ok(loaded) => {
                println!("FAIL: segment {name} is loaded at {:#x}", loaded.iova());
                loaded.unload(bus).unwrap_or_else(|refused| panic!("{refused}")).0
            }
            Err(refused) => {
                check!(refused.error == Error::Call(error), "segment {name}"; refused.error);
                refused.given.0
            }
        };
    }
    check!(probe.is_refused(base, target), "nothing of a refused load stays");
    // An address that is the hypervisor's in truth and RAM to us: it leads to ours.
    let at = if (params::scratch()..end - PAGE).contains(&hypervisor) { hypervisor } else { target };
    let loaded = map.load(bus, Direction::Both, span(at, PAGE)).unwrap_or_else(|refused| panic!("{refused}"));
    check!(probe.reaches(loaded.iova(), at, PAGE), "our RAM at the hypervisor's address is ours");
    loaded.destroy(bus).expect("destroyed");
}

/// More maps, and more tables, than the manifest gives.
fn quota(bus: &HvcBus, probe: &mut Probe, target: u64) {
    println!("target quota");
    let before = bus.counters(Counter::Maps);
    let mut maps = [const { None }; 32];
    let mut error = None;
    for slot in &mut maps {
        match Map::create(bus, 0, &Tag::single(PAGE)) {
            Ok(map) => *slot = Some(map),
            Err(refused) => {
                error = Some(refused);
                break;
            }
        }
    }
    let live = bus.counters(Counter::Maps);
    check!(error == Some(Error::Call(abi::Error::TooManyMaps)), "too many maps are refused"; error);
    let refused = Map::create(bus, 0, &Tag::single(PAGE)).err();
    check!(refused == error && bus.counters(Counter::Maps) == live, "and change nothing"; refused);
    for map in maps.into_iter().flatten() {
        map.destroy(bus).expect("destroyed");
    }
    let large = Map::create(bus, 0, &Tag::single(20 << 20)).err();
    check!(large == Some(Error::Call(abi::Error::NoTables)), "more tables than the quota"; large);
    let huge = Map::create(bus, 0, &Tag::single(1 << 30)).err();
    check!(huge.is_some(), "a map over 512 tables"; huge);
    let beyond = Map::create(bus, 0, &Tag::single(1 << 50)).err();
    check!(beyond == Some(Error::Call(abi::Error::NoSpace)), "more than the window"; beyond);
    let after = bus.counters(Counter::Maps);
    let is_same = before.is_ok() && before == after;
    check!(is_same, "no map, no lease and no table more than before"; (before, after));
    let loaded = create(bus).load(bus, Direction::Both, span(target, PAGE)).expect("loaded");
    check!(probe.reaches(loaded.iova(), target, PAGE), "maps work afterwards");
    loaded.destroy(bus).expect("destroyed");
}

/// A guest that never unloads, and ends.
fn never_unload(bus: &HvcBus, probe: &mut Probe, target: u64) {
    let mut count = 0;
    let mut last = 0;
    while let Ok(map) = Map::create(bus, 0, &Tag::single(PAGE)) {
        let loaded = map.load(bus, Direction::Both, span(target + count * PAGE, PAGE));
        last = loaded.unwrap_or_else(|refused| panic!("{refused}")).iova();
        count += 1;
    }
    check!(probe.reaches(last, target + (count - 1) * PAGE, PROBE_BYTES), "ends with {count} maps loaded");
}
