//! Maps: constraints, segments, directions, states.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Segments of a map at most.
pub const SEGMENTS_MAX: u64 = 64;
/// A `limit` that is none.
pub const NO_LIMIT: u64 = u64::MAX;

/// Arguments of CREATE, x2 to x6: what `bus_dmamap_create` and a DMA tag ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Constraints {
    /// Bytes of all segments together, at least 1. The lease has room for as many pages, and one for each segment: a load
    /// that needs no more is accepted.
    pub max_size: u64,
    /// Segments at most, 1 to [`SEGMENTS_MAX`].
    pub max_segments: u64,
    /// No loaded segment crosses a multiple of this power of two in IOVA; 0 for no such boundary.
    pub boundary: u64,
    /// The lease's first IOVA is a multiple of this power of two; 0 and 1 are the same, pages are always aligned.
    ///
    /// With 2 MiB or more, and a `max_size` of at least as much, the map may be made of blocks: it then takes segments of
    /// whole blocks alone, `ipa` and `bytes` multiples of 2 MiB; others are [`Error::Invalid`](crate::Error::Invalid).
    /// The strategy `reserve` does so, unless a multiple of `boundary` could lie inside.
    pub align: u64,
    /// Highest IOVA, in bytes and inclusive, that the device can put out: `ffff_ffff` for 32 bits, [`NO_LIMIT`] for any.
    pub limit: u64,
}

/// A piece of memory to load. 24 bytes, aligned to 8.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Segment {
    /// Bytes 0 to 7, in: IPA of the first byte; any offset in a page.
    pub ipa: u64,
    /// Bytes 8 to 15, in: length in bytes, at least 1.
    pub bytes: u64,
    /// Bytes 16 to 23, out: IOVA of the first byte, with the same offset in the page. The hypervisor does not read it.
    pub iova: u64,
}

/// Who reads and who writes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Direction {
    /// The device reads memory.
    DeviceReads = 1,
    /// The device writes memory.
    DeviceWrites = 2,
    /// The device does both.
    Both = 3,
}

impl Direction {
    /// The direction with this number.
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::DeviceReads),
            2 => Some(Self::DeviceWrites),
            3 => Some(Self::Both),
            _ => None,
        }
    }

    /// The number.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

bitflags! {
    /// Operations of SYNC, one or several, with the numbers and from the point of view of bus_dma(9): read is what
    /// the device writes to memory.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct SyncOp: u64 {
        /// Before the device writes memory.
        const PREREAD = 1 << 0;
        /// After the device has written memory.
        const POSTREAD = 1 << 1;
        /// Before the device reads memory.
        const PREWRITE = 1 << 2;
        /// After the device has read memory.
        const POSTWRITE = 1 << 3;
    }
}

/// State of a map, as QUERY returns it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u64)]
pub enum MapState {
    /// Nothing is loaded.
    Created = 0,
    /// Devices reach its segments.
    Loaded = 1,
    /// Unloaded; the flush is under way or was never confirmed.
    Unflushed = 2,
}

impl MapState {
    /// The state with this number.
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Created),
            1 => Some(Self::Loaded),
            2 => Some(Self::Unflushed),
            _ => None,
        }
    }

    /// The number.
    pub const fn number(self) -> u64 {
        self as u64
    }
}
