//! What FEATURES returns: three registers for each page that its argument names.

use bitflags::bitflags;

/// Pages of FEATURES; another page is [`Error::Invalid`](crate::Error::Invalid).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Features {
    /// x1 = [`Flags`], x2 = bit n set for each function `c600_0000 + n`, x3 = channels.
    Functions = 0,
    /// x1 = maps that the VM may have, x2 = segments of a map, x3 = entries that one RING_RUN consumes at most.
    Limits = 1,
    /// x1 = lowest IOVA that a lease can have, x2 = one past the highest, x3 = page size in bytes.
    Window = 2,
}

impl Features {
    /// The page with this number.
    pub const fn from_page(page: u64) -> Option<Self> {
        match page {
            0 => Some(Self::Functions),
            1 => Some(Self::Limits),
            2 => Some(Self::Window),
            _ => None,
        }
    }
}

bitflags! {
    /// How the hypervisor does it.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Flags: u64 {
        /// Devices see the CPUs' caches: SYNC has nothing to do.
        const COHERENT = 1 << 0;
        /// Flushes are deferred, by the manifest's wish: an unloaded page stays reachable for a bounded time.
        const DEFERRED = 1 << 1;
    }
}

/// Page 1 of FEATURES.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Maps that the VM may have at once.
    pub maps: u64,
    /// `max_segments` of a map at most.
    pub segments: u64,
    /// Entries that one RING_RUN consumes at most.
    pub run: u64,
}

/// Page 2 of FEATURES.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Lowest IOVA.
    pub start: u64,
    /// One past the highest IOVA.
    pub end: u64,
    /// Page size in bytes.
    pub page: u64,
}
