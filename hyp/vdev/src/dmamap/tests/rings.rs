//! Rings: batches, bounds, indices, and a guest that writes what it likes.

use bulkhead_abi::{
    Counter, Direction, Error, Function, Segment,
    ring::{CONSUMER_OFFSET, Entry, Header, Op, PENDING, PRODUCER_OFFSET, STATUS_OFFSET},
};
use bulkhead_core::addr::{Ipa, PAGE_SIZE};

use super::{RAM, RAM_BYTES, RING, Vm};
use crate::dmamap::{Backend, Channel, GuestMemory, answer};

const LOG2: u64 = 7;

fn with_ring() -> Vm {
    let vm = Vm::new();
    vm.put(RING, &Header::NEW);
    vm.put(RING + CONSUMER_OFFSET, &77u32);
    assert_eq!(vm.call(Function::RingSetup, &[0, RING, LOG2]), Ok([256 + (128 << LOG2), 0, 0]));
    assert_eq!(vm.get::<u32>(RING + CONSUMER_OFFSET), 0);
    vm
}

fn load(handle: u64, segments: &[(u64, u64)]) -> Entry {
    let mut entry = Entry {
        op: Op::Load.number(),
        direction: Direction::Both.number(),
        count: u8::try_from(segments.len()).expect("few"),
        status: PENDING,
        handle,
        cookie: 0xc00c1e,
        ..Entry::default()
    };
    for (&(ipa, bytes), segment) in segments.iter().zip(&mut entry.segments) {
        *segment = Segment { ipa, bytes, iova: 0 };
    }
    entry
}

fn unload(handle: u64) -> Entry {
    Entry { op: Op::Unload.number(), status: PENDING, handle, ..Entry::default() }
}

impl Vm {
    /// Puts entries from `first` on, and the producer behind them.
    fn produce(&self, first: u32, entries: &[Entry]) {
        let mut index = first;
        for entry in entries {
            self.put(self.entry(index, LOG2), entry);
            index = index.wrapping_add(1);
        }
        self.put(RING + PRODUCER_OFFSET, &index);
    }

    fn run(&self) -> Result<[u64; 3], Error> {
        self.call(Function::RingRun, &[0])
    }
}

/// Would miss: an entry that is skipped, a batch that takes more than one SYNC, an output that is not stored.
#[test]
fn one_run_carries_a_batch() {
    let vm = with_ring();
    let maps: [[u64; 3]; 4] = core::array::from_fn(|_| vm.create(3 * PAGE_SIZE, 4));
    let packet = |n: u64| [(RAM + n * 0x3000 + 66, 1000), (RAM + n * 0x3000 + 0x1000, 448), (RAM + 0x2ff8, 16)];
    vm.produce(0, &core::array::from_fn::<_, 4, _>(|n| load(maps[n][0], &packet(n as u64))));
    assert_eq!(vm.run(), Ok([4, 0, 0]));
    for (index, [_, base, _]) in (0..).zip(maps) {
        let entry: Entry = vm.get(vm.entry(index, LOG2));
        assert_eq!((entry.status, entry.cookie), (0, 0xc00c1e));
        let iovas = entry.segments.map(|segment| segment.iova);
        assert_eq!(iovas, [base + 66, base + 0x1000, base + 0x2ff8, 0]);
        assert_eq!(vm.model.reach(base + 66, true), Some(entry.segments[0].ipa));
    }
    vm.produce(4, &maps.map(|[handle, ..]| unload(handle)));
    let syncs = vm.model.counter(Counter::Syncs);
    assert_eq!(vm.run(), Ok([4, 0, 0]));
    assert_eq!((vm.model.counter(Counter::Syncs) - syncs, vm.model.reachable_pages()), (1, 0));
    assert_eq!(vm.get::<u32>(RING + CONSUMER_OFFSET), 8);
    assert_eq!(vm.run(), Ok([0; 3]));
}

