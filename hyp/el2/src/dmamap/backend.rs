//! What stands behind the guest's calls: channels claimed without waiting, maps, the space's lock where it is needed.

use core::sync::atomic::AtomicU64;

use bulkhead_abi::{Constraints, Counter, Direction, Error, Flags, Handle, MapState, Segment, SyncOp, Window};
use bulkhead_core::addr::{Iova, Ipa, PAGE_SIZE};
use bulkhead_dma::map::{self, LoadError, MapParams};
use bulkhead_ring::{Loads, load_error};
use bulkhead_vdev::dmamap::{Backend, Channel, Entries, Lease, Loaded, MapInfo, Ring};

use super::{
    Maps,
    errors::create_error,
    queue::{Published, Queue, Slot},
};
use crate::lock::MutexGuard;

/// Segments of a load at most.
const SEGMENTS: usize = 64;
const _: () = assert!(SEGMENTS as u64 == bulkhead_abi::SEGMENTS_MAX);

/// Rounds of flushing and giving back after a destroy: pages, then the tables that they were the last of.
const ROUNDS: usize = 2;

impl Backend for Maps {
    type Channel<'a> = Claimed<'a>;

    fn claim(&self, channel: u8) -> Result<Claimed<'_>, Error> {
        let place = usize::from(channel);
        let (slot, published) = self.channels.get(place).zip(self.published.get(place)).ok_or(Error::NoChannel)?;
        let guard = slot.try_lock().ok_or(Error::Busy)?;
        if guard.queue.is_none() {
            return Err(Error::Quarantined);
        }
        Ok(Claimed { maps: self, guard, published })
    }

    fn flags(&self) -> Flags {
        if self.settings().flush.is_strict() { Flags::COHERENT } else { Flags::COHERENT | Flags::DEFERRED }
    }

    fn maps_max(&self) -> u64 {
        self.settings().maps.into()
    }

    fn window(&self) -> Window {
        Window { start: PAGE_SIZE, end: self.end, page: PAGE_SIZE }
    }

    fn counter(&self, counter: Counter) -> u64 {
        Maps::counter(self, counter)
    }
}

/// A channel that this CPU alone works on.
pub struct Claimed<'a> {
    maps: &'a Maps,
    guard: MutexGuard<'a, Slot>,
    published: &'a Published,
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        if let Some(queue) = &self.guard.queue {
            self.published.publish(queue);
        }
    }
}

impl Claimed<'_> {
    fn queue(&mut self) -> Result<&mut Queue, Error> {
        self.guard.queue.as_mut().ok_or(Error::Quarantined)
    }

    /// Flushes, and gives back what that has freed, and with `is_now` what an earlier flush has: EL2's timer gives nothing
    /// back.
    fn flush(&mut self, is_now: bool) -> Result<(), Error> {
        let maps = self.maps;
        let queue = self.queue()?;
        let is_flushed = queue.flush(maps, is_now)? || is_now;
        if is_flushed && (queue.has_tables || queue.channel.has_retired()) {
            let mut ground = maps.ground.lock();
            let ground = &mut *ground;
            if let Some(space) = &mut ground.space {
                space.reap(&mut queue.channel, &mut ground.pool);
            }
            queue.has_tables = queue.channel.batch().has_tables();
        }
        Ok(())
    }

    fn load_all(&mut self, map: Handle, direction: Direction, own: &mut [map::Segment]) -> Result<u32, Error> {
        let maps = self.maps;
        let queue = self.queue()?;
        let handle = map::Handle::from_u64(map.register());
        let direction = bulkhead_ring::direction(direction);
        let mut loaded = queue.channel.load(handle, direction, own);
        if loaded == Err(LoadError::NeedsSpace) {
            let mut ground = maps.ground.lock();
            let ground = &mut *ground;
            if let Some(space) = &mut ground.space {
                loaded = space.load(&mut queue.channel, handle, direction, own, &mut ground.pool);
            }
            queue.has_tables |= queue.channel.batch().has_tables();
        }
        let pages = loaded.map_err(|problem| load_error(problem, own))?;
        queue.note(Loads { loads: 1, pages: pages.into() });
        Ok(pages)
    }
}

