//! A channel of the naive maps.

use std::vec::Vec;

use bulkhead_abi::{Constraints, Counter, Direction, Error, Handle, MapState, Segment, SyncOp};
use bulkhead_core::addr::{AddrRange, Ipa, PAGE_SIZE};

use super::{Map, Model, State, WINDOW_END, WINDOW_START};
use crate::dmamap::{Channel, Lease, Loaded, MapInfo, Ring};

/// A channel, claimed.
#[derive(Debug)]
pub struct ModelChannel<'a> {
    model: &'a Model,
    number: u8,
    ring: Option<Ring>,
    /// Places of the maps that were unloaded since the last flush.
    batch: Vec<u32>,
}

impl Drop for ModelChannel<'_> {
    fn drop(&mut self) {
        if let Some(ring) = self.model.state.borrow_mut().rings.get_mut(usize::from(self.number)) {
            *ring = self.ring;
        }
        self.model.claimed.borrow_mut().remove(&self.number);
    }
}

impl<'a> ModelChannel<'a> {
    pub(super) fn new(model: &'a Model, number: u8) -> Self {
        let ring = model.state.borrow().rings.get(usize::from(number)).copied().flatten();
        Self { model, number, ring, batch: Vec::new() }
    }

    fn map<'s>(&self, state: &'s mut State, handle: Handle) -> Result<&'s mut Map, Error> {
        let map = state.maps.get_mut(&handle.place()).filter(|map| map.handle == handle);
        map.filter(|_| handle.channel() == self.number).ok_or(Error::NoMap)
    }
}

impl State {
    fn find_space(&self, bytes: u64, constraints: &Constraints) -> Option<u64> {
        let align = constraints.align.max(PAGE_SIZE);
        let mut leases: Vec<_> = self.maps.values().map(|map| (map.base, map.base + map.bytes)).collect();
        leases.sort_unstable();
        let mut base = WINDOW_START;
        for (start, end) in leases.into_iter().chain([(WINDOW_END, WINDOW_END)]) {
            base = base.checked_next_multiple_of(align)?;
            let last = base.checked_add(bytes)?.checked_sub(1)?;
            if constraints.boundary != 0 && base / constraints.boundary != last / constraints.boundary {
                base = base.checked_next_multiple_of(constraints.boundary)?;
            }
            let last = base.checked_add(bytes)?.checked_sub(1)?;
            let is_bounded = constraints.boundary == 0 || base / constraints.boundary == last / constraints.boundary;
            if last < start {
                return (is_bounded && last <= constraints.limit && base.is_multiple_of(align)).then_some(base);
            }
            base = base.max(end);
        }
        None
    }
}

/// The pages of `bytes` bytes at `start`.
fn pages(start: u64, bytes: u64) -> impl Iterator<Item = u64> {
    let first = start & !(PAGE_SIZE - 1);
    (first..start + bytes).step_by(4096)
}

