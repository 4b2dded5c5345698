//! Entries of a ring: decoded from one read of each word, done, and told what became of them.

use core::sync::atomic::{Ordering::Release, fence};

use bulkhead_abi::{
    Direction, Error, Handle, Segment,
    ring::{ENTRY_SEGMENTS, Entry, Op},
};

use super::Channel;
use crate::memory::{WORD_BYTES, Word};

/// Words of an entry.
const LINE: usize = size_of::<Entry>() / WORD_BYTES;
const _: () = assert!(ENTRY_SEGMENTS == 4);

/// Words of a segment.
const SEGMENT: usize = size_of::<Segment>() / WORD_BYTES;

/// The place of a field in an entry's words.
macro_rules! word {
    ($field:ident) => {
        const { core::mem::offset_of!(Entry, $field) / WORD_BYTES }
    };
}

/// Maps as entries load and unload them.
pub trait Maps {
    /// Loads segments, any values in `ipa` and `bytes`; where the device finds each.
    ///
    /// # Errors
    /// As [`Channel::load`]; or the entry is to be done elsewhere, and nothing has changed.
    fn load<const N: usize>(
        &mut self,
        map: Handle,
        direction: Direction,
        segments: [Segment; N],
    ) -> Result<[u64; N], Refusal>;

    /// Takes the pages away.
    ///
    /// # Errors
    /// As [`Channel::unload`].
    fn unload(&mut self, map: Handle) -> Result<(), Refusal>;
}

/// Why an entry was not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It cannot be.
    Error(Error),
    /// It takes more than is at hand: [`Entries::step`] is to do it. It is then read anew.
    Elsewhere,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// What became of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Done,
    /// Done when it is flushed.
    Unloaded,
    Failed(Error),
}

/// The entries of a run.
#[derive(Debug)]
pub struct Entries<'a, W> {
    lines: &'a [[W; LINE]],
    first: u32,
    /// One for each entry to be taken.
    outcomes: &'a mut [Outcome],
    done: usize,
}

impl<'a, W: Word> Entries<'a, W> {
    /// As many entries as `outcomes`, from the index `first` on, of a ring whose entries are `lines`, 2^n of them.
    pub(super) fn new(lines: &'a [[W; LINE]], first: u32, outcomes: &'a mut [Outcome]) -> Self {
        Self { lines, first, outcomes, done: 0 }
    }

    /// Does all that are left, up to one that `maps` wants done elsewhere.
    #[inline]
    pub fn each(&mut self, maps: &mut impl Maps) {
        self.some(usize::MAX, maps);
    }

    /// Does one more by the channel's own calls; false when none is left.
    pub fn step(&mut self, channel: &mut impl Channel) -> bool {
        let before = self.done;
        self.some(1, &mut ByCalls(channel));
        self.done > before && self.done < self.outcomes.len()
    }

    #[inline]
    fn some(&mut self, most: usize, maps: &mut impl Maps) {
        let end = self.outcomes.len().min(self.done.saturating_add(most));
        let outcomes = self.outcomes.get_mut(self.done..end).unwrap_or_default();
        let (mut at, mask) = (self.first as usize + self.done, self.lines.len().wrapping_sub(1));
        for outcome in outcomes {
            let Some(line) = self.lines.get(at & mask) else { break };
            *outcome = match entry(maps, line) {
                Ok(outcome) => outcome,
                Err(Refusal::Error(error)) => Outcome::Failed(error),
                Err(Refusal::Elsewhere) => break,
            };
            at = at.wrapping_add(1);
        }
        self.done = at.wrapping_sub(self.first as usize);
    }

    /// Stores the statuses, now that the flush is over: how many entries were done, and how many of those failed.
    pub(super) fn settle(self, flushed: Result<(), Error>) -> (u32, u32) {
        let flushed = flushed.map_or_else(Error::number, |()| 0);
        let outcomes = self.outcomes.get(..self.done).unwrap_or_default();
        let (mut at, mask) = (self.first as usize, self.lines.len().wrapping_sub(1));
        let mut failed = 0;
        // Who sees a status sees the IOVAs before it.
        fence(Release);
        for outcome in outcomes {
            let status = match *outcome {
                Outcome::Done => 0,
                Outcome::Unloaded => flushed,
                Outcome::Failed(error) => error.number(),
            };
            failed += u32::from(status != 0);
            let Some(line) = self.lines.get(at & mask) else { break };
            line[word!(status)].set(u64::from(status.cast_unsigned()) << 32);
            at = at.wrapping_add(1);
        }
        (u32::try_from(self.done).unwrap_or(0), failed)
    }
}

/// Does one entry, all but its flush.
#[inline]
fn entry<W: Word>(maps: &mut impl Maps, line: &[W; LINE]) -> Result<Outcome, Refusal> {
    let [op, op_high, direction, count, ..] = line[word!(op)].get().to_le_bytes();
    let map = Handle::from_register(line[word!(handle)].get());
    let is_sound = line[word!(flags)].get() == 0;
    let op = Op::from_number(u16::from_le_bytes([op, op_high])).filter(|_| is_sound).ok_or(Error::Invalid)?;
    match op {
        Op::Load => {
            let direction = Direction::from_number(direction.into()).ok_or(Error::Invalid)?;
            match count {
                0 => Err(Error::Invalid)?,
                1 => load::<1, W>(maps, map, direction, line)?,
                2 => load::<2, W>(maps, map, direction, line)?,
                3 => load::<3, W>(maps, map, direction, line)?,
                4 => load::<4, W>(maps, map, direction, line)?,
                _ => Err(Error::TooManySegments)?,
            }
            Ok(Outcome::Done)
        }
        Op::Unload | Op::Nop if (direction, count) != (0, 0) => Err(Error::Invalid)?,
        Op::Unload => maps.unload(map).map(|()| Outcome::Unloaded),
        Op::Nop => Ok(Outcome::Done),
    }
}

#[inline]
fn load<const N: usize, W: Word>(
    maps: &mut impl Maps,
    map: Handle,
    direction: Direction,
    line: &[W; LINE],
) -> Result<(), Refusal> {
    let word = |segment: usize, field: usize| &line[word!(segments) + segment * SEGMENT + field];
    let segments = core::array::from_fn(|at| Segment { ipa: word(at, 0).get(), bytes: word(at, 1).get(), iova: 0 });
    let iovas: [u64; N] = maps.load(map, direction, segments)?;
    for (at, iova) in iovas.into_iter().enumerate() {
        word(at, 2).set(iova);
    }
    Ok(())
}

/// A channel's own calls as what entries need.
struct ByCalls<'a, C>(&'a mut C);

impl<C: Channel> Maps for ByCalls<'_, C> {
    fn load<const N: usize>(
        &mut self,
        map: Handle,
        direction: Direction,
        mut segments: [Segment; N],
    ) -> Result<[u64; N], Refusal> {
        self.0.load(map, direction, &mut segments)?;
        Ok(segments.map(|segment| segment.iova))
    }

    fn unload(&mut self, map: Handle) -> Result<(), Refusal> {
        Ok(self.0.unload(map)?)
    }
}
