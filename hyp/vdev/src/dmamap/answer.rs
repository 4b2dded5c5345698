//! One call from its registers to its answer.

use core::sync::atomic::Ordering::Relaxed;

use super::{
    Backend, Call, Channel, GuestMemory, memory,
    ring::{self, Ring},
};
use crate::memory::WORD_BYTES;
use bulkhead_abi::{
    CHANNELS, Constraints, Counter, Direction, Error, Features, Function, Handle, SEGMENTS_MAX, Segment, UID, VERSION,
    VERSION_MAJOR, VERSION_MINOR, ring::RUN_MAX,
};
use bulkhead_core::addr::Ipa;

/// Does what x0 to x6 call for; x0 to x3 of the answer.
pub fn answer(backend: &impl Backend, memory: &mut impl GuestMemory, x: &[u64; 7]) -> [u64; 4] {
    match Call::decode(x).and_then(|call| carry_out(backend, memory, call)) {
        Ok(Results::Queried(words)) => words.map(u64::from),
        Ok(Results::Done([x1, x2, x3])) => [0, x1, x2, x3],
        Err(error) => [error.register(), 0, 0, 0],
    }
}

const SEGMENT_WORDS: usize = size_of::<Segment>() / WORD_BYTES;

/// Segments of a LOAD at most.
const SEGMENTS: usize = 64;
const _: () = assert!(SEGMENTS as u64 == SEGMENTS_MAX);

enum Results {
    /// Success, and x1 to x3.
    Done([u64; 3]),
    /// A general query of DEN 0028: W0 to W3, no status.
    Queried([u32; 4]),
}

const NOTHING: Results = Results::Done([0; 3]);

fn carry_out(backend: &impl Backend, memory: &mut impl GuestMemory, call: Call) -> Result<Results, Error> {
    Ok(match call {
        Call::Version => Results::Done([VERSION, 0, 0]),
        Call::Uid => Results::Queried(UID),
        Call::Revision => Results::Queried([VERSION_MAJOR, VERSION_MINOR, 0, 0]),
        Call::Features(page) => Results::Done(features(backend, page)),
        Call::Create(channel, constraints) => create(backend, channel, &constraints)?,
        Call::Load(map, array, count, direction) => load(backend, memory, map, array, count, direction)?,
        Call::Unload(map) => {
            let mut channel = claim_for(backend, map)?;
            channel.unload(map)?;
            channel.finish()?;
            NOTHING
        }
        Call::Destroy(map) => {
            claim_for(backend, map)?.destroy(map)?;
            NOTHING
        }
        Call::Sync(map, op, offset, bytes) => {
            claim_for(backend, map)?.sync(map, op, offset, bytes)?;
            NOTHING
        }
        Call::Query(map) => {
            let info = claim_for(backend, map)?.query(map)?;
            Results::Done([info.state.number(), info.base, info.pages])
        }
        Call::Stats(first) => {
            let value = |number| Counter::from_number(number).map_or(0, |counter| backend.counter(counter));
            Results::Done([value(first), value(first.saturating_add(1)), value(first.saturating_add(2))])
        }
        Call::RingSetup(channel, at, log2_entries) => {
            let mut channel = backend.claim(channel)?;
            let (ring, bytes) = Ring::setup(memory, at, log2_entries)?;
            *channel.ring() = Some(ring);
            Results::Done([bytes, 0, 0])
        }
        Call::RingRemove(channel) => {
            *backend.claim(channel)?.ring() = None;
            NOTHING
        }
        Call::RingRun(channel) => {
            let run = ring::run(&mut backend.claim(channel)?, memory)?;
            Results::Done([run.consumed, run.left, run.failed].map(u64::from))
        }
    })
}

/// The channel that a handle names, claimed. A handle of a channel that does not exist is nobody's.
fn claim_for<B: Backend>(backend: &B, map: Handle) -> Result<B::Channel<'_>, Error> {
    if u64::from(map.channel()) >= CHANNELS {
        return Err(Error::NoMap);
    }
    backend.claim(map.channel())
}

fn features(backend: &impl Backend, page: Features) -> [u64; 3] {
    match page {
        Features::Functions => {
            let ours = Function::ALL.iter().filter_map(|function| function.id().checked_sub(Function::Version.id()));
            let functions = ours.fold(0, |set, number| set | 1 << number);
            [backend.flags().bits(), functions, CHANNELS]
        }
        Features::Limits => [backend.maps_max(), SEGMENTS_MAX, u64::from(RUN_MAX)],
        Features::Window => {
            let window = backend.window();
            [window.start, window.end, window.page]
        }
    }
}

fn create(backend: &impl Backend, channel: u8, constraints: &Constraints) -> Result<Results, Error> {
    let window = backend.window();
    if constraints.max_size > window.end.saturating_sub(window.start) {
        return Err(Error::NoSpace);
    }
    let lease = backend.claim(channel)?.create(constraints)?;
    Ok(Results::Done([lease.handle.register(), lease.base, lease.bytes]))
}

fn load(
    backend: &impl Backend,
    memory: &mut impl GuestMemory,
    map: Handle,
    array: Ipa,
    count: usize,
    direction: Direction,
) -> Result<Results, Error> {
    let mut segments = [Segment::default(); SEGMENTS];
    let segments = segments.get_mut(..count).ok_or(Error::TooManySegments)?;
    let mut channel = claim_for(backend, map)?;
    let bytes = size_of_val::<[Segment]>(segments) as u64;
    let (places, _) = memory::words(memory, array, bytes)?.as_chunks::<SEGMENT_WORDS>();
    for (segment, [ipa, bytes, _]) in segments.iter_mut().zip(places) {
        (segment.ipa, segment.bytes) = (ipa.load(Relaxed), bytes.load(Relaxed));
    }
    let loaded = channel.load(map, direction, segments)?;
    channel.finish()?;
    for (segment, [.., iova]) in segments.iter().zip(places) {
        iova.store(segment.iova, Relaxed);
    }
    let first = segments.first().map_or(0, |segment| segment.iova);
    Ok(Results::Done([first, loaded.pages, 0]))
}
