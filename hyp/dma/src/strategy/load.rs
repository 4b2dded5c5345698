//! Loads that lease: with the space, or from a magazine.

use bulkhead_core::{
    addr::{Iova, PAGE_SIZE},
    bundle::DmamapStrategy,
};

use super::magazine::{Magazine, lease_pages};
use crate::{
    iova::Wish,
    map::{Channel, Direction, Handle, LoadError, Segment, Space, load::Layout, piece::NONE, record::Kind},
    tree::TableSource,
};

impl<'t> Space<'t> {
    /// [`Channel::load`] for every strategy: where that answers [`LoadError::NeedsSpace`], the load leases.
    ///
    /// On error nothing is loaded. With `one-to-one`, an error after a race with another CPU's unload can leave the map
    /// unflushed.
    pub fn load(
        &mut self,
        channel: &mut Channel<'t>,
        handle: Handle,
        direction: Direction,
        segments: &mut [Segment],
        source: &mut dyn TableSource<'t>,
    ) -> Result<u32, LoadError> {
        match channel.load(handle, direction, segments) {
            Err(LoadError::NeedsSpace) => {}
            done => return done,
        }
        let loaded = self.load_leased(channel, handle, direction, segments, source);
        if loaded.is_err() {
            channel.counted.refused += 1;
        }
        loaded
    }

    #[inline(never)]
    fn load_leased(
        &mut self,
        channel: &mut Channel<'t>,
        handle: Handle,
        direction: Direction,
        segments: &mut [Segment],
        source: &mut dyn TableSource<'t>,
    ) -> Result<u32, LoadError> {
        // What was flushed comes back first: the map's own last lease may be among it.
        self.reap(channel, source);
        let record = channel.find(handle).map_err(|_| LoadError::NoMap)?;
        let (kind, wish) = (record.kind, record.wish);
        let layout = Layout { first: 0, capacity: record.capacity(), boundary: record.boundary };
        let pages = layout.lay_out(&channel.ram, segments)?;
        if kind == Kind::PerSegment {
            return self.load_segments(channel, handle, direction, segments, source);
        }
        let pages = match self.strategy {
            DmamapStrategy::Magazine => Magazine::round_up(pages + 1),
            _ => pages + 1,
        };
        let (owner, wish) = (owner(handle), Wish { pages, ..wish });
        let pieces = match self.attach(channel, &wish, owner, source) {
            Err(_) if self.drain(channel) => self.attach(channel, &wish, owner, source)?,
            pieces => pieces?,
        };
        channel.counted.leased_by_load += 1;
        channel.load_into(handle, pieces, direction, segments)
    }

    /// Empties the channel's magazines into the space; false where they are empty.
    pub fn drain(&mut self, channel: &mut Channel<'t>) -> bool {
        let mut is_any = false;
        while let Some(pieces) = channel.magazine.pop_any() {
            // What magazines hold is shared with nobody.
            self.give_back(channel, pieces, NONE);
            is_any = true;
        }
        is_any
    }

    /// A lease for each segment, or the segment's own addresses.
    #[inline(never)]
    fn load_segments(
        &mut self,
        channel: &mut Channel<'t>,
        handle: Handle,
        direction: Direction,
        segments: &mut [Segment],
        source: &mut dyn TableSource<'t>,
    ) -> Result<u32, LoadError> {
        let record = channel.find(handle).map_err(|_| LoadError::NoMap)?;
        let (wish, boundary, owner) = (record.wish, record.boundary.max(record.wish.boundary), owner(handle));
        // Alone in its lease, a segment as long as a boundary allows begins at one.
        let wish_for = |pages: u32| {
            let align = if pages < boundary { wish.align } else { wish.align.max(boundary) };
            Wish { pages: pages + 1, align, boundary, ..wish }
        };
        let is_own = self.strategy == DmamapStrategy::OneToOne;
        let (mut first, mut last, mut all) = (NONE, NONE, 0);
        for segment in segments.iter_mut() {
            let pages = pages_of(segment);
            all += pages;
            let reach = segment.last.as_u64() / PAGE_SIZE + 1;
            let shared = if is_own && reach <= wish.limit.into() && boundary == 0 {
                self.share(channel, segment, direction, pages, source)
            } else {
                None
            };
            let pieces = match shared {
                Some(pieces) => {
                    segment.iova = Iova::identity(segment.ipa);
                    pieces
                }
                None => match self.attach(channel, &wish_for(pages), owner, source) {
                    Ok(pieces) => {
                        place(channel, pieces, segment);
                        channel.counted.leased_by_load += 1;
                        pieces
                    }
                    Err(error) => {
                        self.detach(channel, first, owner);
                        return Err(error.into());
                    }
                },
            };
            append(channel, &mut first, &mut last, pieces);
        }
        // Nothing is stored before all is had.
        let mut pieces = first;
        let mut is_whole = true;
        for segment in segments.iter_mut() {
            let is_shared = channel.pieces.get(pieces).is_some_and(|piece| piece.is_shared);
            let count = pages_of(segment);
            if !is_shared {
                channel.store(pieces, direction, core::slice::from_ref(segment));
            } else if !channel.join_all(pieces, count, direction, segment) {
                match self.attach(channel, &wish_for(count), owner, source) {
                    Ok(other) => {
                        place(channel, other, segment);
                        channel.store(other, direction, core::slice::from_ref(segment));
                        append(channel, &mut first, &mut last, other);
                    }
                    Err(_) => is_whole = false,
                }
            }
            pieces = channel.pieces.skip(pieces, count);
        }
        let record = channel.find_mut(handle).map_err(|_| LoadError::NoMap)?;
        let page = segments.first().map_or(0, |segment| segment.iova.as_u64() / PAGE_SIZE);
        record.pieces = first;
        record.set_first(page);
        record.set_loaded(&[], all);
        if !is_whole {
            channel.unload(handle).map_err(|_| LoadError::NoMap)?;
            return Err(LoadError::NoSpace);
        }
        Ok(all)
    }
}