/// Would miss: a bad entry that ends the run, or takes its neighbours along.
#[test]
fn bad_entries_fail_alone() {
    let vm = with_ring();
    let [handle, ..] = vm.create(PAGE_SIZE, 4);
    let [other, ..] = vm.call(Function::Create, &[1, 4096, 1, 0, 0, u64::MAX]).expect("created");
    let entries = [
        (Entry { op: 3, ..load(handle, &[(RAM, 1)]) }, Error::Invalid),
        (Entry { flags: 1, ..load(handle, &[(RAM, 1)]) }, Error::Invalid),
        (Entry { direction: 4, ..load(handle, &[(RAM, 1)]) }, Error::Invalid),
        (Entry { count: 0, ..load(handle, &[(RAM, 1)]) }, Error::Invalid),
        (Entry { count: 5, ..load(handle, &[(RAM, 1)]) }, Error::TooManySegments),
        (Entry { count: 255, ..load(handle, &[(RAM, 1)]) }, Error::TooManySegments),
        (Entry { count: 1, ..unload(handle) }, Error::Invalid),
        (Entry { direction: 1, ..unload(handle) }, Error::Invalid),
        (Entry { count: 1, ..Entry::default() }, Error::Invalid),
        (load(handle, &[(RAM + RAM_BYTES, 1)]), Error::NotRam),
        (load(handle, &[(RAM, 0)]), Error::BadSegment),
        (load(handle ^ 1 << 40, &[(RAM, 1)]), Error::NoMap),
        (load(other, &[(RAM, 1)]), Error::NoMap),
        (unload(0), Error::NoMap),
    ];
    let mut index = 0;
    for (entry, error) in entries {
        vm.produce(index, &[entry]);
        assert_eq!(vm.run(), Ok([1, 0, 1]));
        assert_eq!(vm.status(index, LOG2), error.number(), "{entry:?}");
        index += 1;
    }
    assert_eq!(vm.model.reachable_pages(), 0);
    vm.produce(index, &[entries[0].0, Entry::default(), load(handle, &[(RAM, 1)]), load(handle, &[(RAM, 1)])]);
    assert_eq!(vm.run(), Ok([4, 0, 2]));
    let statuses = [0, 1, 2, 3].map(|n| vm.status(index + n, LOG2));
    assert_eq!(statuses, [Error::Invalid.number(), 0, 0, Error::Loaded.number()]);
    vm.call(Function::Unload, &[handle]).expect("unloaded");
    assert_eq!(vm.model.reachable_pages(), 0);
}

/// Would miss: a run that a guest can make as long as it likes, entries lost behind its bound.
#[test]
fn a_run_is_bounded() {
    let vm = with_ring();
    vm.produce(0, &[Entry { status: PENDING, ..Entry::default() }; 128]);
    assert_eq!(vm.run(), Ok([64, 64, 0]));
    assert_eq!((vm.status(63, LOG2), vm.status(64, LOG2), vm.get::<u32>(RING + CONSUMER_OFFSET)), (0, PENDING, 64));
    assert_eq!(vm.run(), Ok([64, 0, 0]));
    assert_eq!(vm.status(127, LOG2), 0);
}

/// Would miss: a producer that makes the hypervisor take entries twice, a consumer in memory that it believes.
#[test]
fn hostile_indices_do_nothing() {
    let vm = with_ring();
    let before = vm.model.state();
    for producer in [129, 0x8000_0000, u32::MAX] {
        vm.put(RING + PRODUCER_OFFSET, &producer);
        assert_eq!(vm.run(), Err(Error::BadRing), "{producer}");
    }
    assert_eq!(vm.model.state(), before);
    vm.put(RING + PRODUCER_OFFSET, &1u32);
    vm.put(RING + CONSUMER_OFFSET, &0xffff_0000u32);
    assert_eq!(vm.run(), Ok([1, 0, 0]));
    vm.put(RING + PRODUCER_OFFSET, &0u32);
    assert_eq!(vm.run(), Err(Error::BadRing), "it ran back");
}

/// Would miss: an index that stops at 2^32.
#[test]
fn indices_wrap() {
    let vm = with_ring();
    let first = u32::MAX - 1;
    let ring = vm.model.claim(0).expect("free").ring().expect("set up");
    *vm.model.claim(0).expect("free").ring() = Some(crate::dmamap::Ring { consumer: first, ..ring });
    vm.produce(first, &[Entry { status: PENDING, ..Entry::default() }; 4]);
    assert_eq!(vm.run(), Ok([4, 0, 0]));
    assert_eq!(vm.get::<u32>(RING + CONSUMER_OFFSET), 2);
    for place in [126, 127, 0, 1] {
        assert_eq!(vm.status(place, LOG2), 0);
    }
}

