//! A channel: the maps of one queue of a driver, worked on by one CPU at a time.

use bulkhead_core::{
    addr::{AddrRange, Ipa},
    bundle::DmamapStrategy,
};

use super::{
    Handle, HandleError, Piece, Record, Segment, Space, View,
    handle::PLACES,
    piece::{NONE, Pieces},
};
use crate::{flush::Batch, strategy::Magazine};

/// Memory for a channel, given for the VM's life: an empty one in every element.
#[derive(Debug)]
pub struct ChannelStorage<'t> {
    /// As many as the channel may have maps, at most 2^22.
    pub records: &'t mut [Record<'t>],
    /// One for each map, and one for each further leaf table that a map lies in; twice as many are plenty.
    pub pieces: &'t mut [Piece<'t>],
}

/// What a channel counts. Unloads and their pages are counted by its flush policy
/// ([`FlushCounters`](crate::flush::FlushCounters)): loads are those and [`Self::loaded`], stores two for each page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Maps created.
    pub created: u64,
    /// Maps destroyed.
    pub destroyed: u64,
    /// Loads that were refused.
    pub refused: u64,
    /// Maps now.
    pub live: u32,
    /// Maps that are loaded now.
    pub loaded: u32,
    /// Pages that are loaded now.
    pub loaded_pages: u64,
    /// Leases that loads took from the space, and from a magazine instead.
    pub leased_by_load: u64,
    /// Leases that loads took from a magazine.
    pub from_magazine: u64,
    /// Pages that unloads of sampled maps took out.
    pub sampled: u64,
    /// Those of them whose access flag was set.
    pub touched: u64,
}

/// The maps of one queue. See [`map`](super).
///
/// What every load and unload needs comes first, within reach of paired loads.
#[derive(Debug)]
#[repr(C)]
pub struct Channel<'t> {
    pub(crate) ram: Ram,
    pub(crate) records: &'t mut [Record<'t>],
    pub(crate) batch: Batch,
    pub(crate) pieces: Pieces<'t>,
    pub(crate) number: u8,
    pub(crate) strategy: DmamapStrategy,
    pub(crate) magazine: Magazine,
    pub(super) is_sampling: bool,
    spare: u32,
    fresh: u32,
    /// Maps whose flush gives something back, oldest first.
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) counted: Counters,
}

/// The VM's RAM as loads need it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Ram {
    /// Leaf descriptor of the first block of 2 MiB, by direction: descriptors of other blocks follow by addition.
    pub block: [u64; 3],
    /// The same, of the first page.
    pub page: [u64; 3],
    /// Whole blocks from the start on.
    pub blocks: u64,
    pub size: u64,
    pub start: u64,
}

impl Ram {
    /// Where a segment is from the start of the RAM; `None` if not all of it is in it.
    #[inline]
    pub const fn offset(&self, segment: &Segment) -> Option<u64> {
        let first = segment.ipa.as_u64().wrapping_sub(self.start);
        let last = segment.last.as_u64().wrapping_sub(self.start);
        if (first < self.size) & (last < self.size) { Some(first) } else { None }
    }
}

impl<'t> Channel<'t> {
    /// A channel of `space` without maps. `batch` is for the space's VMID and the SMMUs of the VM's devices.
    pub fn new(number: u8, storage: ChannelStorage<'t>, space: &Space<'t>, batch: Batch) -> Self {
        let ChannelStorage { records, pieces } = storage;
        let places = records.len().min(PLACES);
        Self {
            ram: space.ram,
            records: records.get_mut(..places).unwrap_or_default(),
            batch,
            pieces: Pieces::new(pieces),
            number,
            strategy: space.strategy,
            magazine: Magazine::EMPTY,
            is_sampling: false,
            spare: NONE,
            fresh: 0,
            first: NONE,
            last: NONE,
            counted: Counters::default(),
        }
    }

    /// Its number.
    pub const fn number(&self) -> u8 {
        self.number
    }

    /// What was unloaded, on the way to its flush.
    pub const fn batch(&self) -> &Batch {
        &self.batch
    }