impl Channel for ModelChannel<'_> {
    fn ring(&mut self) -> &mut Option<Ring> {
        &mut self.ring
    }

    fn create(&mut self, constraints: &Constraints) -> Result<Lease, Error> {
        assert!(constraints.max_size > 0 && (1..=64).contains(&constraints.max_segments));
        assert!(constraints.align.is_power_of_two() && constraints.max_size <= WINDOW_END - WINDOW_START);
        let mut state = self.model.state.borrow_mut();
        if state.maps.len() >= self.model.maps_max {
            return Err(Error::TooManyMaps);
        }
        let round = constraints.max_size.checked_next_multiple_of(PAGE_SIZE).ok_or(Error::NoSpace)?;
        let bytes = round + (constraints.max_segments + 1) * PAGE_SIZE;
        let base = state.find_space(bytes, constraints).ok_or(Error::NoSpace)?;
        let place = (0..).find(|place| !state.maps.contains_key(place)).ok_or(Error::TooManyMaps)?;
        state.generation += 1;
        let handle = Handle::new(self.number, place, state.generation).ok_or(Error::TooManyMaps)?;
        let max_segments = usize::try_from(constraints.max_segments).map_err(|_| Error::TooManySegments)?;
        let map = Map { handle, max_segments, base, bytes, state: MapState::Created, size: 0, iova_pages: Vec::new() };
        state.maps.insert(place, map);
        state.count(Counter::Creates, 1);
        Ok(Lease { handle, base, bytes })
    }

    fn load(&mut self, map: Handle, direction: Direction, segments: &mut [Segment]) -> Result<Loaded, Error> {
        let ram = self.model.ram;
        let mut state = self.model.state.borrow_mut();
        let found = self.map(&mut state, map)?;
        match found.state {
            MapState::Created => {}
            MapState::Loaded => return Err(Error::Loaded),
            MapState::Unflushed => return Err(Error::Unflushed),
        }
        if segments.len() > found.max_segments {
            return Err(Error::TooManySegments);
        }
        let (mut size, mut used) = (0u64, 0);
        for segment in segments.iter() {
            let range = AddrRange::new(Ipa::new(segment.ipa), segment.bytes).ok_or(Error::BadSegment)?;
            if !ram.contains_range(range) {
                return Err(Error::NotRam);
            }
            size = size.checked_add(segment.bytes).ok_or(Error::TooLong)?;
            used += pages(segment.ipa, segment.bytes).count();
        }
        // All but the guard page.
        if u64::try_from(used).is_ok_and(|used| used * PAGE_SIZE >= found.bytes) {
            return Err(Error::TooLong);
        }
        let mut next = found.base;
        let mut table = Vec::new();
        for segment in segments.iter_mut() {
            segment.iova = next + segment.ipa % PAGE_SIZE;
            for page in pages(segment.ipa, segment.bytes) {
                table.push((next, (page, direction)));
                next += PAGE_SIZE;
            }
        }
        assert!(next < found.base + found.bytes, "the guard page stays free");
        (found.state, found.size) = (MapState::Loaded, size);
        found.iova_pages = table.iter().map(|(iova, _)| *iova).collect();
        let pages = u64::try_from(table.len()).map_err(|_| Error::TooLong)?;
        state.fresh.extend(table);
        state.count(Counter::Loads, 1);
        state.count(Counter::Pages, pages);
        Ok(Loaded { pages })
    }

    fn unload(&mut self, map: Handle) -> Result<(), Error> {
        let mut state = self.model.state.borrow_mut();
        let found = self.map(&mut state, map)?;
        if found.state != MapState::Loaded {
            return Ok(());
        }
        (found.state, found.size) = (MapState::Unflushed, 0);
        let pages = core::mem::take(&mut found.iova_pages);
        for iova in pages {
            let (fresh, old) = (state.fresh.remove(&iova), state.table.remove(&iova));
            state.stale.extend(fresh.or(old).map(|page| (iova, page)));
        }
        self.batch.push(map.place());
        state.count(Counter::Unloads, 1);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Error> {
        {
            let mut state = self.model.state.borrow_mut();
            let fresh = core::mem::take(&mut state.fresh);
            state.table.extend(fresh);
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        if *self.model.is_stuck.borrow() {
            self.batch.clear();
            self.model.state.borrow_mut().count(Counter::Timeouts, 1);
            return Err(Error::Quarantined);
        }
        let mut state = self.model.state.borrow_mut();
        state.stale.clear();
        state.count(Counter::ContextCommands, 1);
        state.count(Counter::Syncs, 1);
        for place in core::mem::take(&mut self.batch) {
            if let Some(map) = state.maps.get_mut(&place) {
                map.state = MapState::Created;
            }
        }
        Ok(())
    }

    fn destroy(&mut self, map: Handle) -> Result<(), Error> {
        self.unload(map)?;
        self.finish()?;
        let mut state = self.model.state.borrow_mut();
        if self.map(&mut state, map)?.state == MapState::Unflushed {
            return Err(Error::Quarantined);
        }
        state.maps.remove(&map.place());
        state.count(Counter::Destroys, 1);
        Ok(())
    }

    fn sync(&mut self, map: Handle, _: SyncOp, offset: u64, bytes: u64) -> Result<(), Error> {
        let mut state = self.model.state.borrow_mut();
        let found = self.map(&mut state, map)?;
        if found.state != MapState::Loaded {
            return Err(Error::NotLoaded);
        }
        if offset + bytes > found.size {
            return Err(Error::TooLong);
        }
        Ok(())
    }

    fn query(&mut self, map: Handle) -> Result<MapInfo, Error> {
        let mut state = self.model.state.borrow_mut();
        let found = self.map(&mut state, map)?;
        let pages = u64::try_from(found.iova_pages.len()).unwrap_or(u64::MAX);
        Ok(MapInfo { state: found.state, base: found.base, pages })
    }
}
