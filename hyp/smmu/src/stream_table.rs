//! The stream table: where the entry of a stream lies, and its two levels (IHI 0070 3.3.1, 5.1).

use bulkhead_core::{
    addr::{PAGE_SIZE, PhysAddr},
    ids::StreamId,
};
use heapless::Vec;

use crate::{
    error::Error,
    features::Features,
    platform::Platform,
    registers::{STRTAB_BASE_ADDR, STRTAB_BASE_CFG},
    ste::STE_BYTES,
};

/// Streams of one level-2 table, as a base-2 logarithm: one PCI bus.
pub(crate) const SPLIT: u8 = 8;
/// Level-2 tables that the driver can hold.
pub const MAX_LEVEL2_TABLES: usize = 64;
/// Bytes of a level-1 descriptor.
const L1_BYTES: u64 = 8;
/// Bytes of a level-2 table.
const L2_BYTES: u64 = STE_BYTES << SPLIT;
/// Span of a level-1 descriptor whose table has 2^SPLIT entries (5.1: Span - 1 is the logarithm).
const L1_SPAN: u64 = SPLIT as u64 + 1;

/// A level-2 table that has been allocated.
#[derive(Clone, Copy)]
struct Level2 {
    index: u32,
    table: PhysAddr,
    /// The SMMU is known to have read its descriptor, or to read it next.
    is_found: bool,
}

/// The stream table of one SMMU. What it holds in memory is written, never read back.
pub(crate) struct StreamTable {
    base: PhysAddr,
    log2: u8,
    is_two_level: bool,
    level2: Vec<Level2, MAX_LEVEL2_TABLES>,
}

/// A place in the table.
pub(crate) struct Place {
    /// Address of the entry.
    pub(crate) entry: PhysAddr,
    /// Level-1 descriptor to write before the entry can be found: its address and its value.
    pub(crate) new_descriptor: Option<(PhysAddr, u64)>,
}

/// Allocates zeroed memory for the SMMU, checks what the allocator gave, and sees that the zeroes are in memory.
pub(crate) fn alloc<P: Platform>(
    platform: &mut P,
    features: &Features,
    what: &'static str,
    size_bytes: u64,
) -> Result<PhysAddr, Error> {
    // Aligned to the full size: the low bits of a base register are taken as zero, silently (6.3).
    let alignment = size_bytes.max(PAGE_SIZE).next_power_of_two();
    let pages = size_bytes.div_ceil(PAGE_SIZE);
    let at = platform.alloc(pages, alignment).ok_or(Error::NoMemory { what, pages, alignment })?;
    let oas_bits = features.oas_bits;
    let is_reachable = at.checked_add(pages * PAGE_SIZE - 1).is_some_and(|last| last.as_u64() >> oas_bits == 0);
    if !at.is_aligned(alignment) || !is_reachable {
        return Err(Error::BadMemory { what, at, alignment, oas_bits });
    }
    if !features.is_coherent {
        platform.clean(at, pages * PAGE_SIZE);
    }
    // The zeroes are in memory before anything can point at them, and before the SMMU writes there.
    platform.barrier();
    Ok(at)
}

impl StreamTable {
    /// A table for the streams 0 to `last_stream`, all of them invalid.
    pub(crate) fn new<P: Platform>(platform: &mut P, features: &Features, last_stream: u32) -> Result<Self, Error> {
        let log2 = log2_of_count(last_stream);
        if log2 > features.sid_bits {
            return Err(Error::StreamIdTooWide { last: last_stream, sid_bits: features.sid_bits });
        }
        // A table no longer than one level-2 table gains nothing from a second level.
        let is_two_level = features.has_two_level_table && log2 > SPLIT;
        let size_bytes = if is_two_level { L1_BYTES << (log2 - SPLIT) } else { STE_BYTES << log2 };
        let base = alloc(platform, features, "stream table", size_bytes)?;
        Ok(Self { base, log2, is_two_level, level2: Vec::new() })
    }

    /// Value of STRTAB_BASE, without the hint.
    pub(crate) fn base_register(&self) -> u64 {
        self.base.as_u64() & STRTAB_BASE_ADDR
    }

    /// Value of STRTAB_BASE_CFG.
    pub(crate) fn config_register(&self) -> u32 {
        let log2 = STRTAB_BASE_CFG::LOG2SIZE.val(self.log2.into());
        if self.is_two_level {
            (log2 + STRTAB_BASE_CFG::FMT::TwoLevel + STRTAB_BASE_CFG::SPLIT.val(SPLIT.into())).into()
        } else {
            (log2 + STRTAB_BASE_CFG::FMT::Linear).into()
        }
    }

    /// Highest stream that the table can hold.
    pub(crate) fn last_stream(&self) -> u32 {
        u32::try_from((1u64 << self.log2) - 1).unwrap_or(u32::MAX)
    }

    /// Whether `stream` has an entry in memory.
    pub(crate) fn find(&self, stream: StreamId) -> Option<PhysAddr> {
        if stream.0 > self.last_stream() {
            return None;
        }
        let (table, index) = if self.is_two_level {
            let table = self.level2.iter().find(|level2| level2.index == stream.0 >> SPLIT)?;
            (table.table, u64::from(stream.0) & ((1 << SPLIT) - 1))
        } else {
            (self.base, u64::from(stream.0))
        };
        table.checked_add(index * STE_BYTES)
    }

    /// The place of `stream`'s entry, in a new level-2 table where there is none yet. On error nothing has changed.
    pub(crate) fn find_or_add<P: Platform>(
        &mut self,
        platform: &mut P,
        features: &Features,
        stream: StreamId,
    ) -> Result<Place, Error> {
        let last = self.last_stream();
        if stream.0 > last {
            return Err(Error::StreamOutOfRange { stream, last });
        }
        let out_of_range = Error::StreamOutOfRange { stream, last };
        if let Some(entry) = self.find(stream) {
            return Ok(Place { entry, new_descriptor: self.unfound_descriptor(stream) });
        }
        let full = Error::Full { what: "level-2 stream table", capacity: MAX_LEVEL2_TABLES };
        if self.level2.is_full() {
            return Err(full);
        }
        let table = alloc(platform, features, "level-2 stream table", L2_BYTES)?;
        let index = stream.0 >> SPLIT;
        self.level2.push(Level2 { index, table, is_found: false }).map_err(|_| full)?;
        let entry = self.find(stream).ok_or(out_of_range)?;
        Ok(Place { entry, new_descriptor: self.unfound_descriptor(stream) })
    }

    /// The SMMU has forgotten the level-1 descriptor of `stream` after it was written.
    pub(crate) fn set_found(&mut self, stream: StreamId) {
        let index = stream.0 >> SPLIT;
        if let Some(level2) = self.level2.iter_mut().find(|level2| level2.index == index) {
            level2.is_found = true;
        }
    }

    /// Address and value of the level-1 descriptor of `stream`, unless the SMMU is known to have it.
    fn unfound_descriptor(&self, stream: StreamId) -> Option<(PhysAddr, u64)> {
        if !self.is_two_level {
            return None;
        }
        let index = stream.0 >> SPLIT;
        let level2 = self.level2.iter().find(|level2| level2.index == index && !level2.is_found)?;
        let descriptor = self.base.checked_add(u64::from(index) * L1_BYTES)?;
        Some((descriptor, level2.table.as_u64() | L1_SPAN))
    }
}

/// Bits that tell the numbers 0 to `last` apart.
fn log2_of_count(last: u32) -> u8 {
    u8::try_from(u32::BITS - last.leading_zeros()).unwrap_or(32)
}

#[cfg(test)]
mod tests;
