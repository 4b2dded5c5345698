//! DMA maps of the hypervisor: the device reaches what is loaded, and nothing else.

use alloc::boxed::Box;
use core::cell::Cell;

use bulkhead_bus_dma::{
    self as bus_dma, Bus, Error, Hypervisor, Map, RawRing, Tag,
    abi::{Function, Handle},
};
use bulkhead_guest_tests::{
    dmamap::Hvc,
    heap,
    sysreg::{CNTFRQ_EL0, CNTVCT_EL0},
};

use super::{Counts, Direction, Dma, SEGMENTS_MAX, Segment};

/// The driver's one channel: what it loads and unloads on both queues goes by one ring.
const CHANNEL: u8 = 0;

/// More than two full batches each way.
const LOG2_LEN: u32 = 9;

/// A map, and the ring's entry with the IOVAs of what was loaded last. Its buffers live for ever, so that nobody need own
/// them meanwhile.
pub struct Place {
    handle: Handle,
    entry: u32,
}

/// Calls that do nothing, to take the mean of.
const NULL_CALLS: u64 = 1000;

/// HVC with a clock: what calls take from here and back, in ticks of the virtual counter.
#[derive(Default)]
struct Timed {
    ticks: Cell<u64>,
}

impl Timed {
    /// What a thousand calls for the version take.
    fn null_calls() -> u64 {
        let timed = Self::default();
        for _ in 0..NULL_CALLS {
            timed.call(Function::Version.id(), &[0; 6]);
        }
        timed.ticks.get()
    }
}

impl Hypervisor for Timed {
    fn call(&self, function: u32, arguments: &[u64; 6]) -> [u64; 4] {
        let start = CNTVCT_EL0.read();
        let answer = Hvc.call(function, arguments);
        self.ticks.set(self.ticks.get() + (CNTVCT_EL0.read() - start));
        answer
    }

    fn ipa(&self, address: usize) -> u64 {
        Hvc.ipa(address)
    }
}

/// The VM's maps.
pub struct Maps {
    bus: Bus<'static, &'static Timed>,
    timed: &'static Timed,
    null_ticks: u64,
    ring: RawRing<'static>,
    counts: Counts,
}

impl Maps {
    /// Attaches to the hypervisor.
    pub fn new() -> Self {
        let timed: &'static Timed = Box::leak(Box::default());
        let bus = Bus::attach(timed, heap::words(1)).unwrap_or_else(|error| panic!("no DMA maps: {error}"));
        let pages = (RawRing::words(LOG2_LEN) * size_of::<u64>()).div_ceil(heap::PAGE_BYTES);
        let ring = RawRing::setup(&bus, CHANNEL, LOG2_LEN, heap::words(pages));
        let ring = ring.unwrap_or_else(|error| panic!("no ring: {error}"));
        Self { bus, timed, null_ticks: Timed::null_calls(), ring, counts: Counts::default() }
    }
}

impl Dma for Maps {
    type Map = Place;

    fn create(&mut self, bytes: u64, segments: usize) -> Place {
        let map = Map::create(&self.bus, CHANNEL, &Tag::new(bytes, segments as u64));
        let map = map.unwrap_or_else(|error| panic!("no map: {error}"));
        Place { handle: map.handle(), entry: 0 }
    }

    fn load(&mut self, map: &mut Place, segments: &[Segment], direction: Direction) {
        let direction = match direction {
            Direction::DeviceReads => bus_dma::Direction::DeviceReads,
            Direction::DeviceWrites => bus_dma::Direction::DeviceWrites,
            Direction::Both => bus_dma::Direction::Both,
        };
        let entry = self.ring.load(map.handle, direction, |entry| {
            segments.iter().for_each(|segment| entry.push(segment.address, segment.bytes));
        });
        map.entry = put(entry);
        self.counts.loads += 1;
    }

    fn unload(&mut self, map: &mut Place) {
        put(self.ring.unload(map.handle));
        self.counts.unloads += 1;
    }

    fn run(&mut self) {
        while self.ring.consumer() != self.ring.producer() {
            match self.ring.run(&self.bus) {
                Ok(run) if run.failed == 0 => self.counts.hypercalls += 1,
                failed => panic!("run of the ring: {failed:?}"),
            }
        }
    }

    fn iovas(&self, map: &Place) -> [u64; SEGMENTS_MAX] {
        self.ring.iovas(map.entry)
    }

    fn counts(&self) -> Counts {
        let ns = |ticks: u64| ticks * 1000 / (CNTFRQ_EL0.read() / 1_000_000);
        Counts {
            hypercalls_ns: ns(self.timed.ticks.get()),
            null_calls_ns: ns(self.null_ticks * self.counts.hypercalls / NULL_CALLS),
            ..self.counts
        }
    }
}

fn put(entry: Result<u32, Error>) -> u32 {
    entry.unwrap_or_else(|error| panic!("entry of the ring: {error}"))
}
