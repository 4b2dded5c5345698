//! Two vCPUs hammer neighbouring maps on channels of their own while edu reads through both; then one channel together.
#![no_std]
#![no_main]
#![allow(clippy::cast_possible_truncation, reason = "small numbers, 64-bit addresses")]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use bulkhead_bus_dma::{Counter, Direction, Done, Error, Map, Ring, Span, Tag, abi};
use bulkhead_guest_tests::{
    check,
    dmamap::{self, HvcBus, Probe},
    edu::Edu,
    params, println, program, smp, timer,
};

program!(main);

const PAGE: u64 = 4096;

/// Rounds of each CPU.
static ROUNDS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
static FAULTS: AtomicU64 = AtomicU64::new(0);
static BUSY: AtomicU64 = AtomicU64::new(0);
static IS_OVER: AtomicBool = AtomicBool::new(false);
static IS_DONE: AtomicBool = AtomicBool::new(false);
/// Phase 2: both CPUs on channel 0.
static IS_SHARED: AtomicBool = AtomicBool::new(false);

/// Where a CPU has its scratch memory.
fn area(cpu: u64) -> u64 {
    params::scratch() + cpu * 0x20_0000
}

/// Tries again while the other CPU has the channel.
fn insist<T>(mut call: impl FnMut() -> Result<T, Error>) -> T {
    loop {
        match call() {
            Err(Error::Call(abi::Error::Busy)) => {
                BUSY.fetch_add(1, SeqCst);
            }
            Err(error) => panic!("{error}"),
            Ok(value) => return value,
        }
    }
}

/// Creates, loads, unloads and destroys a map of the CPU's channel, by call.
fn by_call(bus: &HvcBus, cpu: u64, round: u64) {
    let channel = if IS_SHARED.load(SeqCst) { 0 } else { cpu as u8 };
    let tag = Tag::new((1 + round % 3) * PAGE, 2);
    let mut map = Some(insist(|| Map::create(bus, channel, &tag)));
    let span = Span { ipa: area(cpu) + 0x10_0000 + round % 64 * PAGE, bytes: PAGE };
    let mut loaded = Some(insist(|| {
        map.take().expect("a map").load(bus, Direction::Both, span).map_err(|refused| {
            map = Some(refused.given.0);
            refused.error
        })
    }));
    if round.is_multiple_of(2) {
        insist(|| {
            loaded.take().expect("loaded").destroy(bus).map_err(|refused| {
                loaded = Some(refused.given);
                refused.error
            })
        });
        return;
    }
    let (unloaded, _) = insist(|| {
        loaded.take().expect("loaded").unload(bus).map_err(|refused| {
            loaded = Some(refused.given);
            refused.error
        })
    });
    map = Some(unloaded);
    insist(|| {
        map.take().expect("a map").destroy(bus).map_err(|refused| {
            map = Some(refused.given);
            refused.error
        })
    });
}

/// A batch through the CPU's ring.
fn by_ring(bus: &HvcBus, ring: &mut Ring<'static, Span, 16>, maps: &mut [Option<Map>; 8], cpu: u64) {
    for (place, map) in (0..).zip(maps.iter_mut()) {
        let span = Span { ipa: area(cpu) + 0x10_0000 + place * PAGE + 8, bytes: PAGE - 8 };
        if let Some(map) = map.take() {
            ring.load(bus, map, Direction::DeviceReads, span).unwrap_or_else(|refused| panic!("{refused}"));
        }
    }
    insist(|| ring.run(bus));
    for _ in 0..8 {
        match ring.take() {
            Some(Done::Loaded(loaded)) => ring.unload(loaded).unwrap_or_else(|refused| panic!("{refused}")),
            other => panic!("{other:?}"),
        }
    }
    insist(|| ring.run(bus));
    for map in maps {
        match ring.take() {
            Some(Done::Unloaded(unloaded, _)) => *map = Some(unloaded),
            other => panic!("{other:?}"),
        }
    }
}

