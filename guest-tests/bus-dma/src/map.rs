//! A map by its states: created, and loaded with what it holds.

use bulkhead_abi::{Direction, Handle, MapState, Segment, SyncOp, ring::ENTRY_SEGMENTS};

use crate::{Buffers, Bus, Error, Hypervisor, Refused, Tag};

/// A map with nothing loaded. Dropping it leaks it until the VM ends: [`Map::destroy`] gives it back.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "a map that is dropped stays leased"]
pub struct Map {
    pub(crate) handle: Handle,
    base: u64,
    bytes: u64,
}

/// A map that devices reach memory through; it owns the memory. Dropping it leaks both, which is safe.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "what is dropped while it is loaded stays loaded"]
pub struct Loaded<B> {
    pub(crate) map: Map,
    pub(crate) buffers: B,
    pub(crate) segments: [Segment; ENTRY_SEGMENTS],
    pub(crate) count: usize,
}

impl Map {
    /// `bus_dmamap_create`: a map for one channel, a queue of the driver, 0 to 7.
    ///
    /// # Errors
    /// [`Error::Call`] when the VM has no maps, IOVA space or tables left.
    pub fn create<H: Hypervisor>(bus: &Bus<'_, H>, channel: u8, tag: &Tag) -> Result<Self, Error> {
        let lease = bus.create(channel, tag)?;
        Ok(Self { handle: lease.handle, base: lease.base, bytes: lease.bytes })
    }

    /// `bus_dmamap_load`: devices reach the buffers, in this direction, through [`Loaded::segments`].
    ///
    /// # Errors
    /// Map and buffers, unchanged: more than four segments, memory that must not be written, or [`Error::Call`].
    pub fn load<H: Hypervisor, B: Buffers>(
        self,
        bus: &Bus<'_, H>,
        direction: Direction,
        buffers: B,
    ) -> Result<Loaded<B>, Refused<(Self, B)>> {
        let loaded = gather(&buffers, bus.hypervisor(), direction).and_then(|(mut segments, count)| {
            let used = segments.get_mut(..count).ok_or(Error::Segments(count, ENTRY_SEGMENTS))?;
            bus.load(self.handle, direction, used)?;
            Ok((segments, count))
        });
        match loaded {
            Ok((segments, count)) => Ok(Loaded { map: self, buffers, segments, count }),
            Err(error) => Err(Refused::new(error, (self, buffers))),
        }
    }

    /// `bus_dmamap_load_raw`: loads as many segments as the tag allows, and fills in each `iova`. The caller keeps the
    /// memory for the device until it is unloaded.
    ///
    /// # Errors
    /// The map, unchanged.
    pub fn load_raw<H: Hypervisor>(
        self,
        bus: &Bus<'_, H>,
        direction: Direction,
        segments: &mut [Segment],
    ) -> Result<Loaded<()>, Refused<Self>> {
        match bus.load(self.handle, direction, segments) {
            Ok(()) => Ok(Loaded { map: self, buffers: (), segments: Default::default(), count: 0 }),
            Err(error) => Err(Refused::new(error, self)),
        }
    }

    /// `bus_dmamap_destroy`.
    ///
    /// # Errors
    /// The map, unchanged.
    pub fn destroy<H: Hypervisor>(self, bus: &Bus<'_, H>) -> Result<(), Refused<Self>> {
        bus.destroy(self.handle).map_err(|error| Refused::new(error, self))
    }

    /// First IOVA of its lease.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Bytes of its lease, guard page included.
    pub fn lease_bytes(&self) -> u64 {
        self.bytes
    }

    /// The handle, for calls of one's own.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// What the hypervisor says of it; `None` for a state of a later version.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn state<H: Hypervisor>(&self, bus: &Bus<'_, H>) -> Result<Option<MapState>, Error> {
        bus.query(self.handle).map(|[state, ..]| MapState::from_number(state))
    }
}

impl<B> Loaded<B> {
    /// Where the device finds each segment: IOVA and bytes, in order. Empty after [`Map::load_raw`].
    pub fn segments(&self) -> &[Segment] {
        self.segments.get(..self.count).unwrap_or_default()
    }

    /// IOVA of the first segment.
    pub fn iova(&self) -> u64 {
        self.segments().first().map_or(self.map.base, |segment| segment.iova)
    }

    /// The map.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// `bus_dmamap_sync` for `bytes` bytes from `offset` on of all segments together. No call where DMA is coherent.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn sync<H: Hypervisor>(&self, bus: &Bus<'_, H>, op: SyncOp, offset: u64, bytes: u64) -> Result<(), Error> {
        if bus.flags().contains(bulkhead_abi::Flags::COHERENT) {
            return Ok(());
        }
        bus.sync(self.map.handle, op, offset, bytes)
    }

    /// `bus_dmamap_unload`: when it returns, no device reaches the buffers through this map.
    ///
    /// # Errors
    /// The map, still loaded for all that is known.
    pub fn unload<H: Hypervisor>(self, bus: &Bus<'_, H>) -> Result<(Map, B), Refused<Self>> {
        match bus.unload(self.map.handle) {
            Ok(()) => Ok((self.map, self.buffers)),
            Err(error) => Err(Refused::new(error, self)),
        }
    }

    /// `bus_dmamap_destroy`, which unloads first.
    ///
    /// # Errors
    /// The map, still loaded for all that is known.
    pub fn destroy<H: Hypervisor>(self, bus: &Bus<'_, H>) -> Result<B, Refused<Self>> {
        match bus.destroy(self.map.handle) {
            Ok(()) => Ok(self.buffers),
            Err(error) => Err(Refused::new(error, self)),
        }
    }
}

impl Loaded<&'static [core::sync::atomic::AtomicU64]> {
    /// The memory that device and program share.
    pub fn shared(&self) -> &'static [core::sync::atomic::AtomicU64] {
        self.buffers
    }
}

/// Whether a device may use buffers in this direction.
pub(crate) fn check_access<B: Buffers>(direction: Direction) -> Result<(), Error> {
    if B::IS_WRITABLE || direction == Direction::DeviceReads { Ok(()) } else { Err(Error::ReadOnly) }
}

/// Where buffers are, if a device may use them in this direction.
fn gather<B: Buffers>(
    buffers: &B,
    hypervisor: &impl Hypervisor,
    direction: Direction,
) -> Result<([Segment; ENTRY_SEGMENTS], usize), Error> {
    check_access::<B>(direction)?;
    let mut segments = [Segment::default(); ENTRY_SEGMENTS];
    let mut count = 0usize;
    buffers.spans(hypervisor, &mut |ipa, bytes| {
        if let Some(segment) = segments.get_mut(count) {
            *segment = Segment { ipa, bytes, iova: 0 };
        }
        count = count.saturating_add(1);
    });
    if count == 0 || count > ENTRY_SEGMENTS {
        return Err(Error::Segments(count, ENTRY_SEGMENTS));
    }
    Ok((segments, count))
}