    /// The same, to be closed, and to be told of its flush.
    pub const fn batch_mut(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// The VM's RAM.
    pub fn ram(&self) -> Option<AddrRange<Ipa>> {
        AddrRange::new(Ipa::new(self.ram.start), self.ram.size)
    }

    /// What was counted. Looks at every map.
    pub fn counters(&self) -> Counters {
        let mut counters = self.counted;
        for record in self.records.iter().filter(|record| record.is_loaded()) {
            counters.loaded += 1;
            counters.loaded_pages += u64::from(record.pages());
        }
        counters
    }

    /// What there is to say of a map.
    pub fn view(&self, handle: Handle) -> Result<View, HandleError> {
        self.find(handle).map(|record| View::of(record, self.base(record), &self.batch))
    }

    /// First page of a map's lease; of the last load's first where each takes its own.
    pub(super) fn base(&self, record: &Record<'_>) -> u64 {
        self.pieces.get(record.pieces).map_or(record.first(), |piece| piece.first.into())
    }

    /// Whether something waits for [`Space::reap`].
    pub const fn has_retired(&self) -> bool {
        self.first != NONE
    }

    pub(crate) fn find(&self, handle: Handle) -> Result<&Record<'t>, HandleError> {
        self.records.get(handle.index()).filter(|record| record.is_of(handle)).ok_or(HandleError::new(handle))
    }

    pub(crate) fn find_mut(&mut self, handle: Handle) -> Result<&mut Record<'t>, HandleError> {
        let refused = HandleError::new(handle);
        self.records.get_mut(handle.index()).filter(|record| record.is_of(handle)).ok_or(refused)
    }

    pub(crate) fn capacity(&self) -> u32 {
        u32::try_from(self.records.len()).unwrap_or(NONE)
    }

    /// The place of the next map.
    pub(crate) fn vacant(&self) -> Option<u32> {
        let at = if self.spare == NONE { self.fresh } else { self.spare };
        (at < self.capacity()).then_some(at)
    }

    /// Takes the place that `vacant` told into use: its handle.
    pub(crate) fn occupy(&mut self, at: u32) -> Handle {
        let (number, spare) = (self.number, self.spare);
        let Some(record) = self.records.get_mut(at as usize) else { return Handle(0) };
        if spare == NONE {
            self.fresh += 1;
        } else {
            self.spare = record.link;
        }
        self.counted.created += 1;
        self.counted.live += 1;
        if record.word == 0 { Handle::new(number, at, 1) } else { record.handle() }
    }

    /// The place that was vacated last.
    pub(super) const fn spare(&self) -> u32 {
        self.spare
    }

    /// A map was created there; `next` is the one that was vacated before it.
    pub(super) const fn count_created(&mut self, next: u32) {
        self.spare = next;
        self.counted.created = self.counted.created.wrapping_add(1);
        self.counted.live = self.counted.live.wrapping_add(1);
    }

    /// Takes a map's place out of use.
    pub(crate) fn vacate(&mut self, at: u32) {
        if let Some(record) = self.records.get_mut(at as usize) {
            record.link = self.spare;
            self.spare = at;
        }
    }

    /// Puts a map at the end of those whose flush gives something back.
    pub(crate) fn list(&mut self, at: u32) {
        let Some(record) = self.records.get_mut(at as usize) else { return };
        if record.is_listed {
            return;
        }
        record.is_listed = true;
        record.link = NONE;
        let last = core::mem::replace(&mut self.last, at);
        match self.records.get_mut(last as usize) {
            Some(last) => last.link = at,
            None => self.first = at,
        }
    }

    /// Takes the oldest of them, once it is flushed.
    pub(crate) fn unlist(&mut self) -> Option<u32> {
        let at = self.first;
        let record = self.records.get_mut(at as usize)?;
        if !self.batch.is_settled(record.stamp()) {
            return None;
        }
        record.is_listed = false;
        self.first = record.link;
        if self.first == NONE {
            self.last = NONE;
        }
        Some(at)
    }
}
