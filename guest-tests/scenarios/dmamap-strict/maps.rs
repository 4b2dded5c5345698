//! Maps of every state, what they hold, and what they held.

use core::{fmt, mem};

use bulkhead_bus_dma::{Buffers, Direction, Done, Hypervisor, Loaded, Map, Ring, Span, Tag};
use bulkhead_guest_tests::{
    dmamap::{self, HvcBus},
    println,
    random::Random,
};

use super::device::WORD;

const PAGE: u64 = 4096;
const CHANNEL: u8 = 1;
const SLOTS: usize = 48;
/// Entries of the ring, and of most batches half as many.
const ENTRIES: usize = 32;
/// Retired addresses that are remembered.
const RETIRED: usize = 512;
/// Memory that is loaded.
pub const ARENA_BYTES: u64 = 0x10_0000;

/// Up to four pieces of memory.
#[derive(Debug)]
pub struct Packet {
    spans: [Span; 4],
    count: usize,
}

impl Buffers for Packet {
    const IS_WRITABLE: bool = true;

    fn spans(&self, _: &impl Hypervisor, each: &mut impl FnMut(u64, u64)) {
        for span in &self.spans[..self.count] {
            each(span.ipa, span.bytes);
        }
    }
}

/// An address and what it leads to, or led to.
#[derive(Clone, Copy)]
pub struct Place {
    /// Where the device goes.
    pub iova: u64,
    /// The memory that is or was there.
    pub ipa: u64,
    /// How it was loaded.
    pub direction: Direction,
}

enum Slot {
    /// No map, or one that is in the ring.
    Empty,
    Created(Map),
    Loaded(Loaded<Packet>, Direction),
}

/// The maps.
pub struct Maps {
    ring: Ring<'static, Packet, ENTRIES>,
    slots: [Slot; SLOTS],
    retired: [Option<Place>; RETIRED],
    at: usize,
    arena: u64,
    creates: u64,
    loads: u64,
    unloads: u64,
    destroys: u64,
    refused: u64,
}

impl Maps {
    /// No map yet. The ring is at `at`, the memory at `arena`.
    pub fn new(bus: &HvcBus, at: u64, arena: u64) -> Self {
        let ring = Ring::setup(bus, CHANNEL, dmamap::words(at, 0x1_0000)).unwrap_or_else(|error| panic!("{error}"));
        Self {
            ring,
            slots: [const { Slot::Empty }; SLOTS],
            retired: [None; RETIRED],
            at: 0,
            arena,
            creates: 0,
            loads: 0,
            unloads: 0,
            destroys: 0,
            refused: 0,
        }
    }

    /// Creates, loads, unloads and destroys.
    pub fn operations(&self) -> u64 {
        self.creates + self.loads + self.unloads + self.destroys
    }

    /// Those that were refused.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// A few maps come and go, one call each.
    pub fn churn(&mut self, bus: &HvcBus, random: &mut Random) {
        for _ in 0..random.below(6) {
            let place = random.below(SLOTS as u64) as usize;
            match mem::replace(&mut self.slots[place], Slot::Empty) {
                Slot::Empty => {
                    self.creates += 1;
                    match Map::create(bus, CHANNEL, &Tag::new(4 * PAGE, 4)) {
                        Ok(map) => self.slots[place] = Slot::Created(map),
                        Err(_) => self.refused += 1,
                    }
                }
                slot if random.below(3) == 0 => self.destroy(bus, slot, random),
                slot => self.slots[place] = slot,
            }
        }
    }

    fn destroy(&mut self, bus: &HvcBus, slot: Slot, random: &mut Random) {
        self.destroys += 1;
        let is_destroyed = match slot {
            Slot::Empty => true,
            Slot::Created(map) => map.destroy(bus).is_ok(),
            Slot::Loaded(loaded, direction) => {
                self.retire(&loaded, direction, random);
                loaded.destroy(bus).is_ok()
            }
        };
        self.refused += u64::from(!is_destroyed);
    }

