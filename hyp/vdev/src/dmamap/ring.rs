//! A run through a channel's ring: each entry copied once, at most 64, one flush, then the statuses.

use bulkhead_abi::{
    Direction, Error, Handle,
    ring::{
        CONSUMER_OFFSET, Entry, Header, LAYOUT, MAGIC, Op, PRODUCER_OFFSET, RUN_MAX, SEGMENTS_OFFSET, STATUS_OFFSET,
        entry_offset, ring_bytes,
    },
};
use bulkhead_core::addr::Ipa;
use zerocopy::IntoBytes;

use super::{Channel, GuestMemory};

/// A ring that was in the VM's RAM, whole, when it was set up: the VM's RAM stays where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ring {
    pub(super) at: Ipa,
    pub(super) log2_entries: u64,
    /// The hypervisor's own: what the guest does to the copy in memory changes nothing.
    pub(super) consumer: u32,
}

/// What a run did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Entries consumed.
    pub consumed: u32,
    /// Entries left in the ring.
    pub left: u32,
    /// Entries of those consumed that got an error.
    pub failed: u32,
}

impl Ring {
    /// The ring at `at`, and its bytes.
    pub(super) fn setup(memory: &mut impl GuestMemory, at: Ipa, log2_entries: u64) -> Result<(Self, u64), Error> {
        let bytes = ring_bytes(log2_entries).ok_or(Error::Invalid)?;
        let ring = Self { at, log2_entries, consumer: 0 };
        // RAM is one range: if first and last bytes are in it, all are.
        let mut header = Header::NEW;
        memory.read(at, header.as_mut_bytes()).ok_or(Error::BadAddress)?;
        let last = ring.address(bytes - 4)?;
        memory.read(last, &mut [0; 4]).ok_or(Error::BadAddress)?;
        if (header.magic, header.layout, header.producer) != (MAGIC, LAYOUT, 0) {
            return Err(Error::BadRing);
        }
        ring.store_consumer(memory)?;
        Ok((ring, bytes))
    }

    fn address(&self, offset: u64) -> Result<Ipa, Error> {
        self.at.checked_add(offset).ok_or(Error::BadAddress)
    }

    fn entry(&self, index: u32) -> Result<Ipa, Error> {
        self.address(entry_offset(index, self.log2_entries))
    }

    fn store_consumer(&self, memory: &mut impl GuestMemory) -> Result<(), Error> {
        memory.write(self.address(CONSUMER_OFFSET)?, &self.consumer.to_ne_bytes()).ok_or(Error::BadAddress)
    }

    /// How many entries the guest says are there.
    fn pending(&self, memory: &mut impl GuestMemory) -> Result<u32, Error> {
        let mut producer = [0; 4];
        memory.read(self.address(PRODUCER_OFFSET)?, &mut producer).ok_or(Error::BadAddress)?;
        let pending = u32::from_ne_bytes(producer).wrapping_sub(self.consumer);
        if u64::from(pending) > 1 << self.log2_entries {
            return Err(Error::BadRing);
        }
        Ok(pending)
    }
}

const HEAD_BYTES: usize = core::mem::offset_of!(Entry, segments);

/// Takes what is in the channel's ring.
pub(super) fn run(channel: &mut impl Channel, memory: &mut impl GuestMemory) -> Result<Run, Error> {
    let mut ring = (*channel.ring()).ok_or(Error::NoRing)?;
    let pending = ring.pending(memory)?;
    let consumed = pending.min(RUN_MAX);
    let first = ring.consumer;
    let mut outcomes = [Ok(Op::Nop); RUN_MAX as usize];
    for (place, outcome) in (0..consumed).zip(&mut outcomes) {
        *outcome = ring.entry(first.wrapping_add(place)).and_then(|at| entry(channel, memory, at));
    }
    // The one flush: no status says that a page is gone before it is.
    let flushed = channel.finish();
    let mut failed = 0;
    for (place, outcome) in (0..consumed).zip(outcomes) {
        let status = match (outcome, flushed) {
            (Err(error), _) | (Ok(Op::Unload), Err(error)) => error.number(),
            _ => 0,
        };
        failed += u32::from(status != 0);
        let at = ring.entry(first.wrapping_add(place))?.checked_add(STATUS_OFFSET).ok_or(Error::BadAddress)?;
        memory.write(at, &status.to_ne_bytes()).ok_or(Error::BadAddress)?;
    }
    ring.consumer = first.wrapping_add(consumed);
    *channel.ring() = Some(ring);
    ring.store_consumer(memory)?;
    Ok(Run { consumed, left: pending - consumed, failed })
}

/// Does one entry, all but its flush.
fn entry(channel: &mut impl Channel, memory: &mut impl GuestMemory, at: Ipa) -> Result<Op, Error> {
    let mut entry = Entry::default();
    let (head, _) = entry.as_mut_bytes().split_at_mut(HEAD_BYTES);
    memory.read(at, head).ok_or(Error::BadAddress)?;
    let op = Op::from_number(entry.op).filter(|_| entry.flags == 0).ok_or(Error::Invalid)?;
    let map = Handle::from_register(entry.handle);
    match op {
        Op::Load => load(channel, memory, at, map, &mut entry)?,
        Op::Unload | Op::Nop if (entry.direction, entry.count) != (0, 0) => return Err(Error::Invalid),
        Op::Unload => channel.unload(map)?,
        Op::Nop => {}
    }
    Ok(op)
}

fn load(
    channel: &mut impl Channel,
    memory: &mut impl GuestMemory,
    at: Ipa,
    map: Handle,
    entry: &mut Entry,
) -> Result<(), Error> {
    let direction = Direction::from_number(entry.direction.into()).ok_or(Error::Invalid)?;
    let segments = entry.segments.get_mut(..entry.count.into()).ok_or(Error::TooManySegments)?;
    if segments.is_empty() {
        return Err(Error::Invalid);
    }
    let at = at.checked_add(SEGMENTS_OFFSET).ok_or(Error::BadAddress)?;
    memory.read(at, segments.as_mut_bytes()).ok_or(Error::BadAddress)?;
    channel.load(map, direction, segments)?;
    memory.write(at, segments.as_bytes()).ok_or(Error::BadAddress)
}
