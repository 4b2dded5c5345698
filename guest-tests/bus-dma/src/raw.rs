//! A ring by handles and indices alone: who owns what is loaded is the caller's to know.

use core::{
    mem::offset_of,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use bulkhead_abi::{
    Direction, Handle, Segment,
    ring::{ENTRY_SEGMENTS, Entry, Header, LAYOUT, LOG2_ENTRIES_MAX, MAGIC, Op, PENDING},
};

use crate::{Bus, Error, Hypervisor};

/// Bytes of a word.
const WORD: usize = size_of::<u64>();
const HEADER: usize = size_of::<Header>() / WORD;
const LAYOUT_AT: usize = offset_of!(Header, layout) / WORD;
const PRODUCER_AT: usize = offset_of!(Header, producer) / WORD;
const CONSUMER_AT: usize = offset_of!(Header, consumer) / WORD;
const ENTRY: usize = size_of::<Entry>() / WORD;
const HANDLE_AT: usize = offset_of!(Entry, handle) / WORD;
const FLAGS_AT: usize = offset_of!(Entry, flags) / WORD;
const SEGMENTS_AT: usize = offset_of!(Entry, segments) / WORD;
const SEGMENT: usize = size_of::<Segment>() / WORD;

/// What a run did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Entries that are done now.
    pub consumed: u64,
    /// Entries that wait for the next run.
    pub left: u64,
    /// Entries of those done that failed.
    pub failed: u64,
}

/// The ring of a channel, for buffers that their owner keeps in place by other means: a driver whose buffers live for
/// ever, or [`Ring`](crate::Ring), which owns them. An entry is named by its index, until as many as the ring has were
/// put in after it.
#[derive(Debug)]
pub struct RawRing<'m> {
    channel: u8,
    words: &'m [AtomicU64],
    /// Entries.
    len: u32,
    /// Entries filled, and entries that the hypervisor has done: indices that wrap.
    producer: u32,
    consumer: u32,
}

/// The segments of an entry that is being filled.
#[derive(Debug)]
pub struct Segments<'a> {
    places: &'a [[AtomicU64; SEGMENT]],
    count: usize,
}

