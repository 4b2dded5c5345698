//! DMA maps of the hypervisor: the device reaches what is loaded, and nothing else.

use core::cell::Cell;

use bulkhead_bus_dma::{
    self as bus_dma, Bus, Hypervisor, Map, Tag,
    abi::{Function, Handle},
};
use bulkhead_guest_tests::{
    dmamap::{Hvc, HvcBus},
    heap,
    sysreg::{CNTFRQ_EL0, CNTVCT_EL0},
};

use super::{Counts, Direction, Dma, SEGMENTS_MAX, Segment, ring::RawRing};

/// The driver's one channel: what it loads and unloads on both queues goes by one ring.
const CHANNEL: u8 = 0;

/// A map, and where the ring has the IOVAs of what was loaded last.
pub struct Place {
    handle: Handle,
    entry: usize,
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
    bus: HvcBus,
    timed: Timed,
    null_ticks: u64,
    ring: RawRing,
    counts: Counts,
}

impl Maps {
    /// Attaches to the hypervisor.
    pub fn new() -> Self {
        let bus = Bus::attach(Hvc, heap::words(1)).unwrap_or_else(|error| panic!("no DMA maps: {error}"));
        let ring = RawRing::setup(&Hvc, CHANNEL).unwrap_or_else(|error| panic!("no ring: {error}"));
        Self { bus, timed: Timed::default(), null_ticks: Timed::null_calls(), ring, counts: Counts::default() }
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
        map.entry = self.ring.load(map.handle, direction.number(), segments);
        self.counts.loads += 1;
    }

    fn unload(&mut self, map: &mut Place) {
        self.ring.unload(map.handle);
        self.counts.unloads += 1;
    }

    fn run(&mut self) {
        let calls = self.ring.run(&self.timed).unwrap_or_else(|error| panic!("run of the ring: {error:?}"));
        self.counts.hypercalls += calls;
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