/// Works until it is over.
fn hammer(cpu: u64) {
    let bus = dmamap::attach(area(cpu));
    let words = dmamap::words(area(cpu) + 0x1_0000, 0x1000);
    // Rings on channels 2 and 3, which nobody else claims.
    let mut ring = Ring::setup(&bus, 2 + cpu as u8, words).unwrap_or_else(|error| panic!("{error}"));
    let mut maps = core::array::from_fn(|_| Some(insist(|| Map::create(&bus, 2 + cpu as u8, &Tag::single(PAGE)))));
    let mut round = 0;
    while !IS_OVER.load(SeqCst) {
        by_call(&bus, cpu, round);
        if round.is_multiple_of(4) {
            by_ring(&bus, &mut ring, &mut maps, cpu);
        }
        round += 1;
        ROUNDS[cpu as usize].store(round, SeqCst);
    }
    for map in maps.into_iter().flatten() {
        map.destroy(&bus).unwrap_or_else(|refused| panic!("{refused}"));
    }
    ring.remove(&bus).unwrap_or_else(|refused| panic!("{refused}"));
}

fn second() {
    hammer(1);
    IS_DONE.store(true, SeqCst);
}

/// CPU 0 drives the devices: each reads and writes through a map that lies between those that are hammered.
fn main() {
    let at = params::scratch() + 0x60_0000;
    let bus = dmamap::attach(at);
    let mut probes = [0, 1].map(|which| {
        let edu = Edu::find(which as usize).expect("two edu devices");
        Probe::new(&bus, edu, 4 + which as u8, at + 0x1000 + which * 0x2000)
    });
    let held = [0, 1].map(|which| {
        let map = Map::create(&bus, 4, &Tag::single(2 * PAGE)).expect("a map");
        let span = Span { ipa: at + 0x10_0000 + which * 2 * PAGE, bytes: 2 * PAGE };
        map.load(&bus, Direction::Both, span).expect("loaded")
    });
    let idle = Map::create(&bus, 4, &Tag::single(PAGE)).expect("a map");
    check!(smp::start(1, second) == 0, "the second CPU starts");
    check!(smp::start(2, || hammer(0)) == 0, "the third CPU starts");
    for shared in [false, true] {
        IS_SHARED.store(shared, SeqCst);
        let before = [0, 1].map(|place: usize| ROUNDS[place].load(SeqCst));
        for _ in 0..params::number("transfers", 6) {
            for (probe, loaded) in probes.iter_mut().zip(&held) {
                let ipa = loaded.segments()[0].ipa;
                if !probe.reaches(loaded.iova(), ipa, PAGE) || !probe.reads(loaded.iova() + PAGE, ipa + PAGE, PAGE) {
                    FAULTS.fetch_add(1, SeqCst);
                }
            }
            if !probes[0].is_refused(idle.base(), at + 0x20_0000) {
                FAULTS.fetch_add(1, SeqCst);
            }
        }
        let rounds = [0, 1].map(|place: usize| ROUNDS[place].load(SeqCst) - before[place]);
        check!(rounds.iter().all(|rounds| *rounds > 20), "both CPUs went on meanwhile"; rounds);
        println!("{} busy", if BUSY.load(SeqCst) == 0 { "never" } else { "sometimes" });
    }
    IS_OVER.store(true, SeqCst);
    check!(timer::wait_until(20_000, || IS_DONE.load(SeqCst)), "the second CPU ends");
    timer::delay_ms(200);
    check!(FAULTS.load(SeqCst) == 0, "each transfer went where it should"; FAULTS.load(SeqCst));
    for loaded in held {
        loaded.destroy(&bus).expect("destroyed");
    }
    idle.destroy(&bus).expect("destroyed");
    for probe in probes {
        probe.destroy(&bus);
    }
    let left = bus.counters(Counter::Maps);
    check!(left.is_ok_and(|left| left[..2] == [0, 0]), "everything was given back"; left);
    check!(bus.counter(Counter::Timeouts) == Ok(0), "each flush was confirmed");
}
