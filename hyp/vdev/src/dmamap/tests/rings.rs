//! Rings: batches, bounds, indices, and a guest that writes what it likes.

use core::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};
use std::vec::Vec;

use bulkhead_abi::{
    Counter, Direction, Error, Function, Handle, Segment,
    ring::{
        CONSUMER_OFFSET, Entry, Header, Op, PENDING, PRODUCER_OFFSET, SEGMENTS_OFFSET, STATUS_OFFSET, entry_offset,
    },
};
use bulkhead_core::addr::PAGE_SIZE;

use super::{BOUNDARY, RAM, RAM_BYTES, RING, Vm};
use crate::dmamap::{Backend, Channel, Maps, Refusal, Word, model::Model};

const LOG2: u64 = 8;

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
    vm.produce(0, &[Entry { status: PENDING, ..Entry::default() }; 256]);
    assert_eq!(vm.run(), Ok([128, 128, 0]));
    assert_eq!((vm.status(127, LOG2), vm.status(128, LOG2), vm.get::<u32>(RING + CONSUMER_OFFSET)), (0, PENDING, 128));
    assert_eq!(vm.run(), Ok([128, 0, 0]));
    assert_eq!(vm.status(255, LOG2), 0);
}

/// Would miss: a producer that makes the hypervisor take entries twice, a consumer in memory that it believes.
#[test]
fn hostile_indices_do_nothing() {
    let vm = with_ring();
    let before = vm.model.state();
    for producer in [257, 0x8000_0000, u32::MAX] {
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
    for place in [254, 255, 0, 1] {
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
        ([0, BOUNDARY - PAGE_SIZE, 5], Error::BadAddress),
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
    vm.put(BOUNDARY - PAGE_SIZE, &Header::NEW);
    vm.call(Function::RingSetup, &[0, BOUNDARY - PAGE_SIZE, 4]).expect("up to the boundary");
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

/// A word of a ring that counts its loads, has other contents from the second on, and looks at each store.
struct Watched<'m> {
    word: &'m AtomicU64,
    model: &'m Model,
    loads: Cell<u32>,
    /// Pages that devices could still reach when it was stored to: the most, where it was several times.
    stale: Cell<Option<usize>>,
}

impl Word for Watched<'_> {
    fn get(&self) -> u64 {
        self.loads.set(self.loads.get() + 1);
        if self.loads.get() == 1 { self.word.load(Relaxed) } else { !self.word.load(Relaxed) }
    }
    fn get_acquire(&self) -> u64 {
        self.get()
    }
    fn set(&self, value: u64) {
        self.stale.set(self.stale.get().max(Some(self.model.stale_pages())));
        self.word.store(value, Relaxed);
    }
    fn set_release(&self, value: u64) {
        self.set(value);
    }
}

/// Would miss: a status stored before its SYNC, a word of an entry or an index that is read twice: a guest can change it
/// between.
#[test]
fn entries_are_read_once_and_done_after_their_sync() {
    let vm = with_ring();
    let maps: [[u64; 3]; 2] = core::array::from_fn(|_| vm.create(2 * PAGE_SIZE, 2));
    let loads = maps.map(|[handle, ..]| load(handle, &[(RAM, 1), (RAM + 0x2000, 1)]));
    vm.produce(0, &loads);
    assert_eq!(vm.run(), Ok([2, 0, 0]));
    vm.produce(2, &[unload(maps[0][0]), loads[1], unload(maps[1][0])]);
    vm.call(Function::Unload, &[maps[1][0]]).expect("unloaded");

    let watch = |word| Watched { word, model: &vm.model, loads: Cell::new(0), stale: Cell::new(None) };
    let place = |at: u64| usize::try_from(at / 8).expect("small");
    let words: Vec<_> = vm.words[place(RING - RAM)..].iter().take(place(256 + (128 << LOG2))).map(watch).collect();
    let mut channel = vm.model.claim(0).expect("free");
    let mut ring = channel.ring().expect("set up");
    let run = ring.run(&words, &mut channel, |channel, entries| while entries.step(channel) {});
    assert_eq!(run.map(|run| (run.consumed, run.left, run.failed)), Ok((3, 0, 0)));
    assert!(words.iter().all(|word| word.loads.get() <= 1));
    assert_eq!(words[place(CONSUMER_OFFSET)].loads.get(), 0);
    assert_eq!(words[place(PRODUCER_OFFSET)].loads.get(), 1);
    let stored = |at| words[place(at)].stale.get();
    for index in 2..5 {
        assert_eq!(stored(entry_offset(index, LOG2) + STATUS_OFFSET), Some(0), "a status before its SYNC");
    }
    assert_eq!(stored(CONSUMER_OFFSET), Some(0), "the consumer before the SYNC");
    assert_eq!(stored(entry_offset(3, LOG2) + SEGMENTS_OFFSET + 16), Some(2), "an iova is stored at once");
    // One for each IOVA and status, and the consumer.
    assert_eq!(words.iter().filter(|word| word.stale.get().is_some()).count(), 2 + 3 + 1);
}

/// Maps that want each entry done elsewhere.
struct Elsewhere;

impl Maps for Elsewhere {
    fn load<const N: usize>(&mut self, _: Handle, _: Direction, _: [Segment; N]) -> Result<[u64; N], Refusal> {
        Err(Refusal::Elsewhere)
    }
    fn unload(&mut self, _: Handle) -> Result<(), Refusal> {
        Err(Refusal::Elsewhere)
    }
}

/// Would miss: an entry that is done twice, or not at all, where two ways of doing entries meet.
#[test]
fn what_one_way_leaves_another_does() {
    let vm = with_ring();
    let [handle, ..] = vm.create(PAGE_SIZE, 1);
    let nop = Entry { status: PENDING, ..Entry::default() };
    vm.produce(0, &[nop, load(handle, &[(RAM, 1)]), nop, unload(handle), nop]);
    let words = &vm.words[usize::try_from((RING - RAM) / 8).expect("small")..];
    let mut channel = vm.model.claim(0).expect("free");
    let mut ring = channel.ring().expect("set up");
    let mut rounds = 0;
    let run = ring.run(&words[..32 + (16 << LOG2)], &mut channel, |channel, entries| {
        while {
            rounds += 1;
            entries.each(&mut Elsewhere);
            entries.step(channel)
        } {}
    });
    assert_eq!((run.map(|run| (run.consumed, run.failed)), rounds), (Ok((5, 0)), 3));
    drop(channel);
    assert_eq!([0, 1, 2, 3, 4].map(|index| vm.status(index, LOG2)), [0; 5]);
    assert_eq!((vm.model.counter(Counter::Loads), vm.model.counter(Counter::Unloads)), (1, 1));
}
