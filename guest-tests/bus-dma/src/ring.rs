//! A ring: many loads and unloads with one call.

use core::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use bulkhead_abi::{
    Direction, Handle, Segment,
    ring::{CONSUMER_OFFSET, ENTRY_SEGMENTS, Entry, Header, Op, PENDING, PRODUCER_OFFSET, ring_bytes},
};
use zerocopy::{FromBytes, IntoBytes};

use crate::{Buffers, Bus, Error, Hypervisor, Loaded, Map, Refused, map::gather};

/// Words of the header.
const HEADER_WORDS: usize = size_of::<Header>() / 8;
/// Words of an entry.
const ENTRY_WORDS: usize = size_of::<Entry>() / 8;
/// Words of an entry before its segments.
const HEAD_WORDS: usize = core::mem::offset_of!(Entry, segments) / 8;

/// What a run did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Entries that are done now.
    pub consumed: u64,
    /// Entries that wait for the next run.
    pub left: u64,
    /// Entries of those done that failed.
    pub failed: u64,
}

/// What became of an entry.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "it holds a map"]
pub enum Done<B> {
    /// A load: devices reach the buffers.
    Loaded(Loaded<B>),
    /// A load that was refused.
    NotLoaded(Map, B, Error),
    /// An unload: no device reaches the buffers through the map.
    Unloaded(Map, B),
    /// An unload that was not confirmed: what is in it must not be used.
    NotUnloaded(Loaded<B>, Error),
}

/// What an entry that is under way holds.
#[derive(Debug)]
enum Flight<B> {
    Load(Map, B, [Segment; ENTRY_SEGMENTS], usize),
    Unload(Loaded<B>),
}

/// The ring of a channel, of `N` entries, a power of two of at most 1,024.
#[derive(Debug)]
pub struct Ring<'m, B, const N: usize> {
    channel: u8,
    words: &'m [AtomicU64],
    flights: [Option<Flight<B>>; N],
    /// Entries filled, entries that the hypervisor has done, entries that were taken: indices that wrap.
    producer: u32,
    consumer: u32,
    taken: u32,
}

impl<'m, B: Buffers, const N: usize> Ring<'m, B, N> {
    const LOG2: u32 = {
        assert!(N.is_power_of_two() && N <= 1024);
        N.ilog2()
    };
    /// Words of memory that it needs, page-aligned.
    pub const WORDS: usize = HEADER_WORDS + N * ENTRY_WORDS;

    /// Writes a ring into `words` and gives it to the hypervisor.
    ///
    /// # Errors
    /// [`Error::Memory`] for another size than [`Self::WORDS`] or more, [`Error::Call`].
    pub fn setup<H: Hypervisor>(bus: &Bus<'_, H>, channel: u8, words: &'m [AtomicU64]) -> Result<Self, Error> {
        let ipa = bus.hypervisor().ipa(words.as_ptr().addr());
        let log2 = u64::from(Self::LOG2);
        let needed = ring_bytes(log2).and_then(|bytes| usize::try_from(bytes).ok());
        if needed.is_none_or(|needed| size_of_val(words) < needed) {
            return Err(Error::Memory(size_of_val(words), ipa));
        }
        for (word, value) in words.iter().zip(Header::NEW.as_bytes().as_chunks::<8>().0) {
            word.store(u64::from_ne_bytes(*value), Relaxed);
        }
        bus.ring_setup(channel, ipa, log2)?;
        let flights = core::array::from_fn(|_| None);
        Ok(Self { channel, words, flights, producer: 0, consumer: 0, taken: 0 })
    }

    /// Takes the ring from the hypervisor. Entries that were not run are lost with it: run it first.
    ///
    /// # Errors
    /// The ring, still in place.
    pub fn remove<H: Hypervisor>(self, bus: &Bus<'_, H>) -> Result<(), Refused<Self>> {
        bus.ring_setup(self.channel, 0, 0).map(|_| ()).map_err(|error| Refused::new(error, self))
    }

    /// Entries that can be filled.
    pub fn free(&self) -> usize {
        let used = usize::try_from(self.producer.wrapping_sub(self.taken)).unwrap_or(N);
        N.saturating_sub(used)
    }

    /// Entries that are done and not taken.
    pub fn done(&self) -> u32 {
        self.consumer.wrapping_sub(self.taken)
    }

    /// Entries that the next run takes.
    pub fn pending(&self) -> u32 {
        self.producer.wrapping_sub(self.consumer)
    }

