//! Loads without end: what a space and its channels hold does not grow with them.

use std::vec::Vec;

use bulkhead_core::bundle::DmamapStrategy;

use super::{
    STRATEGIES,
    harness::{Machine, RAM_BYTES, segment},
};
use crate::{
    map::{Direction, Handle, MapParams},
    strategy::Leases,
};

/// Loads by each strategy in every run of the tests.
const SOME: u64 = 20_000;
const MANY: u64 = 1_000_000;
const MAPS: usize = 32;
/// Loads, and unloads, from one SYNC to the next.
const BATCH: usize = 16;

/// Everything that could be used up.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Level {
    tables_out: usize,
    leaf_tables: (u32, u32),
    leased_pages: u32,
    leases: u32,
    free_blocks: usize,
    maps: u32,
    pieces_left: [u32; 2],
}

fn level(machine: &mut Machine) -> Level {
    for channel in [0, 1, 0, 1] {
        machine.space.drain(&mut machine.channels[channel]);
        machine.sync(channel);
    }
    let (leases, free_blocks) = match &machine.space.leases {
        Leases::Fit(iovas) => (iovas.live(), iovas.free_blocks().count()),
        Leases::Slots(_) => (0, 0),
    };
    Level {
        tables_out: machine.pool.out(),
        leaf_tables: machine.space.leaf_tables(),
        leased_pages: machine.space.leased_pages(),
        leases,
        free_blocks,
        maps: machine.space.live(),
        pieces_left: [0, 1].map(|channel: usize| machine.channels[channel].pieces.left()),
    }
}

/// One to three segments of packets' sizes, somewhere else each time.
fn load(machine: &mut Machine, handle: Handle, count: u64) {
    let place = |salt: u64| (count + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let at = |salt: u64| place(salt) % (RAM_BYTES - 0x2000);
    let mut segments = [segment(at(0), 66), segment(at(1), 1448), segment(at(2), 0x1000)];
    let used = usize::try_from(place(3) % 3).expect("small");
    machine.load(handle, Direction::Both, &mut segments[..=used]).expect("there is room");
}

fn run(strategy: DmamapStrategy, loads: u64) {
    let mut machine = Machine::with(strategy, MAPS, 32, 64);
    let empty = level(&mut machine);
    let params = MapParams::new(0x3000, 3);
    let maps: Vec<Handle> = (0..MAPS).map(|place| machine.create(place % 2, &params).expect("room").handle).collect();
    let created = level(&mut machine);
    let mut count = 0;
    while count < loads {
        for batch in maps.chunks(BATCH) {
            for handle in batch {
                load(&mut machine, *handle, count);
                count += 1;
            }
            for handle in batch {
                machine.unload(*handle).expect("a map");
            }
            machine.sync(0);
            machine.sync(1);
        }
    }
    assert_eq!(level(&mut machine), created, "{strategy:?}: after {count} loads");
    for handle in maps {
        machine.destroy(handle).expect("a map");
    }
    assert_eq!(level(&mut machine), empty, "{strategy:?}: after the last map");
}

/// Would miss: a lease, a table, a node, a piece or a place in a channel that a load or an unload loses.
#[test]
fn nothing_grows_with_loads() {
    for strategy in STRATEGIES {
        run(strategy, SOME);
    }
}

/// The same, longer: what is lost once in a hundred thousand.
#[test]
#[ignore = "long: use --release"]
fn nothing_grows_with_a_million_loads() {
    for strategy in STRATEGIES {
        run(strategy, MANY);
    }
}
