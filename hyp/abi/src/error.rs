//! Errors by number: what x0 and a ring entry's status carry.

use thiserror::Error;

macro_rules! errors {
    ($($(#[doc = $doc:literal])+ #[error($text:literal)] $name:ident = $number:literal,)+) => {
        /// Why a call or a ring entry failed. Nothing has changed unless the error says so.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
        #[repr(i8)]
        pub enum Error {
            $($(#[doc = $doc])+ #[error($text)] $name = $number,)+
        }

        impl Error {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The error with this number.
            pub const fn from_number(number: i32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)+
                    _ => None,
                }
            }
        }
    };
}

errors! {
    /// No such function, or none for this VM: it has no device with `dma = "dmamap"` (DEN 0028: -1).
    #[error("no such function")]
    NotSupported = -1,
    /// An argument has no meaning: an unknown direction, a constraint that is no power of two, a reserved bit set; or a
    /// segment is no whole blocks, in a map that is made of blocks.
    #[error("invalid argument")]
    Invalid = -3,
    /// The channel's number is too high.
    #[error("no such channel")]
    NoChannel = -16,
    /// Another vCPU works on the channel, or the hypervisor on its CPU, where flushes are deferred; try again.
    #[error("channel is busy")]
    Busy = -17,
    /// No live map of this VM has this handle, or it belongs to another channel than the ring.
    #[error("no such map")]
    NoMap = -18,
    /// The VM has as many maps as its manifest allows, or as many pieces of maps: a map has one for each table it lies in.
    #[error("too many maps")]
    TooManyMaps = -19,
    /// No free IOVA range fulfils the constraints.
    #[error("no IOVA space left")]
    NoSpace = -20,
    /// The VM's quota of table pages, or the pool behind it, is used up.
    #[error("no table pages left")]
    NoTables = -21,
    /// The map is loaded: unload it first.
    #[error("map is loaded")]
    Loaded = -22,
    /// The map is not loaded.
    #[error("map is not loaded")]
    NotLoaded = -23,
    /// The map was unloaded in the same run and its flush is still to come: load it in the next.
    #[error("map is not flushed yet")]
    Unflushed = -24,
    /// The segments take more pages than the map's lease has for them, or cannot lie in it without crossing a boundary; or
    /// the range of a SYNC leaves what is loaded.
    #[error("longer than the map")]
    TooLong = -25,
    /// More segments than the map's `max_segments`, or than a ring entry holds.
    #[error("too many segments")]
    TooManySegments = -26,
    /// A segment is empty, or its end is past 2^64.
    #[error("segment is empty or wraps")]
    BadSegment = -27,
    /// A segment is not within the VM's own RAM.
    #[error("segment is not in the VM's RAM")]
    NotRam = -28,
    /// The segment array or the ring is not within the VM's own RAM, not aligned, or crosses a multiple of
    /// [`BLOCK_BYTES`](crate::BLOCK_BYTES).
    #[error("array or ring is not in the VM's RAM, not aligned, or crosses a block of 2 MiB")]
    BadAddress = -29,
    /// The channel has no ring.
    #[error("channel has no ring")]
    NoRing = -30,
    /// The ring's header is no header of this version, or its producer is more than the ring's entries ahead.
    #[error("ring is damaged")]
    BadRing = -31,
    /// The IOMMU did not confirm a flush in time. The stream is in quarantine; what was unloaded stays unusable.
    #[error("flush was not confirmed: stream is in quarantine")]
    Quarantined = -32,
}

impl Error {
    /// The number, negative.
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// What x0 carries: the number, sign-extended.
    pub const fn register(self) -> u64 {
        (self.number() as i64).cast_unsigned()
    }

    /// What x0 says: success, an error, or (the inner `None`) an error of a later version.
    pub fn from_register(x0: u64) -> Result<(), Option<Self>> {
        match x0.cast_signed() {
            0 => Ok(()),
            number => Err(i32::try_from(number).ok().and_then(Self::from_number)),
        }
    }
}
