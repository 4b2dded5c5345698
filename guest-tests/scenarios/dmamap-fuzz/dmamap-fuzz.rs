//! Pseudo-random calls, arrays and rings: every field of every call, and then maps still work.
#![no_std]
#![no_main]
#![allow(clippy::cast_possible_truncation, reason = "small numbers, 64-bit addresses")]

use bulkhead_bus_dma::{
    Counter, Direction, Map, Span, Tag,
    abi::{
        Error, Function,
        ring::{ENTRY_BYTES, HEADER_BYTES, MAGIC, PRODUCER_OFFSET},
    },
};
use bulkhead_guest_tests::{
    check,
    dmamap::{self, Probe},
    edu::Edu,
    hypercall, mem, params, println, program,
    random::Random,
};

program!(main);

/// Handles that live, in no order.
struct Handles {
    live: [u64; 64],
    count: usize,
}

impl Handles {
    fn any(&self, random: &mut Random) -> u64 {
        if self.count == 0 { 0 } else { self.live[random.below(self.count as u64) as usize] }
    }

    fn remove(&mut self, handle: u64) {
        if let Some(place) = self.live[..self.count].iter().position(|live| *live == handle) {
            self.count -= 1;
            self.live[place] = self.live[self.count];
        }
    }
}

/// A number of the kinds that decoders stumble over. Of RAM only `at` and what follows it is named: a ring or an array
/// that lay over this program would be written.
fn number(random: &mut Random, handles: &Handles, at: u64) -> u64 {
    let small = random.below(0x100);
    match random.below(14) {
        0 | 1 => random.below(9),
        2 => small,
        3 => u64::MAX - small,
        4 => (1 << random.below(64)) - random.below(2),
        5 => 0x1000 * small,
        6 => at + 8 * small,
        7 => at + 0x1000 * small,
        8 => params::ram_end() - 8 * small,
        9 => [0x0800_0000, 0x0900_0000, 0x1000_0000, 0x2000_0000][random.below(4) as usize] + 8 * small,
        10 => random.next_u64(),
        11 => handles.any(random) ^ 1 << random.below(64),
        _ => handles.any(random),
    }
}

/// Entries, arrays and indices change under the calls.
fn scribble(random: &mut Random, handles: &Handles, at: u64) {
    let ring = at + 0x1000 * random.below(4);
    match random.below(4) {
        0 => {
            mem::write64(ring, MAGIC);
            mem::write64(ring + 8, 1);
            mem::write64(ring + PRODUCER_OFFSET, 0);
        }
        1 => mem::write64(ring + PRODUCER_OFFSET, random.below(200)),
        2 => {
            // Mostly entries that mean something.
            let entry = ring + HEADER_BYTES + ENTRY_BYTES * random.below(8);
            mem::write64(entry, random.below(3) | (1 + random.below(3)) << 16 | (1 + random.below(4)) << 24);
            mem::write64(entry + 8, handles.any(random));
            mem::write64(entry + 24, random.below(8) / 7);
            for word in (32..ENTRY_BYTES).step_by(8) {
                mem::write64(entry + word, number(random, handles, at));
            }
        }
        _ => mem::write64(at + 8 * random.below(0x800), number(random, handles, at)),
    }
}

fn main() {
    let rounds = params::number("rounds", 100_000);
    let mut random = Random::new(params::number("seed", 1));
    let page = params::scratch();
    let at = page + 0x20_0000;
    let bus = dmamap::attach(page);
    let mut handles = Handles { live: [0; 64], count: 0 };
    let (mut done, mut refused, mut unknown) = (0u64, 0u64, 0u64);
    for _ in 0..rounds {
        if random.below(3) == 0 {
            scribble(&mut random, &handles, at);
        }
        let function = Function::ALL[random.below(11) as usize];
        let id = if random.below(50) == 0 { random.next_u64() as u32 & 0xffff | 0xc600_0000 } else { function.id() };
        let mut arguments = [0; 6].map(|_: u64| number(&mut random, &handles, at));
        if function == Function::Create && random.below(2) == 0 {
            arguments = [random.below(8), 1 + random.below(0x4_0000), 1 + random.below(8), 0, 0, u64::MAX];
        }
        let [status, x1, ..] = hypercall::hvc(id, &arguments);
        match (Error::from_register(status), Function::from_id(id)) {
            (Ok(()), Some(Function::Create)) => {
                assert!(handles.count < handles.live.len(), "more maps than the manifest allows");
                handles.live[handles.count] = x1;
                handles.count += 1;
                done += 1;
            }
            (Ok(()), Some(Function::Destroy)) => {
                handles.remove(arguments[0]);
                done += 1;
            }
            (Ok(()), Some(_)) => done += 1,
            (Err(Some(Error::NotSupported)), None) => unknown += 1,
            (Err(Some(Error::NotSupported | Error::Busy | Error::Quarantined)), _)
            | (Err(None), _)
            | (Ok(()), None) => {
                println!("FAIL: {id:#x} of {arguments:#x?} returned {status:#x}");
            }
            (Err(Some(_)), _) => refused += 1,
        }
    }
    check!(done > rounds / 20 && refused > rounds / 20 && unknown > 0, "calls of each kind"; (done, refused, unknown));
    check!(bus.counter(Counter::Maps) == Ok(handles.count as u64), "the hypervisor counts maps as we do");
    for handle in &handles.live[..handles.count] {
        let status = hypercall::hvc(Function::Destroy.id(), &[*handle])[0];
        if status != 0 {
            println!("FAIL: {handle:#x} is not destroyed: {status:#x}");
        }
    }
    let left = bus.counters(Counter::Maps);
    check!(left.is_ok_and(|left| left[..2] == [0, 0]), "no map and no lease is left"; left);
    check!(bus.counter(Counter::Timeouts) == Ok(0), "each flush was confirmed");

    let mut probe = Probe::new(&bus, Edu::first(), 0, page + 0x1000);
    let map = Map::create(&bus, 0, &Tag::single(4096)).expect("a map");
    let loaded = map.load(&bus, Direction::Both, Span { ipa: at, bytes: 4096 }).expect("loaded");
    check!(probe.reaches(loaded.iova(), at, 4096), "maps work afterwards");
    let iova = loaded.iova();
    loaded.destroy(&bus).expect("destroyed");
    check!(probe.is_refused(iova, at), "and end");
}
