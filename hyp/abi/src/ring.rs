//! The ring: memory of the guest through which one call carries a batch of loads and unloads.
//!
//! A ring is page-aligned in the guest's RAM and crosses no multiple of [`BLOCK_BYTES`]: a [`Header`] of 256 bytes, then
//! 2^n entries of 128 bytes. Indices run freely through 2^32; the entry of index i has place i modulo 2^n. The guest
//! fills entries from its producer index on, stores the new producer (with release), and calls RING_RUN, which takes at
//! most [`RUN_MAX`] entries: does each by what one read of each of its words says, and after the ONE flush of the whole
//! run stores each entry's status, then the new consumer (with release). An entry that failed does not keep the next
//! from being done. The hypervisor never reads its own index back, and the producer once a run.
//!
//! All accesses of the hypervisor are of aligned words of 8 bytes, whole.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{BLOCK_BYTES, Segment};

/// The header's magic: "BHDMRING" in the order of bytes.
pub const MAGIC: u64 = u64::from_le_bytes(*b"BHDMRING");
/// Version of the layout.
pub const LAYOUT: u32 = 1;
/// Bytes of the header: where the first entry starts.
pub const HEADER_BYTES: u64 = 256;
/// Bytes of an entry.
pub const ENTRY_BYTES: u64 = 128;
/// Logarithm of the entries at most: 1,024 entries.
pub const LOG2_ENTRIES_MAX: u64 = 10;
/// Entries that one RING_RUN consumes at most: two full batches of packets. What they can make the hypervisor do is
/// bounded by the VM's maps, too, since one that a run has unloaded is not loaded again before the run's flush.
pub const RUN_MAX: u32 = 128;
/// Segments of an entry; a load of more takes a LOAD call.
pub const ENTRY_SEGMENTS: usize = 4;
/// Where `producer` is in the header, in bytes.
pub const PRODUCER_OFFSET: u64 = 64;
/// Where `consumer` is in the header, in bytes.
pub const CONSUMER_OFFSET: u64 = 128;
/// Where `status` is in an entry, in bytes.
pub const STATUS_OFFSET: u64 = 4;
/// Where `segments` is in an entry, in bytes.
pub const SEGMENTS_OFFSET: u64 = 32;
/// A status that the guest stores to tell an entry that is not done yet: no success, no error.
pub const PENDING: i32 = 1;

/// The first 256 bytes: each index has a cache line of its own. The guest writes it before RING_SETUP.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// Bytes 0 to 7, the guest's: [`MAGIC`].
    pub magic: u64,
    /// Bytes 8 to 11, the guest's: [`LAYOUT`].
    pub layout: u32,
    /// Bytes 12 to 63: zero.
    pub reserved: [u32; 13],
    /// Bytes 64 to 67, the guest's: index of the next entry that it will fill; 0 at RING_SETUP.
    pub producer: u32,
    /// Bytes 68 to 127: zero.
    pub producer_line: [u32; 15],
    /// Bytes 128 to 131, the hypervisor's: index of the next entry that it will take; RING_SETUP stores 0.
    pub consumer: u32,
    /// Bytes 132 to 255: zero; a store of the consumer stores the first four of them as well.
    pub consumer_line: [u32; 31],
}

impl Header {
    /// The header of a new ring.
    pub const NEW: Self = Self {
        magic: MAGIC,
        layout: LAYOUT,
        reserved: [0; 13],
        producer: 0,
        producer_line: [0; 15],
        consumer: 0,
        consumer_line: [0; 31],
    };
}

/// What an entry asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u16)]
pub enum Op {
    /// Nothing; its status becomes 0.
    Nop = 0,
    /// As LOAD, with the entry's own segments.
    Load = 1,
    /// As UNLOAD.
    Unload = 2,
}

impl Op {
    /// The operation with this number.
    pub const fn from_number(number: u16) -> Option<Self> {
        match number {
            0 => Some(Self::Nop),
            1 => Some(Self::Load),
            2 => Some(Self::Unload),
            _ => None,
        }
    }

    /// The number.
    pub const fn number(self) -> u16 {
        self as u16
    }
}

/// An entry: 128 bytes. Its first word is read as one and stored as one: with the status, bytes 0 to 3 become 0.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Entry {
    /// Bytes 0 and 1, in: number of an [`Op`].
    pub op: u16,
    /// Byte 2, in: number of a [`Direction`](crate::Direction) for a load, 0 otherwise.
    pub direction: u8,
    /// Byte 3, in: segments of a load, 1 to [`ENTRY_SEGMENTS`]; 0 otherwise.
    pub count: u8,
    /// Bytes 4 to 7, out: 0 or an [`Error`](crate::Error)'s number; stored when the run's flush is done.
    pub status: i32,
    /// Bytes 8 to 15, in: [`Handle`](crate::Handle) of a map of the ring's channel.
    pub handle: u64,
    /// Bytes 16 to 23: the guest's own, neither read nor written.
    pub cookie: u64,
    /// Bytes 24 to 31, in: zero.
    pub flags: u64,
    /// Bytes 32 to 127: the segments of a load; each `iova` is out, stored before the status.
    pub segments: [Segment; ENTRY_SEGMENTS],
}

/// Bytes of a ring of 2^`log2_entries` entries, header included; `None` for more than [`LOG2_ENTRIES_MAX`].
pub const fn ring_bytes(log2_entries: u64) -> Option<u64> {
    if log2_entries > LOG2_ENTRIES_MAX {
        return None;
    }
    Some(HEADER_BYTES + (ENTRY_BYTES << log2_entries))
}

const _: () = assert!(HEADER_BYTES + (ENTRY_BYTES << LOG2_ENTRIES_MAX) <= BLOCK_BYTES);

/// Where the entry of an index is from the ring's start, in bytes.
pub const fn entry_offset(index: u32, log2_entries: u64) -> u64 {
    HEADER_BYTES + (index as u64 & ((1 << log2_entries) - 1)) * ENTRY_BYTES
}