    /// A batch by the ring: what is loaded is unloaded, what is not is loaded. No map is in it twice.
    pub fn batch(&mut self, bus: &HvcBus, random: &mut Random) {
        let first = random.below(SLOTS as u64) as usize;
        let mut order = [(0, Direction::Both); ENTRIES];
        let mut count = 0;
        for step in 0..1 + random.below(ENTRIES as u64) as usize {
            let place = (first + step) % SLOTS;
            let direction = [Direction::Both, Direction::Both, Direction::DeviceReads, Direction::DeviceWrites];
            let direction = direction[random.below(4) as usize];
            let is_put = match mem::replace(&mut self.slots[place], Slot::Empty) {
                Slot::Empty => continue,
                Slot::Created(map) => {
                    self.loads += 1;
                    let packet = self.packet(random);
                    self.ring.load(bus, map, direction, packet).is_ok()
                }
                Slot::Loaded(loaded, direction) => {
                    self.unloads += 1;
                    self.retire(&loaded, direction, random);
                    self.ring.unload(loaded).is_ok()
                }
            };
            self.refused += u64::from(!is_put);
            order[count] = (place, direction);
            count += 1;
        }
        while self.ring.pending() > 0 {
            self.ring.run(bus).unwrap_or_else(|error| panic!("{error}"));
        }
        for (place, direction) in order.into_iter().take(count) {
            self.slots[place] = match self.ring.take() {
                Some(Done::Loaded(loaded)) => Slot::Loaded(loaded, direction),
                Some(Done::Unloaded(map, _)) => Slot::Created(map),
                other => {
                    println!("FAIL: {other:?}");
                    self.refused += 1;
                    Slot::Empty
                }
            };
        }
    }

    /// One to four pieces of words, none longer than a page: at most as many pages as a map has room for.
    fn packet(&self, random: &mut Random) -> Packet {
        let count = 1 + random.below(4) as usize;
        let spans = [(); 4].map(|()| {
            let bytes = 8 + 8 * random.below(PAGE / 8 - 1);
            Span { ipa: self.arena + 8 * random.below((ARENA_BYTES - bytes) / 8), bytes }
        });
        Packet { spans, count }
    }

    /// Remembers a word of each piece.
    fn retire(&mut self, loaded: &Loaded<Packet>, direction: Direction, random: &mut Random) {
        for segment in loaded.segments() {
            let offset = WORD * random.below(segment.bytes / WORD);
            let place = Place { iova: segment.iova + offset, ipa: segment.ipa + offset, direction };
            self.retired[self.at % RETIRED] = Some(place);
            self.at = self.at.wrapping_add(1);
        }
    }

    /// A word of a loaded map.
    pub fn any_loaded(&self, random: &mut Random) -> Option<Place> {
        let first = random.below(SLOTS as u64) as usize;
        let loaded = (0..SLOTS).find_map(|step| match &self.slots[(first + step) % SLOTS] {
            Slot::Loaded(loaded, direction) => Some((loaded, *direction)),
            _ => None,
        });
        let (loaded, direction) = loaded?;
        let segments = loaded.segments();
        let segment = segments[random.below(segments.len() as u64) as usize];
        let offset = WORD * random.below(segment.bytes / WORD);
        Some(Place { iova: segment.iova + offset, ipa: segment.ipa + offset, direction })
    }

    /// A word that was unloaded, the last ones most often, and whose page no map leads through now.
    pub fn any_retired(&self, random: &mut Random) -> Option<Place> {
        let reach = if random.below(2) == 0 { 16 } else { RETIRED as u64 };
        let place = self.retired[self.at.wrapping_sub(1 + random.below(reach) as usize) % RETIRED]?;
        let is_loaded = self.slots.iter().any(|slot| match slot {
            Slot::Loaded(loaded, _) => loaded.segments().iter().any(|segment| {
                let last = segment.iova + segment.bytes - 1;
                (segment.iova / PAGE..=last / PAGE).contains(&(place.iova / PAGE))
            }),
            _ => false,
        });
        (!is_loaded).then_some(place)
    }

    /// Gives everything back.
    pub fn destroy_all(mut self, bus: &HvcBus) {
        let mut random = Random::new(1);
        for place in 0..SLOTS {
            let slot = mem::replace(&mut self.slots[place], Slot::Empty);
            if !matches!(slot, Slot::Empty) {
                self.destroy(bus, slot, &mut random);
            }
        }
        self.ring.remove(bus).unwrap_or_else(|refused| panic!("{refused}"));
    }
}

impl fmt::Display for Maps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { creates, loads, unloads, destroys, .. } = self;
        write!(f, "creates={creates} loads={loads} unloads={unloads} destroys={destroys}")
    }
}
