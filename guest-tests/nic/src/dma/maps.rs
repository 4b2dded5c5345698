//! DMA maps of the hypervisor: the device reaches what is loaded, and nothing else.

use bulkhead_bus_dma::{self as bus_dma, Bus, Map, Tag, abi::Handle};
use bulkhead_guest_tests::dmamap::{Hvc, HvcBus};

use super::{Counts, Direction, Dma, SEGMENTS_MAX, Segment, ring::RawRing};
use bulkhead_guest_tests::heap;

/// The driver's one channel: what it loads and unloads on both queues goes by one ring.
const CHANNEL: u8 = 0;

/// A map, and where the ring has the IOVAs of what was loaded last.
pub struct Place {
    handle: Handle,
    entry: usize,
}

/// The VM's maps.
pub struct Maps {
    bus: HvcBus,
    ring: RawRing,
    counts: Counts,
}

impl Maps {
    /// Attaches to the hypervisor.
    pub fn new() -> Self {
        let bus = Bus::attach(Hvc, heap::words(1)).unwrap_or_else(|error| panic!("no DMA maps: {error}"));
        let ring = RawRing::setup(&Hvc, CHANNEL).unwrap_or_else(|error| panic!("no ring: {error}"));
        Self { bus, ring, counts: Counts::default() }
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
        let calls = self.ring.run(&Hvc).unwrap_or_else(|error| panic!("run of the ring: {error:?}"));
        self.counts.hypercalls += calls;
    }

    fn iovas(&self, map: &Place) -> [u64; SEGMENTS_MAX] {
        self.ring.iovas(map.entry)
    }

    fn counts(&self) -> Counts {
        self.counts
    }
}