/// Would miss: a ring that is not all the VM's own RAM, not aligned, or no ring.
#[test]
fn rings_lie_in_ram() {
    let vm = Vm::new();
    vm.put(RING, &Header::NEW);
    let end = RAM + RAM_BYTES;
    vm.put(end - PAGE_SIZE, &Header::NEW);
    let before = vm.model.state();
    for (arguments, error) in [
        ([0, RING, 11], Error::Invalid),
        ([0, RING, u64::MAX], Error::Invalid),
        ([0, RING + 64, 3], Error::BadAddress),
        ([0, end, 0], Error::BadAddress),
        ([0, end - PAGE_SIZE, 5], Error::BadAddress),
        ([0, RAM - PAGE_SIZE, 0], Error::BadAddress),
        ([0, 0, 1], Error::BadAddress),
        ([0, 0xffff_ffff_ffff_f000, 10], Error::BadAddress),
        ([0, RING + PAGE_SIZE, 3], Error::BadRing),
    ] {
        assert_eq!(vm.call(Function::RingSetup, &arguments), Err(error), "{arguments:x?}");
    }
    for header in
        [Header { magic: 0, ..Header::NEW }, Header { layout: 2, ..Header::NEW }, Header { producer: 1, ..Header::NEW }]
    {
        vm.put(RING, &header);
        assert_eq!(vm.call(Function::RingSetup, &[0, RING, 3]), Err(Error::BadRing));
    }
    assert_eq!(vm.model.state(), before);
    vm.call(Function::RingSetup, &[0, end - PAGE_SIZE, 4]).expect("the last page");
    assert_eq!(vm.call(Function::RingSetup, &[0, 0, 0]), Ok([0; 3]));
    assert_eq!(vm.run(), Err(Error::NoRing));
}

/// Would miss: success said of unloads whose flush was not confirmed.
#[test]
fn an_unconfirmed_flush_shows_in_each_unload() {
    let vm = with_ring();
    let maps: [[u64; 3]; 2] = core::array::from_fn(|_| vm.create(PAGE_SIZE, 1));
    vm.produce(0, &[load(maps[0][0], &[(RAM, 1)])]);
    assert_eq!(vm.run(), Ok([1, 0, 0]));
    vm.model.set_stuck(true);
    vm.produce(1, &[unload(maps[0][0]), load(maps[1][0], &[(RAM, 1)])]);
    assert_eq!(vm.run(), Ok([2, 0, 1]));
    assert_eq!((vm.status(1, LOG2), vm.status(2, LOG2)), (Error::Quarantined.number(), 0));
}

/// Would miss: a map filled again in the run that unloaded it, before the batch's SYNC.
#[test]
fn a_slot_is_not_refilled_before_its_sync() {
    let vm = with_ring();
    let [handle, ..] = vm.create(PAGE_SIZE, 1);
    let entry = load(handle, &[(RAM, 1)]);
    vm.produce(0, &[entry, unload(handle), entry]);
    assert_eq!(vm.run(), Ok([3, 0, 1]));
    assert_eq!(vm.status(2, LOG2), Error::Unflushed.number());
    vm.produce(3, &[entry]);
    assert_eq!(vm.run(), Ok([1, 0, 0]));
}

/// Guest memory that looks at each store of a status, and counts each byte that is read.
struct Watch<'a> {
    vm: &'a Vm,
    reads: std::collections::BTreeMap<u64, u32>,
    statuses: u32,
}

impl GuestMemory for Watch<'_> {
    fn read(&mut self, at: Ipa, into: &mut [u8]) -> Option<()> {
        for address in (at.as_u64()..).take(into.len()) {
            *self.reads.entry(address).or_default() += 1;
        }
        self.vm.slab().read(at, into)
    }

    fn write(&mut self, at: Ipa, from: &[u8]) -> Option<()> {
        let offset = at.as_u64().wrapping_sub(RING + 256);
        if offset % 128 == STATUS_OFFSET || at.as_u64() == RING + CONSUMER_OFFSET {
            assert_eq!(self.vm.model.stale_pages(), 0, "a status before its SYNC");
            self.statuses += 1;
        }
        self.vm.slab().write(at, from)
    }
}

/// Would miss: a status stored before its SYNC, a byte of an entry or an index that is read twice.
#[test]
fn entries_are_read_once_and_done_after_their_sync() {
    let vm = with_ring();
    let maps: [[u64; 3]; 2] = core::array::from_fn(|_| vm.create(PAGE_SIZE, 1));
    let loads = maps.map(|[handle, ..]| load(handle, &[(RAM, 1)]));
    vm.produce(0, &loads);
    assert_eq!(vm.run(), Ok([2, 0, 0]));
    vm.produce(2, &[unload(maps[0][0]), loads[1], unload(maps[1][0])]);
    let mut watch = Watch { vm: &vm, reads: Default::default(), statuses: 0 };
    let mut x = [0; 7];
    x[0] = Function::RingRun.id().into();
    assert_eq!(answer(&vm.model, &mut watch, &x), [0, 3, 0, 1]);
    assert_eq!(watch.statuses, 4);
    assert!(watch.reads.values().all(|times| *times == 1));
    assert!(!watch.reads.contains_key(&(RING + CONSUMER_OFFSET)));
}