impl Segments<'_> {
    /// One more, of `bytes` bytes.
    pub fn push(&mut self, ipa: u64, bytes: u64) {
        if let Some([first, length, _]) = self.places.get(self.count) {
            first.store(ipa, Relaxed);
            length.store(bytes, Relaxed);
        }
        self.count = self.count.saturating_add(1);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'m> RawRing<'m> {
    /// Words of memory that a ring of 2^`log2_len` entries needs, page-aligned, with no multiple of 2 MiB among them.
    pub const fn words(log2_len: u32) -> usize {
        HEADER + (ENTRY << log2_len)
    }

    /// Writes a ring into `words` and gives it to the hypervisor.
    ///
    /// # Errors
    /// [`Error::Memory`] for fewer than [`Self::words`], [`Error::Call`].
    pub fn setup<H: Hypervisor>(
        bus: &Bus<'_, H>,
        channel: u8,
        log2_len: u32,
        words: &'m [AtomicU64],
    ) -> Result<Self, Error> {
        let ipa = bus.hypervisor().ipa(words.as_ptr().addr());
        let refused = Error::Memory(size_of_val(words), ipa);
        let is_short = u64::from(log2_len) > LOG2_ENTRIES_MAX || words.len() < Self::words(log2_len);
        let header = words.first_chunk::<HEADER>().filter(|_| !is_short).ok_or(refused)?;
        for word in header {
            word.store(0, Relaxed);
        }
        header[0].store(MAGIC, Relaxed);
        header[LAYOUT_AT].store(LAYOUT.into(), Relaxed);
        bus.ring_setup(channel, ipa, log2_len.into())?;
        Ok(Self { channel, words, len: 1 << log2_len, producer: 0, consumer: 0 })
    }

    /// Takes the ring from the hypervisor. Entries that were not run are lost with it: run it first.
    ///
    /// # Errors
    /// [`Error::Call`]: it is still in place.
    pub fn remove<H: Hypervisor>(&self, bus: &Bus<'_, H>) -> Result<(), Error> {
        bus.ring_setup(self.channel, 0, 0).map(|_| ())
    }

    /// Its channel.
    pub fn channel(&self) -> u8 {
        self.channel
    }

    /// Index of the next entry that is put in.
    pub fn producer(&self) -> u32 {
        self.producer
    }

    /// Index of the next entry that a run takes: those before are done.
    pub fn consumer(&self) -> u32 {
        self.consumer
    }

    /// Puts a load in; its index.
    ///
    /// # Errors
    /// [`Error::Full`], or [`Error::Segments`] when `fill` gives none or too many: nothing was put in.
    pub fn load(
        &mut self,
        map: Handle,
        direction: Direction,
        fill: impl FnOnce(&mut Segments<'_>),
    ) -> Result<u32, Error> {
        let entry = self.vacant()?;
        let (places, _) = entry[SEGMENTS_AT..].as_chunks();
        let mut segments = Segments { places, count: 0 };
        fill(&mut segments);
        let count = segments.count;
        match u8::try_from(count) {
            Ok(number @ 1..) if count <= ENTRY_SEGMENTS => {
                Ok(self.put(entry, map, Op::Load, [direction.number(), number]))
            }
            _ => Err(Error::Segments(count, ENTRY_SEGMENTS)),
        }
    }

    /// Puts an unload in; its index.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub fn unload(&mut self, map: Handle) -> Result<u32, Error> {
        let entry = self.vacant()?;
        Ok(self.put(entry, map, Op::Unload, [0, 0]))
    }

    /// Has the hypervisor do what is in the ring, up to its limit of one run, with one flush.
    ///
    /// # Errors
    /// [`Error::Call`]: nothing was done.
    pub fn run<H: Hypervisor>(&mut self, bus: &Bus<'_, H>) -> Result<Run, Error> {
        let [consumed, left, failed] = bus.ring_run(self.channel)?;
        let [a, b, c, d, ..] = self.words.get(CONSUMER_AT).map_or(0, |word| word.load(Acquire)).to_le_bytes();
        self.consumer = u32::from_le_bytes([a, b, c, d]);
        Ok(Run { consumed, left, failed })
    }

    /// What became of an entry that is done.
    ///
    /// # Errors
    /// What the hypervisor says of it.
    pub fn outcome(&self, index: u32) -> Result<(), Error> {
        let [.., a, b, c, d] = self.entry(index).map_or(0, |entry| entry[0].load(Relaxed)).to_le_bytes();
        Error::check_status(i32::from_le_bytes([a, b, c, d]))
    }

    /// The segments of a load that is done, and where the device finds each.
    pub fn segments<const N: usize>(&self, index: u32) -> [Segment; N] {
        let word = |word: &AtomicU64| word.load(Relaxed);
        self.places(index, |[ipa, bytes, iova]| Segment { ipa: word(ipa), bytes: word(bytes), iova: word(iova) })
    }

    /// Where the device finds the segments of a load that is done.
    pub fn iovas<const N: usize>(&self, index: u32) -> [u64; N] {
        self.places(index, |[_, _, iova]| iova.load(Relaxed))
    }

    fn places<T: Default, const N: usize>(&self, index: u32, read: impl Fn(&[AtomicU64; SEGMENT]) -> T) -> [T; N] {
        let places = self.entry(index).map(|entry| entry[SEGMENTS_AT..].as_chunks().0).unwrap_or_default();
        core::array::from_fn(|at| places.get(at).map(&read).unwrap_or_default())
    }

    /// The entry at the producer.
    fn vacant(&self) -> Result<&'m [AtomicU64; ENTRY], Error> {
        let is_full = self.producer.wrapping_sub(self.consumer) >= self.len;
        self.entry(self.producer).filter(|_| !is_full).ok_or(Error::Full)
    }

    fn entry(&self, index: u32) -> Option<&'m [AtomicU64; ENTRY]> {
        let place = (index & (self.len - 1)) as usize;
        self.words.get(HEADER..)?.as_chunks().0.get(place)
    }

    fn put(&mut self, entry: &[AtomicU64; ENTRY], map: Handle, op: Op, [direction, count]: [u8; 2]) -> u32 {
        let [op, op_high] = op.number().to_le_bytes();
        let [a, b, c, d] = PENDING.to_le_bytes();
        entry[0].store(u64::from_le_bytes([op, op_high, direction, count, a, b, c, d]), Relaxed);
        entry[HANDLE_AT].store(map.register(), Relaxed);
        entry[FLAGS_AT].store(0, Relaxed);
        let index = self.producer;
        self.producer = index.wrapping_add(1);
        // The entry is there before its index says so.
        if let Some(word) = self.words.get(PRODUCER_AT) {
            word.store(self.producer.into(), Release);
        }
        index
    }
}