    /// Puts a load into the ring.
    ///
    /// # Errors
    /// Map and buffers: [`Error::Full`], [`Error::Channel`], [`Error::ReadOnly`], [`Error::Segments`].
    pub fn load<H: Hypervisor>(
        &mut self,
        bus: &Bus<'_, H>,
        map: Map,
        direction: Direction,
        buffers: B,
    ) -> Result<(), Refused<(Map, B)>> {
        let gathered = self.check(map.handle).and_then(|()| gather(&buffers, bus.hypervisor(), direction));
        let (segments, count) = match gathered {
            Ok(gathered) => gathered,
            Err(error) => return Err(Refused::new(error, (map, buffers))),
        };
        let entry = Entry {
            op: Op::Load.number(),
            direction: direction.number(),
            count: u8::try_from(count).unwrap_or(u8::MAX),
            status: PENDING,
            handle: map.handle.register(),
            segments,
            ..Entry::default()
        };
        self.put(&entry, count, Flight::Load(map, buffers, segments, count));
        Ok(())
    }

    /// Puts an unload into the ring.
    ///
    /// # Errors
    /// What is loaded: [`Error::Full`], [`Error::Channel`].
    pub fn unload(&mut self, loaded: Loaded<B>) -> Result<(), Refused<Loaded<B>>> {
        if let Err(error) = self.check(loaded.map.handle) {
            return Err(Refused::new(error, loaded));
        }
        let handle = loaded.map.handle.register();
        let entry = Entry { op: Op::Unload.number(), status: PENDING, handle, ..Entry::default() };
        self.put(&entry, 0, Flight::Unload(loaded));
        Ok(())
    }

    /// Has the hypervisor do what is in the ring, up to its limit of one run, with one flush.
    ///
    /// # Errors
    /// [`Error::Call`]: nothing was done.
    pub fn run<H: Hypervisor>(&mut self, bus: &Bus<'_, H>) -> Result<Run, Error> {
        let [consumed, left, failed] = bus.ring_run(self.channel)?;
        self.consumer = low_half(self.word(CONSUMER_OFFSET).map_or(0, |word| word.load(Acquire)));
        Ok(Run { consumed, left, failed })
    }

    /// What became of the oldest entry that is done.
    pub fn take(&mut self) -> Option<Done<B>> {
        if self.done() == 0 {
            return None;
        }
        let place = self.place(self.taken);
        let flight = self.flights.get_mut(place)?.take()?;
        let words = self.entry(place)?;
        self.taken = self.taken.wrapping_add(1);
        let outcome = Error::check_status(status(words));
        Some(match (flight, outcome) {
            (Flight::Load(map, buffers, mut segments, count), Ok(())) => {
                let outs = words.get(HEAD_WORDS..)?.as_chunks::<3>().0;
                for (segment, [_, _, iova]) in segments.iter_mut().zip(outs).take(count) {
                    segment.iova = iova.load(Relaxed);
                }
                Done::Loaded(Loaded { map, buffers, segments, count })
            }
            (Flight::Load(map, buffers, ..), Err(error)) => Done::NotLoaded(map, buffers, error),
            (Flight::Unload(loaded), Ok(())) => Done::Unloaded(loaded.map, loaded.buffers),
            (Flight::Unload(loaded), Err(error)) => Done::NotUnloaded(loaded, error),
        })
    }

    fn check(&self, handle: Handle) -> Result<(), Error> {
        if handle.channel() != self.channel {
            return Err(Error::Channel(handle.channel(), self.channel));
        }
        match self.flights.get(self.place(self.producer)) {
            Some(None) => Ok(()),
            _ => Err(Error::Full),
        }
    }

    /// Fills the entry at the producer, which [`Self::check`] found free.
    fn put(&mut self, entry: &Entry, segments: usize, flight: Flight<B>) {
        let place = self.place(self.producer);
        if let Ok(values) = <[u64; ENTRY_WORDS]>::read_from_bytes(entry.as_bytes())
            && let Some(words) = self.entry(place)
        {
            for (word, value) in words.iter().zip(values).take(HEAD_WORDS + segments * 3) {
                word.store(value, Relaxed);
            }
        }
        if let Some(slot) = self.flights.get_mut(place) {
            *slot = Some(flight);
        }
        self.producer = self.producer.wrapping_add(1);
        // The entry is there before its index says so.
        if let Some(word) = self.word(PRODUCER_OFFSET) {
            word.store(self.producer.into(), Release);
        }
    }

    fn place(&self, index: u32) -> usize {
        usize::try_from(index).unwrap_or_default() & (N - 1)
    }

    fn entry(&self, place: usize) -> Option<&'m [AtomicU64]> {
        self.words.get(HEADER_WORDS + place * ENTRY_WORDS..)?.get(..ENTRY_WORDS)
    }

    fn word(&self, offset: u64) -> Option<&'m AtomicU64> {
        self.words.get(usize::try_from(offset / 8).ok()?)
    }
}

fn low_half(word: u64) -> u32 {
    let [a, b, c, d, ..] = word.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The status in an entry's first word.
fn status(words: &[AtomicU64]) -> i32 {
    let [.., a, b, c, d] = words.first().map_or(0, |word| word.load(Relaxed)).to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}
