//! The bus: the hypervisor's calls, their arguments and results by type.

use core::{
    cell::Cell,
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use bulkhead_abi::{
    Counter, Direction, Features, Flags, Function, Handle, Limits, SEGMENTS_MAX, STATS_PER_CALL, Segment, SyncOp, UID,
    VERSION_MAJOR, Window,
};

use crate::{Error, Tag};

/// The way to the hypervisor.
pub trait Hypervisor {
    /// Calls function `function` with x1 to x6; x0 to x3 of its answer.
    fn call(&self, function: u32, arguments: &[u64; 6]) -> [u64; 4];

    /// IPA of memory of this program.
    fn ipa(&self, address: usize) -> u64;
}

impl<H: Hypervisor + ?Sized> Hypervisor for &H {
    fn call(&self, function: u32, arguments: &[u64; 6]) -> [u64; 4] {
        (**self).call(function, arguments)
    }

    fn ipa(&self, address: usize) -> u64 {
        (**self).ipa(address)
    }
}

/// Words of a [`Segment`].
const SEGMENT_WORDS: usize = 3;

/// DMA maps of this VM, as one CPU uses them: each CPU attaches for itself.
#[derive(Debug)]
pub struct Bus<'m, H> {
    hypervisor: H,
    /// Where segment arrays are for the hypervisor.
    array: &'m [AtomicU64],
    flags: Flags,
    /// The array is one CPU's.
    not_sync: PhantomData<Cell<()>>,
}

/// What CREATE gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lease {
    pub(crate) handle: Handle,
    pub(crate) base: u64,
    pub(crate) bytes: u64,
}

impl<'m, H: Hypervisor> Bus<'m, H> {
    /// Words that [`Self::attach`] takes.
    pub const ARRAY_WORDS: usize = 64 * SEGMENT_WORDS;

    /// Asks the hypervisor who it is. `array` holds segments for it from now on: at least [`Self::ARRAY_WORDS`] words.
    ///
    /// # Errors
    /// [`Error::NoBus`], [`Error::Version`], [`Error::Memory`].
    pub fn attach(hypervisor: H, array: &'m [AtomicU64]) -> Result<Self, Error> {
        const { assert!(Self::ARRAY_WORDS as u64 == SEGMENTS_MAX * SEGMENT_WORDS as u64) };
        let Some(array) = array.get(..Self::ARRAY_WORDS) else {
            return Err(Error::Memory(size_of_val(array), hypervisor.ipa(array.as_ptr().addr())));
        };
        let mut bus = Self { hypervisor, array, flags: Flags::empty(), not_sync: PhantomData };
        // W0 to W3: the upper halves mean nothing in a 32-bit call.
        let uid = bus.hypervisor.call(Function::CallUid.id(), &[0; 6]).map(|word| word & 0xffff_ffff);
        if uid != UID.map(u64::from) {
            return Err(Error::NoBus);
        }
        let [version, ..] = bus.call(Function::Version, [0; 6])?;
        if version >> 16 != u64::from(VERSION_MAJOR) {
            return Err(Error::Version(version));
        }
        let [flags, ..] = bus.features(Features::Functions)?;
        bus.flags = Flags::from_bits_retain(flags);
        Ok(bus)
    }

    pub(crate) fn hypervisor(&self) -> &H {
        &self.hypervisor
    }

    fn call(&self, function: Function, arguments: [u64; 6]) -> Result<[u64; 3], Error> {
        let [x0, x1, x2, x3] = self.hypervisor.call(function.id(), &arguments);
        Error::check(x0)?;
        Ok([x1, x2, x3])
    }

    fn features(&self, page: Features) -> Result<[u64; 3], Error> {
        self.call(Function::Features, [page as u64, 0, 0, 0, 0, 0])
    }

    /// How the hypervisor does it.
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// What it allows.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn limits(&self) -> Result<Limits, Error> {
        self.features(Features::Limits).map(|[maps, segments, run]| Limits { maps, segments, run })
    }

    /// Where leases lie.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn window(&self) -> Result<Window, Error> {
        self.features(Features::Window).map(|[start, end, page]| Window { start, end, page })
    }

    /// A counter of the VM.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn counter(&self, counter: Counter) -> Result<u64, Error> {
        self.counters(counter).map(|[value, ..]| value)
    }

    /// A counter and those after it.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn counters(&self, first: Counter) -> Result<[u64; 3], Error> {
        const { assert!(STATS_PER_CALL == 3) };
        self.call(Function::Stats, [first.number(), 0, 0, 0, 0, 0])
    }

    pub(crate) fn create(&self, channel: u8, tag: &Tag) -> Result<Lease, Error> {
        let tag = tag.constraints();
        let arguments = [channel.into(), tag.max_size, tag.max_segments, tag.boundary, tag.align, tag.limit];
        let [handle, base, bytes] = self.call(Function::Create, arguments)?;
        Ok(Lease { handle: Handle::from_register(handle), base, bytes })
    }

    /// Loads, and fills in each segment's IOVA.
    pub(crate) fn load(&self, map: Handle, direction: Direction, segments: &mut [Segment]) -> Result<(), Error> {
        let (places, _) = self.array.as_chunks::<SEGMENT_WORDS>();
        if segments.is_empty() || segments.len() > places.len() {
            return Err(Error::Segments(segments.len(), places.len()));
        }
        for ([ipa, bytes, _], segment) in places.iter().zip(&*segments) {
            ipa.store(segment.ipa, Relaxed);
            bytes.store(segment.bytes, Relaxed);
        }
        let array = self.hypervisor.ipa(self.array.as_ptr().addr());
        let count = u64::try_from(segments.len()).map_err(|_| Error::Segments(segments.len(), places.len()))?;
        self.call(Function::Load, [map.register(), array, count, direction.number().into(), 0, 0])?;
        for ([_, _, iova], segment) in places.iter().zip(segments) {
            segment.iova = iova.load(Relaxed);
        }
        Ok(())
    }

    pub(crate) fn unload(&self, map: Handle) -> Result<(), Error> {
        self.call(Function::Unload, [map.register(), 0, 0, 0, 0, 0]).map(|_| ())
    }

    pub(crate) fn destroy(&self, map: Handle) -> Result<(), Error> {
        self.call(Function::Destroy, [map.register(), 0, 0, 0, 0, 0]).map(|_| ())
    }

    pub(crate) fn sync(&self, map: Handle, op: SyncOp, offset: u64, bytes: u64) -> Result<(), Error> {
        self.call(Function::Sync, [map.register(), op.bits(), offset, bytes, 0, 0]).map(|_| ())
    }

    pub(crate) fn query(&self, map: Handle) -> Result<[u64; 3], Error> {
        self.call(Function::Query, [map.register(), 0, 0, 0, 0, 0])
    }

    pub(crate) fn ring_setup(&self, channel: u8, at: u64, log2_entries: u64) -> Result<u64, Error> {
        self.call(Function::RingSetup, [channel.into(), at, log2_entries, 0, 0, 0]).map(|[bytes, ..]| bytes)
    }

    pub(crate) fn ring_run(&self, channel: u8) -> Result<[u64; 3], Error> {
        self.call(Function::RingRun, [channel.into(), 0, 0, 0, 0, 0])
    }
}