impl Channel for Claimed<'_> {
    fn ring(&mut self) -> &mut Option<Ring> {
        &mut self.guard.ring
    }

    fn create(&mut self, constraints: &Constraints) -> Result<Lease, Error> {
        let maps = self.maps;
        let queue = self.queue()?;
        let params = MapParams {
            max_size: constraints.max_size,
            max_segments: u32::try_from(constraints.max_segments).map_err(|_| Error::Invalid)?,
            align: constraints.align.max(1),
            boundary: constraints.boundary,
            limit: constraints.limit,
        };
        let mut ground = maps.ground.lock();
        let ground = &mut *ground;
        let space = ground.space.as_mut().ok_or(Error::Quarantined)?;
        let created = space.create(&mut queue.channel, &params, &mut ground.pool).map_err(create_error)?;
        queue.creates = queue.creates.wrapping_add(1);
        let handle = Handle::from_register(created.handle.as_u64());
        Ok(Lease { handle, base: created.base.as_u64(), bytes: created.bytes })
    }

    fn load(&mut self, map: Handle, direction: Direction, segments: &mut [Segment]) -> Result<Loaded, Error> {
        let mut own = [const { map::Segment::new(Ipa::new(0), 0) }; SEGMENTS];
        let own = own.get_mut(..segments.len()).ok_or(Error::TooManySegments)?;
        for (own, segment) in own.iter_mut().zip(segments.iter()) {
            *own = map::Segment::new(Ipa::new(segment.ipa), segment.bytes);
        }
        let pages = match self.load_all(map, direction, own) {
            // A deferred flush that this map waits for happens now.
            Err(Error::Unflushed) if !self.maps.settings().flush.is_strict() => {
                self.flush(true)?;
                self.load_all(map, direction, own)?
            }
            pages => pages?,
        };
        for (own, segment) in own.iter().zip(segments) {
            segment.iova = own.iova.as_u64();
        }
        Ok(Loaded { pages: pages.into() })
    }

    fn unload(&mut self, map: Handle) -> Result<(), Error> {
        let handle = map::Handle::from_u64(map.register());
        self.queue()?.channel.unload(handle).map_err(|_| Error::NoMap)
    }

    fn entries(&mut self, entries: &mut Entries<'_, AtomicU64>) {
        let is_strict = self.maps.settings().flush.is_strict();
        while let Ok(queue) = self.queue() {
            let loads = bulkhead_ring::run(&mut queue.channel, entries, is_strict);
            queue.note(loads);
            if !entries.step(self) {
                return;
            }
        }
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.flush(false)
    }

    fn destroy(&mut self, map: Handle) -> Result<(), Error> {
        let maps = self.maps;
        let queue = self.queue()?;
        let handle = map::Handle::from_u64(map.register());
        {
            let mut ground = maps.ground.lock();
            let space = ground.space.as_mut().ok_or(Error::Quarantined)?;
            space.destroy(&mut queue.channel, handle).map_err(|_| Error::NoMap)?;
            queue.destroys = queue.destroys.wrapping_add(1);
            queue.has_tables |= queue.channel.batch().has_tables();
        }
        // A lease returns after its flush alone, in the deferred mode too.
        for _ in 0..ROUNDS {
            self.flush(true)?;
        }
        Ok(())
    }

    fn sync(&mut self, map: Handle, _op: SyncOp, offset: u64, bytes: u64) -> Result<(), Error> {
        // Devices see the CPUs' caches; what is left is to say whether the range is loaded.
        let handle = map::Handle::from_u64(map.register());
        let view = self.queue()?.channel.view(handle).map_err(|_| Error::NoMap)?;
        match offset.checked_add(bytes) {
            _ if !view.is_loaded => Err(Error::NotLoaded),
            Some(end) if end <= view.pages * PAGE_SIZE => Ok(()),
            _ => Err(Error::TooLong),
        }
    }

    fn query(&mut self, map: Handle) -> Result<MapInfo, Error> {
        let handle = map::Handle::from_u64(map.register());
        let view = self.queue()?.channel.view(handle).map_err(|_| Error::NoMap)?;
        let state = match (view.is_loaded, view.is_unflushed) {
            (true, _) => MapState::Loaded,
            (_, true) => MapState::Unflushed,
            _ => MapState::Created,
        };
        Ok(MapInfo { state, base: Iova::as_u64(view.base), pages: view.pages })
    }
}
