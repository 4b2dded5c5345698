//! What a map is made for, and what is loaded into it.

use bulkhead_core::{
    addr::{BLOCK_2M, Iova, Ipa, PAGE_SIZE},
    stage2::Access,
};

use crate::iova::{PAGES_MAX, Wish};

use super::error::CreateError;

/// What a device does with loaded pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Direction {
    /// It reads them: out of memory, to the device.
    DeviceReads,
    /// It writes them.
    DeviceWrites,
    /// Both.
    Both,
}

impl Direction {
    pub(super) const ALL: [Self; 3] = [Self::DeviceReads, Self::DeviceWrites, Self::Both];

    /// The rights that a device gets.
    pub const fn access(self) -> Access {
        match self {
            Self::DeviceReads => Access::READ,
            Self::DeviceWrites => Access::WRITE,
            Self::Both => Access::READ.union(Access::WRITE),
        }
    }
}

/// A part of a buffer: contiguous in the guest's eyes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    pub(crate) ipa: Ipa,
    /// Its last byte. A segment that has none, or wraps, ends with the address space: no RAM holds it.
    pub(crate) last: Ipa,
    /// Where the device finds it: filled in by a load that succeeds.
    pub iova: Iova,
}

impl Segment {
    /// A segment that is not loaded.
    #[inline]
    pub const fn new(ipa: Ipa, bytes: u64) -> Self {
        // One carry for both: a segment of no bytes would end before it begins.
        let (last, is_none) = ipa.as_u64().overflowing_add(bytes.wrapping_sub(1));
        Self { ipa, last: Ipa::new(if is_none { u64::MAX } else { last }), iova: Iova::new(0) }
    }

    /// Whether it is empty, or reaches past the last address but one: no load takes it.
    pub const fn is_malformed(&self) -> bool {
        self.last.as_u64() == u64::MAX
    }

    /// Its first byte.
    pub const fn ipa(&self) -> Ipa {
        self.ipa
    }

    /// Its length in bytes, where it is not malformed.
    pub const fn bytes(&self) -> u64 {
        self.last.as_u64().wrapping_sub(self.ipa.as_u64()).wrapping_add(1)
    }

    /// Pages that it touches.
    #[inline]
    pub(crate) const fn pages(&self) -> u64 {
        (self.last.as_u64() / PAGE_SIZE).wrapping_sub(self.ipa.as_u64() / PAGE_SIZE).wrapping_add(1)
    }

    /// The last byte's IOVA, once it is loaded.
    pub(crate) const fn last_iova(&self) -> u64 {
        self.iova.as_u64().wrapping_add(self.last.as_u64().wrapping_sub(self.ipa.as_u64()))
    }
}

/// What bus_dmamap_create(9) is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapParams {
    /// Most bytes of a load.
    pub max_size: u64,
    /// Most segments of a load.
    pub max_segments: u32,
    /// The lease starts at a multiple of this power of two, in bytes. With 2 MiB and a size of at least as much, the
    /// map is made of blocks, unless a boundary could lie inside: it takes segments of whole, aligned blocks of 2 MiB
    /// alone, each with one store.
    pub align: u64,
    /// No segment crosses a multiple of this power of two, in bytes, of at least a page; 0: any may.
    pub boundary: u64,
    /// Last address that the device can put out.
    pub limit: u64,
}

/// What the parameters come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    /// Pages that can be loaded.
    pub capacity: u32,
    /// The lease: those, and the guard page.
    pub wish: Wish,
    /// Whether it is made of blocks of 2 MiB.
    pub is_blocks: bool,
    /// Pages between two boundaries that loads have to look at; 0: none.
    pub boundary: u32,
}

impl MapParams {
    /// A map for `max_size` bytes in `max_segments` segments, for a device of 64 address bits.
    pub const fn new(max_size: u64, max_segments: u32) -> Self {
        Self { max_size, max_segments, align: 1, boundary: 0, limit: u64::MAX }
    }

    #[inline]
    pub(super) fn plan(&self, has_blocks: bool) -> Result<Plan, CreateError> {
        let Self { max_size, max_segments, align, boundary, limit } = *self;
        let pages = max_size.div_ceil(PAGE_SIZE);
        let is_sound = pages != 0
            && pages <= PAGES_MAX.into()
            && (1..=PAGES_MAX).contains(&max_segments)
            && align.is_power_of_two()
            && (boundary == 0 || (boundary.is_power_of_two() && boundary >= PAGE_SIZE));
        if !is_sound {
            return Err(CreateError::BadParams { max_size, max_segments });
        }
        let boundary_pages = boundary / PAGE_SIZE;
        let block_pages = pages.next_multiple_of(512);
        // Loads of blocks look at no boundary: none may lie inside.
        let is_whole = boundary_pages == 0 || block_pages < boundary_pages;
        let is_blocks = has_blocks && align >= BLOCK_2M && max_size >= BLOCK_2M && is_whole;
        // A segment can begin and end within a page, so that each can take a page more than its bytes.
        let mut capacity = if is_blocks { block_pages } else { pages + u64::from(max_segments) };
        let mut align_pages = (align / PAGE_SIZE).max(1);
        let is_short = boundary_pages == 0 || capacity < boundary_pages;
        if !is_short {
            // A segment that would cross a boundary begins after it: at worst as many pages are left out as are used.
            capacity *= 2;
            align_pages = align_pages.max(boundary_pages);
        }
        let too_long = CreateError::BadParams { max_size, max_segments };
        let small = |pages: u64| u32::try_from(pages).ok().filter(|pages| *pages < PAGES_MAX).ok_or(too_long);
        let end = limit.checked_add(1).map_or(u64::MAX, |end| end / PAGE_SIZE);
        let wish = Wish {
            pages: small(capacity + 1)?,
            align: u32::try_from(align_pages).map_err(|_| too_long)?,
            boundary: if is_short { u32::try_from(boundary_pages).unwrap_or(0) } else { 0 },
            limit: u32::try_from(end).unwrap_or(u32::MAX),
        };
        let boundary = if is_short { 0 } else { small(boundary_pages)? };
        Ok(Plan { capacity: small(capacity)?, wish, is_blocks, boundary })
    }
}
