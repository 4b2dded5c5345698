//! Errors by name, and what comes back with them.

use bulkhead_abi as abi;
use thiserror::Error;

/// Why something failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Error {
    /// The hypervisor says so.
    #[error(transparent)]
    Call(#[from] abi::Error),
    /// The hypervisor returned a number that this version does not know.
    #[error("hypervisor's answer {0:#x} has no name here")]
    Unknown(u64),
    /// Another hypervisor, or none with DMA maps, answers.
    #[error("the hypervisor has no DMA maps for this VM")]
    NoBus,
    /// Its calls are of another major version.
    #[error("hypervisor has version {0:#x} of the calls, this program {own:#x}", own = abi::VERSION)]
    Version(u64),
    /// A device would write to memory that is borrowed to be read.
    #[error("device would write to memory that is not writable")]
    ReadOnly,
    /// More segments than fit, or none.
    #[error("{0} segments: it takes 1 to {1}")]
    Segments(usize, usize),
    /// The memory for the ring or the segment array has another size or alignment.
    #[error("memory of {0} bytes at {1:#x} for a ring or an array")]
    Memory(usize, u64),
    /// The ring has no free entry: run it, and take what is done.
    #[error("ring is full")]
    Full,
    /// The map belongs to another channel than the ring.
    #[error("map of channel {0} on the ring of channel {1}")]
    Channel(u8, u8),
}

impl Error {
    /// Reads x0.
    pub(crate) fn check(x0: u64) -> Result<(), Self> {
        abi::Error::from_register(x0).map_err(|error| error.map_or(Self::Unknown(x0), Self::Call))
    }

    /// Reads an entry's status.
    pub(crate) fn check_status(status: i32) -> Result<(), Self> {
        Self::check(i64::from(status).cast_unsigned())
    }
}

/// What was refused, unchanged, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{error}")]
pub struct Refused<T> {
    /// Why.
    #[source]
    pub error: Error,
    /// What the caller gave.
    pub given: T,
}

impl<T> Refused<T> {
    pub(crate) fn new(error: Error, given: T) -> Self {
        Self { error, given }
    }
}
