//! Load: leaves are stored, nothing else happens. Everything is checked before the first store.
//!
//! The everyday loads have ways of their own, which the compiler keeps in registers: three segments that lie in one
//! page each, as the fragments of packets do, one segment of any length, one block.

use core::num::NonZeroU64;

use bulkhead_core::addr::{BLOCK_2M, Iova, Ipa, PAGE_SIZE};

use super::{
    Channel, Direction, Handle, LoadError, Record, Segment, channel::Ram, piece::fill, record::Kind,
    sample::ACCESS_FLAG,
};

const OFFSET: u64 = PAGE_SIZE - 1;

impl<'t> Channel<'t> {
    /// Loads `segments` one after the other into a created map, fills in where a device finds each, and tells how many
    /// pages are mapped. On error nothing has changed, but for the segments' `iova`.
    pub fn load(&mut self, handle: Handle, direction: Direction, segments: &mut [Segment]) -> Result<u32, LoadError> {
        if let Some(three) = segments.as_mut_array()
            && self.load_three(handle, direction, three)
        {
            return Ok(3);
        }
        // Not as the last call: its frame would be made for the everyday ways, too.
        self.load_slice(handle, direction, segments).map(|more| more.wrapping_add(1))
    }

    /// The less frequent numbers of segments. Tells how many pages are mapped beside the first.
    #[inline(never)]
    fn load_slice(&mut self, handle: Handle, direction: Direction, segments: &mut [Segment]) -> Result<u32, LoadError> {
        if let [only] = segments
            && let Ok(more) = u32::try_from(only.pages().wrapping_sub(1))
            && let Some(iova) = self.load_one(handle, direction, only.ipa, only.bytes())
        {
            only.iova = Iova::new(iova.get());
            return Ok(more);
        }
        self.load_other(handle, direction, segments).map(|pages| pages.wrapping_sub(1))
    }

    /// [`load`](Self::load) for one segment, of `bytes` bytes at `ipa`, as it is every day: one block, or pages in the
    /// part of the lease that lies in one table. Tells where a device finds it; `None`, and nothing has changed, where it
    /// takes the longer way, which knows the reason for an error too.
    pub fn load_one(&mut self, handle: Handle, direction: Direction, ipa: Ipa, bytes: u64) -> Option<NonZeroU64> {
        let record = self.records.get_mut(handle.index())?;
        let offset = ipa.as_u64().wrapping_sub(self.ram.start);
        // By this rotation, what is no multiple of 2 MiB is more than any number of blocks.
        let number = offset.rotate_right(BLOCK_2M.trailing_zeros());
        if (record.word == handle.0)
            & self.batch.is_settled(record.stamp())
            & (number < record.blocks.into())
            & (bytes == record.only.into())
        {
            record.block.store(self.ram.block[direction as usize].wrapping_add(offset));
            record.mark = handle.0;
            return NonZeroU64::new(record.base);
        }
        if (record.word ^ handle.0) | self.batch.unsettled(record.mark) != 0 {
            return None;
        }
        let last = bytes.wrapping_sub(1);
        if (offset < self.ram.size) & (last < self.ram.size.wrapping_sub(offset)) {
            let within = offset & OFFSET;
            let past = usize::try_from(within.wrapping_add(last) / PAGE_SIZE).ok()?;
            let slots = record.run.get(..=past)?;
            fill(slots, self.ram.page[direction as usize].wrapping_add(offset - within));
            (record.mark, record.loaded) = (handle.0, slots);
            return NonZeroU64::new(record.base | within);
        }
        None
    }

    /// Three segments of a page each; false, and nothing changed, for other segments, or in another state.
    #[inline(always)]
    fn load_three(&mut self, handle: Handle, direction: Direction, segments: &mut [Segment; 3]) -> bool {
        let Some(record) = self.records.get_mut(handle.index()) else { return false };
        if (record.word ^ handle.0) | self.batch.unsettled(record.mark) != 0 {
            return false;
        }
        let Some(slots) = record.triple else { return false };
        let ram = &self.ram;
        // All are looked at before the first store. The RAM consists of whole pages: what begins in it, and ends in the
        // same page, is in it.
        let [one, two, three] = segments.each_ref().map(|segment| segment.ipa.as_u64().wrapping_sub(ram.start));
        let across = segments.iter().fold(0, |all, segment| all | (segment.ipa.as_u64() ^ segment.last.as_u64()));
        let is_sound = across <= OFFSET && one < ram.size && two < ram.size && three < ram.size;
        if !is_sound {
            return false;
        }
        let descriptor = ram.page[direction as usize];
        let mut page = record.base;
        for ((slot, offset), segment) in slots.iter().zip([one, two, three]).zip(segments) {
            slot.store(descriptor.wrapping_add(offset & !OFFSET));
            segment.iova = Iova::new(page & !OFFSET | offset & OFFSET);
            page = page.wrapping_add(PAGE_SIZE);
        }
        (record.mark, record.loaded) = (handle.0, slots);
        true
    }

