//! The hypervisor's ring by handles alone, for buffers that live for ever.
//!
//! `bulkhead_bus_dma::Ring` owns what is loaded, and hands it over by value: some 600 instructions a packet in copies.
//! Here nothing is owned, so nothing is copied but what the hypervisor reads.

use core::{
    mem::offset_of,
    sync::atomic::{
        AtomicU64,
        Ordering::{Relaxed, Release},
    },
};

use bulkhead_bus_dma::{
    Hypervisor,
    abi::{
        Error, Function, Handle,
        ring::{Entry, Header, LAYOUT, MAGIC, Op, PENDING},
    },
};

use super::Segment;
use bulkhead_guest_tests::heap::{self, PAGE_BYTES};

/// Bytes of a word.
const WORD: usize = size_of::<u64>();
const HEADER_WORDS: usize = size_of::<Header>() / WORD;
const PRODUCER_AT: usize = offset_of!(Header, producer) / WORD;
const ENTRY_WORDS: usize = size_of::<Entry>() / WORD;
const SEGMENTS_AT: usize = offset_of!(Entry, segments) / WORD;
const SEGMENT_WORDS: usize = 3;
/// More than two full batches each way.
const LOG2_LEN: u32 = 9;
const LEN: u32 = 1 << LOG2_LEN;

/// A channel's ring.
pub struct RawRing {
    channel: u8,
    words: &'static [AtomicU64],
    /// Entries filled and entries done: indices that wrap.
    producer: u32,
    consumer: u32,
}

impl RawRing {
    /// Gives a new ring to the hypervisor.
    ///
    /// # Errors
    /// What the hypervisor says.
    pub fn setup(hypervisor: &impl Hypervisor, channel: u8) -> Result<Self, Error> {
        let words = heap::words(((HEADER_WORDS + LEN as usize * ENTRY_WORDS) * WORD).div_ceil(PAGE_BYTES));
        words[0].store(MAGIC, Relaxed);
        words[1].store(LAYOUT.into(), Relaxed);
        let ipa = hypervisor.ipa(words.as_ptr().addr());
        call(hypervisor, Function::RingSetup, [channel.into(), ipa, LOG2_LEN.into()])?;
        Ok(Self { channel, words, producer: 0, consumer: 0 })
    }

    /// Puts a load into the ring; where its IOVAs will be.
    pub fn load(&mut self, map: Handle, direction: u8, segments: &[Segment]) -> usize {
        let count = u8::try_from(segments.len()).unwrap_or(u8::MAX);
        let (place, entry) = self.entry();
        let places = entry[SEGMENTS_AT..].as_chunks::<SEGMENT_WORDS>().0;
        for ([ipa, bytes, _], segment) in places.iter().zip(segments) {
            ipa.store(segment.address, Relaxed);
            bytes.store(segment.bytes, Relaxed);
        }
        self.put(entry, map, Op::Load, [direction, count]);
        place
    }

    /// Puts an unload into the ring.
    pub fn unload(&mut self, map: Handle) {
        let (_, entry) = self.entry();
        self.put(entry, map, Op::Unload, [0, 0]);
    }

    /// Has the hypervisor do all that is in the ring; how many calls that took.
    ///
    /// # Errors
    /// What the hypervisor says of a call, or how many entries failed.
    pub fn run(&mut self, hypervisor: &impl Hypervisor) -> Result<u64, RunError> {
        let mut calls = 0;
        while self.consumer != self.producer {
            let [consumed, _, failed] = call(hypervisor, Function::RingRun, [self.channel.into(), 0, 0])?;
            if failed > 0 {
                return Err(RunError::Entries(failed));
            }
            self.consumer = self.consumer.wrapping_add(u32::try_from(consumed).unwrap_or_default());
            calls += 1;
        }
        Ok(calls)
    }

    /// The IOVAs of the load at `place`, until as many entries as the ring has were put in after it.
    pub fn iovas<const N: usize>(&self, place: usize) -> [u64; N] {
        let places = self.words[place..place + ENTRY_WORDS][SEGMENTS_AT..].as_chunks::<SEGMENT_WORDS>().0;
        core::array::from_fn(|segment| places[segment][2].load(Relaxed))
    }

    /// The next entry, and where it is.
    fn entry(&self) -> (usize, &'static [AtomicU64]) {
        assert!(self.producer.wrapping_sub(self.consumer) < LEN, "the ring is full");
        let place = HEADER_WORDS + (self.producer % LEN) as usize * ENTRY_WORDS;
        (place, &self.words[place..place + ENTRY_WORDS])
    }

    fn put(&mut self, entry: &[AtomicU64], map: Handle, op: Op, [direction, count]: [u8; 2]) {
        let [op, op_high] = op.number().to_le_bytes();
        let [a, b, c, d] = PENDING.to_le_bytes();
        entry[0].store(u64::from_le_bytes([op, op_high, direction, count, a, b, c, d]), Relaxed);
        entry[1].store(map.register(), Relaxed);
        self.producer = self.producer.wrapping_add(1);
        // The entry is there before its index says so.
        self.words[PRODUCER_AT].store(self.producer.into(), Release);
    }
}

/// Why a run failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunError {
    /// The call itself.
    Call(Error),
    /// So many of its entries.
    Entries(u64),
}

impl From<Error> for RunError {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

fn call(hypervisor: &impl Hypervisor, function: Function, arguments: [u64; 3]) -> Result<[u64; 3], Error> {
    let [one, two, three] = arguments;
    let [x0, results @ ..] = hypervisor.call(function.id(), &[one, two, three, 0, 0, 0]);
    // An error of a later version is none of this interface's calls.
    Error::from_register(x0).map(|()| results).map_err(|error| error.unwrap_or(Error::NotSupported))
}
