//! How the device reaches this program's memory: what a driver asks for, in bus_dma(9)'s words.

pub mod identity;
pub mod maps;

/// Most parts of one packet.
pub const SEGMENTS_MAX: usize = 3;

/// A part of a packet in this program's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins.
    pub address: u64,
    /// How long it is.
    pub bytes: u64,
}

impl Segment {
    /// The memory of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self { address: bytes.as_ptr().expose_provenance() as u64, bytes: bytes.len() as u64 }
    }
}

/// What the device does with the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It reads: a packet goes out.
    DeviceReads,
    /// It writes: a packet comes in.
    DeviceWrites,
    /// It does both: a ring's indices.
    Both,
}

/// What has been asked for so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Maps loaded.
    pub loads: u64,
    /// Maps unloaded.
    pub unloads: u64,
    /// Calls to the hypervisor for either.
    pub hypercalls: u64,
    /// What these took, in nanoseconds of the virtual counter.
    pub hypercalls_ns: u64,
    /// What as many calls that do nothing would have taken: the way there and back.
    pub null_calls_ns: u64,
}

/// A way to give a device access to memory, and to take it back.
///
/// Loads and unloads are gathered: they have happened when [`Dma::run`] returns, all of them with one call if the way
/// needs any.
pub trait Dma {
    /// A map: made once, then loaded and unloaded for each use.
    type Map;

    /// Makes a map for at most `bytes` bytes in at most `segments` parts.
    fn create(&mut self, bytes: u64, segments: usize) -> Self::Map;

    /// Asks for access to `segments`.
    fn load(&mut self, map: &mut Self::Map, segments: &[Segment], direction: Direction);

    /// Asks for the end of the access.
    fn unload(&mut self, map: &mut Self::Map);

    /// Does what was asked for.
    fn run(&mut self);

    /// Where the device finds each segment of a loaded map.
    fn iovas(&self, map: &Self::Map) -> [u64; SEGMENTS_MAX];

    /// What has been done so far.
    fn counts(&self) -> Counts;
}
