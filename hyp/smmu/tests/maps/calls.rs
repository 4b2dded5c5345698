//! The guest's calls, as EL2 answers them, at random.

use bulkhead_core::{
    addr::{BLOCK_2M, Ipa, PAGE_SIZE},
    bundle::DmamapStrategy,
};
use bulkhead_dma::{
    flush::{Live, Mode, Scope, retire},
    map::{Direction, Handle, LoadError, MapParams, Segment},
};
use bulkhead_smmu::Platform;

use super::{Map, RAM, RAM_PAGES, World};
use crate::walker::Fault;

impl World {
    pub(super) fn create(&mut self) -> Result<(), String> {
        let segments = 1 + self.random(4);
        let bytes = match self.random(64) {
            0 => BLOCK_2M + self.random(BLOCK_2M / 2),
            1..8 => 0x1_0000,
            _ => 1 + self.random(0x3000),
        };
        let mut params = MapParams::new(bytes, u32::try_from(segments).expect("few"));
        match self.random(16) {
            0 => params = MapParams { align: BLOCK_2M, ..MapParams::new(BLOCK_2M, 1) },
            1 => params.limit = 0x7f_ffff,
            2 => params.boundary = 0x1000 << self.random(3),
            3 => params.align = 0x8000,
            _ => {}
        }
        let channel = self.pick(2);
        match self.space.create(&mut self.queues[channel].channel, &params, &mut self.pool) {
            Ok(created) => self.maps.push(Map {
                handle: created.handle,
                params,
                lease: created.base.as_u64()..created.base.as_u64() + created.bytes,
                loaded: None,
            }),
            Err(_) => self.counts.refused += 1,
        }
        Ok(())
    }

    fn segments(&mut self, params: &MapParams) -> Vec<Segment> {
        if params.align == BLOCK_2M && self.strategy == DmamapStrategy::Reserve {
            return vec![Segment::new(Ipa::new(RAM + self.random(2) * BLOCK_2M), BLOCK_2M)];
        }
        let count = 1 + self.random(params.max_segments.into());
        (0..count)
            .map(|_| {
                let most = (params.max_size / count).max(1);
                let bytes = 1 + self.random(most);
                // Now and then over the end of the RAM.
                let beyond = if self.random(32) == 0 { PAGE_SIZE } else { 1 };
                let at = self.random(RAM_PAGES * PAGE_SIZE - bytes + beyond);
                Segment::new(Ipa::new(RAM + at), bytes)
            })
            .collect()
    }

    pub(super) fn load(&mut self) -> Result<(), String> {
        let at = self.pick(self.maps.len());
        let (handle, params) = (self.maps[at].handle, self.maps[at].params);
        let channel = handle.channel();
        let mut segments = self.segments(&params);
        let direction = [Direction::DeviceReads, Direction::DeviceWrites, Direction::Both][self.pick(3)];
        let mut loaded = self.try_load(handle, direction, &mut segments);
        if loaded == Err(LoadError::Unflushed) && self.random(2) == 0 {
            self.sync(channel, true)?;
            loaded = self.try_load(handle, direction, &mut segments);
        }
        match loaded {
            Ok(pages) if self.maps[at].loaded.is_none() => {
                self.loaded_pages += u64::from(pages);
                self.shadow.load(&segments, direction)?;
                let lease = &self.maps[at].lease;
                let guard = lease.end.saturating_sub(PAGE_SIZE);
                let is_within = |segment: &Segment| {
                    lease.start <= segment.iova.as_u64() && segment.iova.as_u64() + segment.bytes() <= guard
                };
                if !lease.is_empty() && !segments.iter().all(is_within) {
                    return Err(format!("{segments:x?} are not within {lease:x?} without its guard page"));
                }
                for segment in &segments {
                    let (first, last) = (segment.iova.as_u64(), segment.iova.as_u64() + segment.bytes() - 1);
                    if params.boundary != 0 && first / params.boundary != last / params.boundary {
                        return Err(format!("{segment:x?} is across {:#x}", params.boundary));
                    }
                    self.note(segment.iova.as_u64() / PAGE_SIZE);
                    self.note((segment.iova.as_u64() + segment.bytes() - 1) / PAGE_SIZE);
                }
                self.maps[at].loaded = Some((segments, direction));
            }
            Ok(_) => return Err(format!("{handle:?} was loaded twice")),
            Err(_) => self.counts.refused += 1,
        }
        // A call of its own, or an entry among others of a ring.
        if self.random(2) == 0 {
            self.end_call();
        }
        Ok(())
    }