impl Channel<'_> {
    /// A load from the channel's magazines, without the space.
    pub(crate) fn load_from_magazine(
        &mut self,
        handle: Handle,
        direction: Direction,
        segments: &mut [Segment],
    ) -> Result<u32, LoadError> {
        let record = self.find(handle).map_err(|_| LoadError::NoMap)?;
        let is_plain = Wish { pages: 0, ..record.wish } == Wish::pages(0) && record.boundary == 0;
        // What the map itself had is still attached: the space takes it off.
        if self.strategy != DmamapStrategy::Magazine || !is_plain || record.is_listed {
            return Err(LoadError::NeedsSpace);
        }
        let layout = Layout { first: 0, capacity: record.capacity(), boundary: 0 };
        let pages = layout.lay_out(&self.ram, segments)?;
        let pieces = self.magazine.pop(Magazine::round_up(pages + 1)).ok_or(LoadError::NeedsSpace)?;
        self.counted.from_magazine += 1;
        self.load_into(handle, pieces, direction, segments)
    }

    /// Keeps a lease for loads to come, if the strategy and the magazines' room allow.
    pub(crate) fn keep_in_magazine(&mut self, pieces: u32) -> bool {
        self.strategy == DmamapStrategy::Magazine && self.magazine.push(lease_pages(&self.pieces, pieces), pieces)
    }

    /// Takes flushed maps' leases into the magazines, as far as they have room: no lock is needed for it.
    pub fn settle(&mut self) {
        if self.strategy != DmamapStrategy::Magazine {
            return;
        }
        while let Some(record) = self.records.get(self.first as usize)
            && !record.is_gone()
            && self.batch.is_settled(record.stamp())
            && self.keep_in_magazine(record.pieces)
        {
            if let Some(at) = self.unlist()
                && let Some(record) = self.records.get_mut(at as usize)
            {
                record.pieces = NONE;
            }
        }
    }

    /// Loads segments that were laid out from 0 on into a lease of the map's own.
    fn load_into(
        &mut self,
        handle: Handle,
        pieces: u32,
        direction: Direction,
        segments: &mut [Segment],
    ) -> Result<u32, LoadError> {
        let base = self.pieces.get(pieces).map_or(0, |piece| u64::from(piece.first) * PAGE_SIZE);
        let mut used = 0;
        for segment in &mut *segments {
            used = segment.last_iova() / PAGE_SIZE + 1;
            segment.iova = Iova::new(base + segment.iova.as_u64());
        }
        self.store(pieces, direction, segments);
        let record = self.find_mut(handle).map_err(|_| LoadError::NoMap)?;
        record.pieces = pieces;
        record.set_first(base / PAGE_SIZE);
        let used = u32::try_from(used).unwrap_or(u32::MAX);
        record.set_loaded(&[], used);
        Ok(used)
    }
}

/// A map as leases name it.
pub(crate) fn owner(handle: Handle) -> u32 {
    u32::from(handle.channel()) << 24 | handle.place()
}

fn pages_of(segment: &Segment) -> u32 {
    u32::try_from(segment.pages()).unwrap_or(u32::MAX)
}

fn place(channel: &Channel<'_>, pieces: u32, segment: &mut Segment) {
    let first = channel.pieces.get(pieces).map_or(0, |piece| piece.first);
    segment.iova = Iova::new(u64::from(first) * PAGE_SIZE + segment.ipa.as_u64() % PAGE_SIZE);
}

/// Hangs the chain `pieces` behind the chain from `first` to `last`.
fn append(channel: &mut Channel<'_>, first: &mut u32, last: &mut u32, pieces: u32) {
    match channel.pieces.get_mut(*last) {
        Some(piece) => piece.next = pieces,
        None => *first = pieces,
    }
    let mut at = pieces;
    while let Some(piece) = channel.pieces.get(at) {
        *last = at;
        at = piece.next;
    }
}
