//! What stands behind the calls: a VM's IOVA space and its channels.

use core::sync::atomic::AtomicU64;

use super::{Entries, Ring};
use bulkhead_abi::{Constraints, Counter, Direction, Error, Flags, Handle, MapState, Segment, SyncOp, Window};

/// A VM's DMA maps.
pub trait Backend {
    /// A channel that this CPU alone works on; dropping it lets it go.
    type Channel<'a>: Channel
    where
        Self: 'a;

    /// Claims a channel below [`CHANNELS`](bulkhead_abi::CHANNELS), without waiting.
    ///
    /// # Errors
    /// [`Error::Busy`] while another CPU has it.
    fn claim(&self, channel: u8) -> Result<Self::Channel<'_>, Error>;

    /// How it is done.
    fn flags(&self) -> Flags;

    /// Maps that the VM may have.
    fn maps_max(&self) -> u64;

    /// Where leases can lie.
    fn window(&self) -> Window;

    /// A counter's value now.
    fn counter(&self, counter: Counter) -> u64;
}

/// What CREATE gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// The map.
    pub handle: Handle,
    /// First IOVA of its lease.
    pub base: u64,
    /// Bytes of its lease, guard page included.
    pub bytes: u64,
}

/// What a load gives, beside each segment's IOVA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// Pages that are mapped.
    pub pages: u64,
}

/// What QUERY says of a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapInfo {
    /// Its state.
    pub state: MapState,
    /// First IOVA of its lease.
    pub base: u64,
    /// Pages that are mapped.
    pub pages: u64,
}

/// One channel, claimed. On an error of any of these nothing has changed, unless the error is [`Error::Quarantined`].
///
/// Each checks the handle: its place, its generation, and that its map belongs to this channel ([`Error::NoMap`]).
pub trait Channel {
    /// The channel's ring; empty from the VM's start on.
    fn ring(&mut self) -> &mut Option<Ring>;

    /// Leases space for a map and sets its tables aside. The numbers are in range already: sizes and counts are not
    /// 0, at most the window and [`SEGMENTS_MAX`](bulkhead_abi::SEGMENTS_MAX); `align` is a power of two, `boundary` 0 or a
    /// power of two of at least a page.
    ///
    /// # Errors
    /// [`Error::TooManyMaps`], [`Error::NoSpace`], [`Error::NoTables`].
    fn create(&mut self, constraints: &Constraints) -> Result<Lease, Error>;

    /// Loads 1 to [`SEGMENTS_MAX`](bulkhead_abi::SEGMENTS_MAX) segments, any values in them, and fills in each `iova`.
    ///
    /// # Errors
    /// [`Error::NoMap`], [`Error::Loaded`], [`Error::Unflushed`], [`Error::TooManySegments`], [`Error::BadSegment`],
    /// [`Error::NotRam`], [`Error::TooLong`].
    fn load(&mut self, map: Handle, direction: Direction, segments: &mut [Segment]) -> Result<Loaded, Error>;

    /// Takes the pages away; [`Self::finish`] makes it certain. No error, and nothing to do, when nothing is loaded.
    ///
    /// # Errors
    /// [`Error::NoMap`].
    fn unload(&mut self, map: Handle) -> Result<(), Error>;

    /// Does the entries of a run, all but their flush. What this way does, another one may do faster.
    fn entries(&mut self, entries: &mut Entries<'_, AtomicU64>)
    where
        Self: Sized,
    {
        while entries.step(self) {}
    }

    /// Ends a batch: the stores of its loads are visible to the devices, and (one SYNC) those of its unloads are in
    /// force.
    ///
    /// # Errors
    /// [`Error::Quarantined`]: what was unloaded since the last call stays unflushed for good.
    fn finish(&mut self) -> Result<(), Error>;

    /// Unloads a map if it is loaded, flushes, and gives its lease back.
    ///
    /// # Errors
    /// [`Error::NoMap`], [`Error::Quarantined`].
    fn destroy(&mut self, map: Handle) -> Result<(), Error>;

    /// Cache maintenance or copies for `bytes` from `offset` on of what is loaded, where DMA needs it. The range's
    /// end is below 2^64.
    ///
    /// # Errors
    /// [`Error::NoMap`], [`Error::NotLoaded`], [`Error::TooLong`] for a range that is not all loaded.
    fn sync(&mut self, map: Handle, op: SyncOp, offset: u64, bytes: u64) -> Result<(), Error>;

    /// State of a map.
    ///
    /// # Errors
    /// [`Error::NoMap`].
    fn query(&mut self, map: Handle) -> Result<MapInfo, Error>;
}
