//! Addresses of three spaces that never mix: physical, guest-physical, device.

use core::fmt;

/// Size of a page in bytes: the one granule that Bulkhead uses in every table.
pub const PAGE_SIZE: u64 = 4096;
/// Size of a level-2 block in bytes.
pub const BLOCK_2M: u64 = 2 << 20;
/// Size of a level-1 block in bytes.
pub const BLOCK_1G: u64 = 1 << 30;

/// What the address newtypes share: a 64-bit value in one address space.
pub trait Address: Copy + Ord + fmt::Debug {
    /// Wraps `value`, an address in bytes.
    fn from_u64(value: u64) -> Self;
    /// The address in bytes.
    fn as_u64(self) -> u64;
}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Wraps `value`, an address in bytes.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }
            /// The address in bytes.
            pub const fn as_u64(self) -> u64 {
                self.0
            }
            /// The address `bytes` further up, or `None` past 2^64.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }
            /// Bytes from `base` up to `self`, or `None` when `self` is below it.
            pub const fn checked_sub(self, base: Self) -> Option<u64> {
                self.0.checked_sub(base.0)
            }
            /// Whether the address is a multiple of `alignment`, a power of two in bytes.
            pub const fn is_aligned(self, alignment: u64) -> bool {
                self.0 & (alignment - 1) == 0
            }
            /// The nearest multiple of `alignment` (a power of two in bytes) at or below.
            #[must_use]
            pub const fn align_down(self, alignment: u64) -> Self {
                Self(self.0 & !(alignment - 1))
            }
            /// The nearest multiple of `alignment` (a power of two in bytes) at or above, or `None` past 2^64.
            #[must_use]
            pub const fn align_up(self, alignment: u64) -> Option<Self> {
                match self.0.checked_add(alignment - 1) {
                    Some(value) => Some(Self(value & !(alignment - 1))),
                    None => None,
                }
            }
        }

        impl Address for $name {
            fn from_u64(value: u64) -> Self {
                Self(value)
            }
            fn as_u64(self) -> u64 {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// A physical address of the machine, as the interconnect sees it.
    PhysAddr
}
address! {
    /// An intermediate physical address: what a guest takes for physical.
    Ipa
}
address! {
    /// An I/O virtual address: what a device puts on the bus, the SMMU's input.
    Iova
}

impl Iova {
    /// The IOVA that `dma = "identity"` gives to a guest-physical address: the same number.
    pub const fn identity(ipa: Ipa) -> Self {
        Self(ipa.0)
    }
}

/// A range of addresses, never empty, never past 2^64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddrRange<A> {
    start: A,
    size_bytes: u64,
}

impl<A: Address> AddrRange<A> {
    /// The range of `size_bytes` bytes from `start`; `None` when it is empty or its end is past 2^64.
    #[inline(always)]
    pub fn new(start: A, size_bytes: u64) -> Option<Self> {
        if size_bytes == 0 {
            return None;
        }
        start.as_u64().checked_add(size_bytes)?;
        Some(Self { start, size_bytes })
    }

    /// The range from `start` up to, and without, `end`; `None` when it is empty.
    pub fn between(start: A, end: A) -> Option<Self> {
        Self::new(start, end.as_u64().checked_sub(start.as_u64())?)
    }

    /// First address.
    pub fn start(self) -> A {
        self.start
    }

    /// One past the last address.
    #[inline(always)]
    pub fn end(self) -> A {
        A::from_u64(self.start.as_u64() + self.size_bytes)
    }

    /// Length in bytes, at least 1.
    pub fn size_bytes(self) -> u64 {
        self.size_bytes
    }

    /// Whether `address` lies inside.
    pub fn contains(self, address: A) -> bool {
        self.start <= address && address < self.end()
    }

    /// Whether all of `other` lies inside.
    pub fn contains_range(self, other: Self) -> bool {
        self.start <= other.start && other.end() <= self.end()
    }

    /// Whether the two share at least one address.
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }

    /// Whether start and size are multiples of `alignment`, a power of two in bytes.
    pub fn is_aligned(self, alignment: u64) -> bool {
        (self.start.as_u64() | self.size_bytes) & (alignment - 1) == 0
    }

    /// The smallest range on `alignment` boundaries that holds this one; `None` past 2^64.
    pub fn align_outward(self, alignment: u64) -> Option<Self> {
        let mask = alignment - 1;
        let end = self.end().as_u64().checked_add(mask)? & !mask;
        Self::between(A::from_u64(self.start.as_u64() & !mask), A::from_u64(end))
    }
}

impl<A: Address> fmt::Debug for AddrRange<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<A: Address> fmt::Display for AddrRange<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start.as_u64(), self.end().as_u64())
    }
}
