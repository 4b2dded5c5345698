//! A ring: many loads and unloads with one call.

use core::sync::atomic::AtomicU64;

use bulkhead_abi::{Direction, Handle, Segment};

use crate::{Buffers, Bus, Error, Hypervisor, Loaded, Map, RawRing, Refused, Run, map::check_access};

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
    /// A load of so many segments.
    Load(Map, B, usize),
    Unload(Loaded<B>),
}

/// The ring of a channel, of `N` entries, a power of two of at most 1,024.
#[derive(Debug)]
pub struct Ring<'m, B, const N: usize> {
    raw: RawRing<'m>,
    flights: [Option<Flight<B>>; N],
    /// Entries that were taken, an index that wraps.
    taken: u32,
}

impl<'m, B: Buffers, const N: usize> Ring<'m, B, N> {
    const LOG2: u32 = {
        assert!(N.is_power_of_two() && N <= 1024);
        N.ilog2()
    };
    /// Words of memory that it needs, page-aligned, with no multiple of 2 MiB among them.
    pub const WORDS: usize = RawRing::words(Self::LOG2);

    /// Writes a ring into `words` and gives it to the hypervisor.
    ///
    /// # Errors
    /// [`Error::Memory`] for another size than [`Self::WORDS`] or more, [`Error::Call`].
    pub fn setup<H: Hypervisor>(bus: &Bus<'_, H>, channel: u8, words: &'m [AtomicU64]) -> Result<Self, Error> {
        let raw = RawRing::setup(bus, channel, Self::LOG2, words)?;
        Ok(Self { raw, flights: core::array::from_fn(|_| None), taken: 0 })
    }

    /// Takes the ring from the hypervisor. Entries that were not run are lost with it: run it first.
    ///
    /// # Errors
    /// The ring, still in place.
    pub fn remove<H: Hypervisor>(self, bus: &Bus<'_, H>) -> Result<(), Refused<Self>> {
        self.raw.remove(bus).map_err(|error| Refused::new(error, self))
    }

    /// Entries that can be filled.
    pub fn free(&self) -> usize {
        let used = usize::try_from(self.raw.producer().wrapping_sub(self.taken)).unwrap_or(N);
        N.saturating_sub(used)
    }

    /// Entries that are done and not taken.
    pub fn done(&self) -> u32 {
        self.raw.consumer().wrapping_sub(self.taken)
    }

    /// Entries that the next run takes.
    pub fn pending(&self) -> u32 {
        self.raw.producer().wrapping_sub(self.raw.consumer())
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
        let mut count = 0;
        let put = self.check(map.handle).and_then(|()| check_access::<B>(direction)).and_then(|()| {
            self.raw.load(map.handle, direction, |segments| {
                buffers.spans(bus.hypervisor(), &mut |ipa, bytes| segments.push(ipa, bytes));
                count = segments.len();
            })
        });
        match put {
            Ok(index) => {
                self.fly(index, Flight::Load(map, buffers, count));
                Ok(())
            }
            Err(error) => Err(Refused::new(error, (map, buffers))),
        }
    }

    /// Puts an unload into the ring.
    ///
    /// # Errors
    /// What is loaded: [`Error::Full`], [`Error::Channel`].
    pub fn unload(&mut self, loaded: Loaded<B>) -> Result<(), Refused<Loaded<B>>> {
        match self.check(loaded.map.handle).and_then(|()| self.raw.unload(loaded.map.handle)) {
            Ok(index) => {
                self.fly(index, Flight::Unload(loaded));
                Ok(())
            }
            Err(error) => Err(Refused::new(error, loaded)),
        }
    }

    /// Has the hypervisor do what is in the ring, up to its limit of one run, with one flush.
    ///
    /// # Errors
    /// [`Error::Call`]: nothing was done.
    pub fn run<H: Hypervisor>(&mut self, bus: &Bus<'_, H>) -> Result<Run, Error> {
        self.raw.run(bus)
    }

    /// What became of the oldest entry that is done.
    pub fn take(&mut self) -> Option<Done<B>> {
        if self.done() == 0 {
            return None;
        }
        let index = self.taken;
        let flight = self.flights.get_mut(place::<N>(index))?.take()?;
        self.taken = index.wrapping_add(1);
        Some(match (flight, self.raw.outcome(index)) {
            (Flight::Load(map, buffers, count), Ok(())) => {
                let mut segments = self.raw.segments(index);
                segments.iter_mut().skip(count).for_each(|unused| *unused = Segment::default());
                Done::Loaded(Loaded { map, buffers, segments, count })
            }
            (Flight::Load(map, buffers, _), Err(error)) => Done::NotLoaded(map, buffers, error),
            (Flight::Unload(loaded), Ok(())) => Done::Unloaded(loaded.map, loaded.buffers),
            (Flight::Unload(loaded), Err(error)) => Done::NotUnloaded(loaded, error),
        })
    }

    fn check(&self, handle: Handle) -> Result<(), Error> {
        if handle.channel() != self.raw.channel() {
            return Err(Error::Channel(handle.channel(), self.raw.channel()));
        }
        match self.flights.get(place::<N>(self.raw.producer())) {
            Some(None) => Ok(()),
            _ => Err(Error::Full),
        }
    }

    /// Keeps what the entry of `index` holds, whose slot [`Self::check`] found free.
    fn fly(&mut self, index: u32, flight: Flight<B>) {
        if let Some(slot) = self.flights.get_mut(place::<N>(index)) {
            *slot = Some(flight);
        }
    }
}

fn place<const N: usize>(index: u32) -> usize {
    usize::try_from(index).unwrap_or_default() & (N - 1)
}
