//! Load: leaves are stored, nothing else happens. Everything is checked before the first store.
//!
//! The everyday loads have ways of their own, which the compiler keeps in registers: one segment of any length, and
//! three segments that lie in one page each, as the fragments of packets do.

use bulkhead_core::addr::{Iova, PAGE_SIZE};

use super::{
    Channel, Direction, Handle, LoadError, Record, Segment, blocks::run_of_blocks, channel::Ram, handle::LOADED,
    piece::fill, record::Kind,
};
use crate::tree::Entry;

const OFFSET: u64 = PAGE_SIZE - 1;

impl Channel<'_> {
    /// Loads `segments` one after the other into a created map, fills in where a device finds each, and tells how many
    /// pages are mapped. On error nothing has changed, but for the segments' `iova`.
    pub fn load(&mut self, handle: Handle, direction: Direction, segments: &mut [Segment]) -> Result<u32, LoadError> {
        if let Some(record) = self.records.get_mut(handle.index())
            && (record.word == handle.0) & self.batch.is_settled(record.stamp)
        {
            let descriptor = self.ram.page[direction as usize];
            let (singles, first) = (record.singles, record.first);
            let used = match segments {
                [segment] => run(&self.ram, record.run, first, descriptor, segment),
                [_, _, _] => each::<3>(&self.ram, singles, first, descriptor, segments),
                _ => None,
            };
            if let Some(used) = used {
                record.word = handle.0 | LOADED;
                (record.used, record.pages) = (used, used);
                return Ok(used);
            }
        }
        self.load_other(handle, direction, segments)
    }

    /// The less frequent ways, apart, so that the others keep nothing for them.
    #[inline(never)]
    fn load_other(&mut self, handle: Handle, direction: Direction, segments: &mut [Segment]) -> Result<u32, LoadError> {
        if let Some(record) = self.records.get_mut(handle.index())
            && (record.word == handle.0) & self.batch.is_settled(record.stamp)
        {
            let descriptor = self.ram.page[direction as usize];
            let (singles, first) = (record.singles, record.first);
            let used = match &mut *segments {
                [segment] => run_of_blocks(&self.ram, record, direction, segment),
                [_, _] => each::<2>(&self.ram, singles, first, descriptor, segments),
                [_, _, _, _] => each::<4>(&self.ram, singles, first, descriptor, segments),
                _ => None,
            };
            if let Some(used) = used {
                record.set_loaded(used);
                return Ok(used);
            }
        }
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
        if !self.batch.is_settled(record.stamp) {
            return Err(LoadError::Unflushed);
        }
        check_count(record, segments)?;
        let used = match record.kind {
            Kind::Pages | Kind::Sampled => {
                let layout = Layout { first: record.first, capacity: record.capacity, boundary: record.boundary };
                let used = layout.lay_out(&self.ram, segments)?;
                match record.run.get(..used as usize) {
                    _ if record.kind == Kind::Sampled => self.store_sampled(record.pieces, direction, segments),
                    Some(slots) => self.store_run(slots, record.first, direction, segments),
                    None => self.store(record.pieces, direction, segments),
                }
                used
            }
            Kind::Blocks => self.load_blocks(record, direction, segments)?,
            Kind::PerLoad => return self.load_from_magazine(handle, direction, segments),
            Kind::PerSegment => return Err(LoadError::NeedsSpace),
        };
        let record = self.find_mut(handle).map_err(|_| LoadError::NoMap)?;
        record.set_loaded(used);
        Ok(used)
    }

    /// Stores the leaves of segments that were laid out without gaps, all in one table.
    fn store_run(&self, mut slots: &[Entry], first: u64, direction: Direction, segments: &[Segment]) {
        let mut page = first;
        for segment in segments {
            let end = (segment.iova.as_u64() + segment.bytes).div_ceil(PAGE_SIZE);
            let pages = usize::try_from(end - page).unwrap_or(usize::MAX);
            let Some((here, rest)) = slots.split_at_checked(pages) else { return };
            fill(here, self.descriptor(direction, segment), PAGE_SIZE);
            (slots, page) = (rest, end);
        }
    }

    /// Stores the leaves of segments that were laid out into the chain of pieces from `pieces` on.
    pub(crate) fn store(&self, pieces: u32, direction: Direction, segments: &[Segment]) {
        self.store_without(0, pieces, direction, segments);
    }

    /// The same, with the bits of `cleared` clear in each leaf.
    pub(super) fn store_without(&self, cleared: u64, pieces: u32, direction: Direction, segments: &[Segment]) {
        let Some(base) = self.pieces.get(pieces).map(|piece| u64::from(piece.first) * PAGE_SIZE) else { return };
        let mut entries = self.pieces.entries(pieces);
        let mut at = base;
        for segment in segments {
            let mut descriptor = self.descriptor(direction, segment) & !cleared;
            let first = segment.iova.as_u64() & !OFFSET;
            let end = segment.iova.as_u64() + segment.bytes;
            let gap = usize::try_from((first - at) / PAGE_SIZE).unwrap_or(usize::MAX);
            at = first;
            let mut entry = entries.nth(gap);
            while let Some(slot) = entry {
                slot.store(descriptor);
                descriptor = descriptor.wrapping_add(PAGE_SIZE);
                at += PAGE_SIZE;
                if at >= end {
                    break;
                }
                entry = entries.next();
            }
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

/// One segment, in the lease's first table.
#[inline]
fn run(ram: &Ram, slots: &[Entry], first: u64, descriptor: u64, segment: &mut Segment) -> Option<u32> {
    let offset = ram.offset(segment.ipa, segment.bytes)?;
    let within = offset & OFFSET;
    // Within the RAM, so that nothing wraps.
    let pages = within.wrapping_add(segment.bytes).wrapping_add(OFFSET) / PAGE_SIZE;
    let slots = slots.get(..usize::try_from(pages).ok()?)?;
    segment.iova = Iova::new(first << PAGE_SIZE.trailing_zeros() | within);
    fill(slots, descriptor.wrapping_add(offset & !OFFSET), PAGE_SIZE);
    // At most a table of them: the mask says so to the compiler, too.
    u32::try_from(pages & 0x3ff).ok()
}

/// Segments of a page each.
#[inline]
fn each<const N: usize>(
    ram: &Ram,
    slots: &[Entry],
    first: u64,
    descriptor: u64,
    segments: &mut [Segment],
) -> Option<u32> {
    let slots: &[Entry; N] = slots.first_chunk()?;
    let segments: &mut [Segment; N] = segments.first_chunk_mut()?;
    // All are looked at before the first branch. The RAM consists of whole pages: what begins in it, and ends in the
    // same page, is in it.
    let mut offsets = [0; N];
    let mut is_sound = true;
    for at in 0..N {
        let Segment { ipa, bytes, .. } = segments[at];
        offsets[at] = ipa.as_u64().wrapping_sub(ram.start);
        is_sound &= (offsets[at] < ram.size) & (bytes.wrapping_sub(1) <= !ipa.as_u64() & OFFSET);
    }
    if !is_sound {
        return None;
    }
    let mut page = first << PAGE_SIZE.trailing_zeros();
    for at in 0..N {
        let within = offsets[at] & OFFSET;
        slots[at].store(descriptor.wrapping_add(offsets[at] - within));
        segments[at].iova = Iova::new(page | within);
        page = page.wrapping_add(PAGE_SIZE);
    }
    u32::try_from(N).ok()
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
            let offset = ram.offset(segment.ipa, segment.bytes).ok_or(match segment.bytes {
                0 => LoadError::Empty(number),
                _ => LoadError::NotRam(number),
            })?;
            let within = offset & OFFSET;
            let pages = (within + segment.bytes).div_ceil(PAGE_SIZE);
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