    /// The less frequent ways, and every error.
    #[cold]
    #[inline(never)]
    fn load_other(&mut self, handle: Handle, direction: Direction, segments: &mut [Segment]) -> Result<u32, LoadError> {
        let loaded = self.load_any(handle, direction, segments);
        if loaded.is_err_and(|error| error != LoadError::NeedsSpace) {
            self.counted.refused += 1;
        }
        loaded
    }

    /// Every load, and every error.
    fn load_any(&mut self, handle: Handle, direction: Direction, segments: &mut [Segment]) -> Result<u32, LoadError> {
        let record = self.find(handle).map_err(|_| LoadError::NoMap)?;
        if record.is_loaded() {
            return Err(LoadError::Loaded);
        }
        if !self.batch.is_settled(record.stamp()) {
            return Err(LoadError::Unflushed);
        }
        check_count(record, segments)?;
        let used = match record.kind {
            Kind::Pages | Kind::Sampled => {
                let first = self.base(record);
                let layout = Layout { first, capacity: record.capacity(), boundary: record.boundary };
                let used = layout.lay_out(&self.ram, segments)?;
                let cleared = if record.kind == Kind::Sampled { ACCESS_FLAG } else { 0 };
                self.store_without(cleared, record.pieces, direction, segments);
                used
            }
            Kind::Blocks => self.load_blocks(record, direction, segments)?,
            Kind::PerLoad => return self.load_from_magazine(handle, direction, segments),
            Kind::PerSegment => return Err(LoadError::NeedsSpace),
        };
        let base = self.base(record);
        let record = self.find_mut(handle).map_err(|_| LoadError::NoMap)?;
        let slots = if record.first() == base { record.run.get(..used as usize) } else { None };
        record.set_loaded(slots.unwrap_or_default(), used);
        Ok(record.pages())
    }

    /// Stores the leaves of segments that were laid out into the chain of pieces from `pieces` on.
    pub(crate) fn store(&self, pieces: u32, direction: Direction, segments: &[Segment]) {
        self.store_without(0, pieces, direction, segments);
    }

    /// The same, with the bits of `cleared` clear in each leaf.
    fn store_without(&self, cleared: u64, pieces: u32, direction: Direction, segments: &[Segment]) {
        let Some(mut page) = self.pieces.get(pieces).map(|piece| u64::from(piece.first)) else { return };
        let mut cursor = self.pieces.cursor(pieces);
        let count = |pages: u64| usize::try_from(pages).unwrap_or(usize::MAX);
        for segment in segments {
            let (first, pages) = (segment.iova.as_u64() / PAGE_SIZE, segment.pages());
            cursor.skip(count(first.wrapping_sub(page)));
            cursor.fill(count(pages), self.descriptor(direction, segment) & !cleared);
            page = first.wrapping_add(pages);
        }
    }

    /// The leaf descriptor of a segment's first page, which is in the RAM.
    pub(crate) const fn descriptor(&self, direction: Direction, segment: &Segment) -> u64 {
        let offset = segment.ipa.as_u64().wrapping_sub(self.ram.start);
        self.ram.page[direction as usize].wrapping_add(offset & !OFFSET)
    }
}

pub(super) fn check_count(record: &Record<'_>, segments: &[Segment]) -> Result<(), LoadError> {
    let count = u32::try_from(segments.len()).unwrap_or(u32::MAX);
    if count == 0 || count > record.max_segments { Err(LoadError::BadCount(count)) } else { Ok(()) }
}

/// Where segments can go.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    pub first: u64,
    pub capacity: u32,
    pub boundary: u32,
}

impl Layout {
    /// Gives each segment its IOVA; tells the pages up to the end of the last.
    pub fn lay_out(&self, ram: &Ram, segments: &mut [Segment]) -> Result<u32, LoadError> {
        let mut next = 0_u64;
        let boundary = u64::from(self.boundary);
        for (number, segment) in (0..).zip(segments) {
            let within = ram.offset(segment).ok_or(LoadError::NotRam(number))? & OFFSET;
            let pages = segment.pages();
            // Up to the next boundary, where there is one.
            if let Some(left) = (self.first + next).checked_rem(boundary).map(|past| boundary - past)
                && pages > left
            {
                next += left;
                if pages > boundary {
                    return Err(LoadError::TooLong(number));
                }
            }
            segment.iova = Iova::new((self.first + next) * PAGE_SIZE + within);
            next += pages;
            if next > self.capacity.into() {
                return Err(LoadError::TooLong(number));
            }
        }
        u32::try_from(next).map_err(|_| LoadError::TooLong(0))
    }
}
