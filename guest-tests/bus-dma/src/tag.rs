//! A tag: what a device can address.

use bulkhead_abi::{Constraints, NO_LIMIT, SEGMENTS_MAX};

/// Constraints of a device's DMA, as `bus_dma_tag_create` takes them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag(Constraints);

impl Tag {
    /// Maps of `max_size` bytes in at most `nsegments` segments, wherever the device's addresses are.
    pub const fn new(max_size: u64, nsegments: u64) -> Self {
        Self(Constraints { max_size, max_segments: nsegments, boundary: 0, align: 0, limit: NO_LIMIT })
    }

    /// Maps of one piece of `max_size` bytes.
    pub const fn single(max_size: u64) -> Self {
        Self::new(max_size, 1)
    }

    /// No segment crosses a multiple of `boundary` bytes, a power of two of at least a page.
    #[must_use]
    pub const fn boundary(self, boundary: u64) -> Self {
        Self(Constraints { boundary, ..self.0 })
    }

    /// The lease starts at a multiple of `alignment` bytes, a power of two.
    #[must_use]
    pub const fn alignment(self, alignment: u64) -> Self {
        Self(Constraints { align: alignment, ..self.0 })
    }

    /// The device puts out no address above `limit`.
    #[must_use]
    pub const fn limit(self, limit: u64) -> Self {
        Self(Constraints { limit, ..self.0 })
    }

    /// The device puts out 32 address bits.
    #[must_use]
    pub const fn bits32(self) -> Self {
        self.limit(0xffff_ffff)
    }

    /// Most segments that any tag can have.
    pub const NSEGMENTS_MAX: u64 = SEGMENTS_MAX;

    /// What it asks for.
    pub const fn constraints(&self) -> &Constraints {
        &self.0
    }
}