    fn try_load(&mut self, handle: Handle, direction: Direction, segments: &mut [Segment]) -> Result<u32, LoadError> {
        let channel = &mut self.queues[usize::from(handle.channel())].channel;
        match channel.load(handle, direction, segments) {
            Err(LoadError::NeedsSpace) => self.space.load(channel, handle, direction, segments, &mut self.pool),
            done => done,
        }
    }

    pub(super) fn unload(&mut self) -> Result<(), String> {
        let at = self.pick(self.maps.len());
        let handle = self.maps[at].handle;
        self.queues[usize::from(handle.channel())].channel.unload(handle).map_err(|error| error.to_string())?;
        self.unloaded(at);
        if self.random(4) == 0 { self.sync(handle.channel(), false) } else { Ok(()) }
    }

    fn unloaded(&mut self, at: usize) {
        let map = &mut self.maps[at];
        let channel = map.handle.channel();
        let Some((segments, direction)) = map.loaded.take() else { return };
        self.shadow.unload(&segments, direction, channel);
        for segment in segments {
            self.note((segment.iova.as_u64() + segment.bytes() - 1) / PAGE_SIZE);
            self.note(segment.iova.as_u64() / PAGE_SIZE);
            self.loaded_pages = self.loaded_pages.saturating_sub(segment.bytes().div_ceil(PAGE_SIZE));
        }
    }

    pub(super) fn destroy(&mut self) -> Result<(), String> {
        let at = self.pick(self.maps.len());
        let handle = self.maps[at].handle;
        let channel = &mut self.queues[usize::from(handle.channel())].channel;
        self.space.destroy(channel, handle).map_err(|error| error.to_string())?;
        self.unloaded(at);
        self.maps.swap_remove(at);
        // Another CPU's calls may come before the flush.
        if self.random(2) == 0 {
            return Ok(());
        }
        // Pages, then the tables that they were the last of.
        for _ in 0..2 {
            self.sync(handle.channel(), true)?;
        }
        Ok(())
    }

    /// Everything stored is visible to the SMMU when a call returns.
    fn end_call(&mut self) {
        self.platform.barrier();
        self.shadow.call += 1;
    }

    /// A SYNC of one channel, and the device tries everything that it retired.
    pub(super) fn sync(&mut self, channel: u8, is_now: bool) -> Result<(), String> {
        self.pool.hold_stores(self.fault == Fault::NoBarrierForTables);
        let flushed = self.flush(channel, is_now);
        for page in flushed? {
            self.counts.replays += 1;
            self.touch(page)?;
        }
        self.pool.hold_stores(false);
        self.platform.barrier();
        Ok(())
    }

    /// The pages to be tried: of a block's 512, some.
    fn flush(&mut self, channel: u8, is_now: bool) -> Result<Vec<u64>, String> {
        self.end_call();
        let queue = &mut self.queues[usize::from(channel)];
        if queue.channel.batch().is_empty() {
            return Ok(Vec::new());
        }
        let live = Live { entries: self.loaded_pages };
        let decided = queue.policy.decide(queue.channel.batch_mut(), live, self.now_us);
        let Some(scope) = decided.or(is_now.then_some(Scope::Context)) else {
            let (since, waiting) = (*queue.put_off_us.get_or_insert(self.now_us), queue.channel.batch().pages());
            return match self.mode {
                Mode::Deferred { pages, window_us }
                    if self.now_us - since < window_us.into() && waiting < pages.into() =>
                {
                    Ok(Vec::new())
                }
                _ => Err(format!("{waiting} pages are put off for {} us", self.now_us - since)),
            };
        };
        queue.put_off_us = None;
        let work = queue.policy.close(queue.channel.batch_mut(), scope);
        let epoch = retire(work, &mut [&mut self.walker]).map_err(|error| error.to_string())?;
        queue.channel.batch_mut().accept(&epoch).map_err(|error| error.to_string())?;
        let retired = self.shadow.sync(channel);
        self.space.reap(&mut queue.channel, &mut self.pool);
        let step = retired.len() / 32 + 1;
        Ok(retired.iter().step_by(step).chain(retired.last()).copied().collect())
    }
}
