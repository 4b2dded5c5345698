//! The command queue: batches, each ended by one CMD_SYNC and waited for (IHI 0070 3.5, 4.7, 7.1).

use core::fmt;

use bulkhead_core::addr::PhysAddr;

use crate::{
    command::{COMMAND_BYTES, Command, Kind},
    error::Error,
    gerror::Gerror,
    platform::Platform,
    registers::{CMDQ_CONS, offset},
    ticket::{self, Mark, Progress},
};

/// CMDQ_CONS.ERR: why the SMMU stopped at a command (7.1, table 7-1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum CommandError {
    /// CERROR_NONE: an error with no reason given.
    None,
    /// CERROR_ILL: an unknown command, or a field with a value that is not allowed.
    Illegal,
    /// CERROR_ABT: the command could not be read from memory.
    Abort,
    /// CERROR_ATC_INV_SYNC: a device did not answer an ATC invalidation in time.
    AtcInvSync,
    /// A value that the specification keeps for later.
    Unknown(u8),
}

impl CommandError {
    pub(crate) fn from_cons(cons: u32) -> Self {
        match CMDQ_CONS::ERR.read(cons) {
            0 => Self::None,
            1 => Self::Illegal,
            2 => Self::Abort,
            3 => Self::AtcInvSync,
            other => Self::Unknown(u8::try_from(other).unwrap_or(u8::MAX)),
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("CERROR_NONE"),
            Self::Illegal => f.write_str("CERROR_ILL, illegal command"),
            Self::Abort => f.write_str("CERROR_ABT, the command could not be read"),
            Self::AtcInvSync => f.write_str("CERROR_ATC_INV_SYNC, a device did not answer"),
            Self::Unknown(code) => write!(f, "CERROR {code:#x}"),
        }
    }
}

/// Commands sent, by kind, since take-over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CommandCounters {
    /// CMD_CFGI_*.
    pub configuration: u64,
    /// CMD_TLBI_*.
    pub tlb: u64,
    /// CMD_SYNC that completed.
    pub syncs: u64,
    /// Commands that the SMMU refused.
    pub refused: u64,
    /// Waits that ran out of time.
    pub timeouts: u64,
}

/// The producer's side of the command queue. Positions are counted from take-over and never wrap.
// In this order what a flush reads is loaded by pairs.
#[repr(C)]
pub(crate) struct Cmdq {
    /// Position of the next command.
    put: u64,
    /// How far flushes go in at once.
    at_once: AtOnce,
    /// Mask of an index with its wrap bit, as PROD and CONS have it.
    index_mask: u64,
    /// Where position 0 would be for the slots of this lap to follow it without a wrap.
    lap_base: u64,
    /// Where others see how far the queue is.
    progress: &'static Progress,
    /// Commands that were seen to be consumed.
    done: u64,
    /// Position that the next command must stay below.
    limit: u64,
    /// One past the last command that was refused: what was submitted before, and not known to be complete, is not
    /// relied upon.
    suspect_below: u64,
    base: PhysAddr,
    /// Mask of an offset into the queue, in bytes.
    offset_mask: u64,
    is_coherent: bool,
    has_ranges: bool,
    /// A wait ran out of time: the queue has to be seen empty before anything else is put in.
    is_stuck: bool,
    timeout_us: u64,
    /// Commands of batches, their CMD_SYNCs included: all other commands are pairs of one invalidation and its CMD_SYNC.
    batched: u64,
    counters: CommandCounters,
    /// How far a command and its CMD_SYNC go in at once for those who look at the rest first.
    lap_last: i64,
    /// The TLB may hold translations of both stages in one: flushes by IPA have to be looked at.
    is_nested: bool,
}

/// Last position from which a command and its CMD_SYNC go in at once: in this lap, with room for them. [`NOWHERE`] where
/// lines have to be cleaned, or where a stream has a stage 1.
#[derive(Clone, Copy)]
#[repr(C)]
struct AtOnce {
    /// Of a command with a range; nowhere without such commands, too.
    range: i64,
    /// Of any other.
    other: i64,
}

/// Before every position.
const NOWHERE: i64 = -1;

/// A flush that went in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sent {
    /// Position of its command.
    pub(crate) start: u64,
    /// Whether it was seen complete at once.
    pub(crate) is_complete: bool,
}

/// What a queue has to know of its SMMU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct QueueFeatures {
    /// The SMMU sees the CPU's stores without a clean.
    pub(crate) is_coherent: bool,
    /// It knows commands with a range.
    pub(crate) has_ranges: bool,
}

/// Where the progress of a queue that nobody else looks at goes.
static UNSHARED: Progress = Progress::new();

const SYNC: [u64; 2] = Command::Sync.encode();

/// How often an error may come back in one wait before the queue is given up.
const MAX_ERRORS: u32 = 4;

impl Cmdq {
    /// An empty queue of `2^log2` commands at `base`, aligned to its size.
    pub(crate) fn new(base: PhysAddr, log2: u8, features: QueueFeatures, timeout_us: u64) -> Self {
        let mut queue = Self {
            put: 0,
            at_once: AtOnce { range: NOWHERE, other: NOWHERE },
            index_mask: (2 << log2) - 1,
            lap_base: 0,
            progress: &UNSHARED,
            done: 0,
            limit: 1 << log2,
            suspect_below: 0,
            base,
            offset_mask: (COMMAND_BYTES << log2) - 1,
            is_coherent: features.is_coherent,
            has_ranges: features.has_ranges,
            is_stuck: false,
            timeout_us,
            batched: 0,
            counters: CommandCounters::default(),
            lap_last: NOWHERE,
            is_nested: false,
        };
        queue.plan();
        queue
    }

    /// Finds how far [`send_at_once`](Self::send_at_once) can go from here.
    fn plan(&mut self) {
        let lap = self.put & !(self.entries() - 1);
        self.lap_base = self.base.as_u64().wrapping_sub(lap.wrapping_mul(COMMAND_BYTES));
        let end = self.limit.min(lap.wrapping_add(self.entries())).cast_signed();
        self.lap_last = if self.is_coherent { end - 2 } else { NOWHERE };
        let other = if self.is_nested { NOWHERE } else { self.lap_last };
        self.at_once = AtOnce { range: if self.has_ranges { other } else { NOWHERE }, other };
    }

    #[inline]
    const fn entries(&self) -> u64 {
        (self.offset_mask / COMMAND_BYTES) + 1
    }

    /// A position as PROD and CONS have it: the index with its wrap bit above.
    #[inline]
    const fn register(&self, position: u64) -> u32 {
        let [a, b, c, d, ..] = (position & self.index_mask).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    #[inline]
    fn slot(&self, position: u64) -> PhysAddr {
        const SHIFT: u32 = COMMAND_BYTES.trailing_zeros();
        // The queue is aligned to its size.
        PhysAddr::new(self.base.as_u64() | (position.wrapping_shl(SHIFT) & self.offset_mask))
    }

    /// Lets others see how far the queue is.
    pub(crate) fn share(&mut self, progress: &'static Progress) {
        progress.note_submitted(self.put);
        self.progress = progress;
    }

    /// Where others see it.
    pub(crate) const fn progress(&self) -> &'static Progress {
        self.progress
    }

    /// Position of the next command.
    #[inline]
    pub(crate) const fn position(&self) -> u64 {
        self.put
    }

    /// Sends one command and its CMD_SYNC by one write of PROD, where nothing has to be looked at first and nothing was
    /// sent since `mark`, and looks once whether they are complete.
    #[inline(always)]
    pub(crate) fn send_at_once<P: Platform>(
        &mut self,
        platform: &mut P,
        command: [u64; 2],
        kind: ticket::Kind,
        mark: Mark,
    ) -> Option<Sent> {
        let last = match kind {
            ticket::Kind::Range => self.at_once.range,
            ticket::Kind::Page | ticket::Kind::Context => self.at_once.other,
        };
        self.send_from(platform, command, last, mark)
    }

    /// The same, if it begins at or before position `last`.
    #[inline(always)]
    fn send_from<P: Platform>(&mut self, platform: &mut P, command: [u64; 2], last: i64, mark: Mark) -> Option<Sent> {
        const SHIFT: u32 = COMMAND_BYTES.trailing_zeros();
        let (start, lap_base, progress) = (self.put, self.lap_base, self.progress);
        let end = start.wrapping_add(2);
        // One branch for both, and both loads at once.
        if start.cast_signed() > mark.0.cast_signed().min(last) {
            return None;
        }
        let slot = lap_base.wrapping_add(start.wrapping_shl(SHIFT));
        Self::store(platform, PhysAddr::new(slot), command);
        Self::store(platform, PhysAddr::new(slot.wrapping_add(COMMAND_BYTES)), SYNC);
        self.put = end;
        // Others see the position before the SMMU sees the commands.
        progress.note_submitted(end);
        let prod = self.register(end);
        // The tables' stores and the entries are visible before PROD (3.5.1, 3.21.3).
        platform.barrier();
        platform.write32(offset::CMDQ_PROD, prod);
        // A refused command would have stopped the SMMU before its CMD_SYNC.
        Some(Sent { start, is_complete: platform.read32(offset::CMDQ_CONS) == prod })
    }

    /// The same for those who look at the rest first.
    #[inline(always)]
    pub(crate) fn send_in_lap<P: Platform>(&mut self, platform: &mut P, command: [u64; 2]) -> Option<Sent> {
        self.send_from(platform, command, self.lap_last, Mark::NEVER)
    }

    /// The same, once there is room, and with lines cleaned.
    #[cold]
    pub(crate) fn send<P: Platform>(&mut self, platform: &mut P, command: [u64; 2]) -> Result<Sent, Error> {
        if let Some(sent) = self.send_in_lap(platform, command) {
            return Ok(sent);
        }
        self.make_room(platform, 2)?;
        let start = self.put;
        self.push(platform, command);
        self.push(platform, SYNC);
        self.publish(platform);
        Ok(Sent { start, is_complete: self.is_drained(platform) })
    }

    /// Lets the SMMU see what was put in.
    fn publish<P: Platform>(&mut self, platform: &mut P) {
        self.progress.note_submitted(self.put);
        platform.barrier();
        platform.write32(offset::CMDQ_PROD, self.register(self.put));
    }

    /// The last command before the last CMD_SYNC, and its position.
    pub(crate) fn last<P: Platform>(&self, platform: &mut P) -> Option<(u64, [u64; 2])> {
        let position = self.put.checked_sub(2)?;
        let slot = self.slot(position);
        let high = PhysAddr::new(slot.as_u64().wrapping_add(8));
        Some((position, [platform.read_memory(slot), platform.read_memory(high)]))
    }

    /// Sends `commands`, at most a queue-full, and their CMD_SYNC, and waits for nothing but an empty queue. The
    /// position of the first.
    pub(crate) fn send_all<P: Platform>(
        &mut self,
        platform: &mut P,
        commands: impl Iterator<Item = Command>,
    ) -> Result<u64, Error> {
        let start = self.begin(platform)?;
        for command in commands.take(self.capacity()) {
            self.push(platform, command.encode());
        }
        self.finish(platform, start);
        Ok(start)
    }

    /// Starts a batch, in an empty queue: its length need not be known. The position of its first command.
    pub(crate) fn begin<P: Platform>(&mut self, platform: &mut P) -> Result<u64, Error> {
        self.make_room(platform, self.entries())?;
        Ok(self.put)
    }

    /// Goes back to a position in a batch that is not finished.
    pub(crate) const fn rewind(&mut self, position: u64) {
        self.put = position;
    }

    /// Ends the batch that began at `start` with its CMD_SYNC, and sends it.
    pub(crate) fn finish<P: Platform>(&mut self, platform: &mut P, start: u64) {
        self.push(platform, SYNC);
        self.batched = self.batched.wrapping_add(self.put.wrapping_sub(start));
        self.publish(platform);
    }

    /// Commands that one CMD_SYNC can follow.
    pub(crate) const fn capacity(&self) -> usize {
        (self.offset_mask / COMMAND_BYTES) as usize
    }

    /// Sends `commands` and one CMD_SYNC, then waits until the SMMU has completed them all.
    ///
    /// The batch is published by one write of PROD per queue-full of commands. `Ok` means that every effect of the
    /// commands is complete (4.7.3). After an error none may be relied upon; the queue stays usable.
    pub(crate) fn submit<P: Platform>(&mut self, platform: &mut P, commands: &[Command]) -> Result<(), Error> {
        let mut rest = commands;
        loop {
            let (batch, later) = rest.split_at(rest.len().min(self.capacity()));
            let start = self.send_all(platform, batch.iter().copied())?;
            for command in batch {
                match command.kind() {
                    Kind::Configuration => self.counters.configuration += 1,
                    Kind::Tlb => self.counters.tlb += 1,
                    Kind::Sync => {}
                }
            }
            self.wait(platform, start, self.put, batch)?;
            self.counters.syncs += 1;
            if later.is_empty() {
                return Ok(());
            }
            rest = later;
        }
    }

    /// Puts the next command of a batch in, of at most [`capacity`](Self::capacity).
    #[inline]
    pub(crate) fn push<P: Platform>(&mut self, platform: &mut P, command: [u64; 2]) {
        self.write_words(platform, self.slot(self.put), command);
        self.put += 1;
    }

    #[inline]
    fn store<P: Platform>(platform: &mut P, slot: PhysAddr, [low, high]: [u64; 2]) {
        platform.write_memory(slot, low);
        platform.write_memory(PhysAddr::new(slot.as_u64().wrapping_add(8)), high);
    }

    fn write_words<P: Platform>(&self, platform: &mut P, slot: PhysAddr, words: [u64; 2]) {
        Self::store(platform, slot, words);
        if !self.is_coherent {
            platform.clean(slot, COMMAND_BYTES);
        }
    }

    /// Waits until `count` commands fit. A queue that was given up has to be empty: whether its commands are refused
    /// is no matter, their caller was told of the failure already.
    #[cold]
    fn make_room<P: Platform>(&mut self, platform: &mut P, count: u64) -> Result<(), Error> {
        let began = platform.now_us();
        let mut errors = 0;
        loop {
            let is_late = platform.now_us().saturating_sub(began) > self.timeout_us;
            let refused = self.advance(platform, is_late, &mut errors)?;
            if self.put.wrapping_add(count) <= self.limit {
                return Ok(());
            }
            if let Some((_, reason)) = refused.filter(|_| errors > MAX_ERRORS) {
                return Err(Error::CommandRefused { command: Command::Sync, reason });
            }
            if refused.is_none() && is_late {
                return Err(self.give_up());
            }
            platform.relax();
        }
    }

    /// Whether everything that was put in was consumed, by one read of CONS. All of it is complete then that is not below
    /// [`suspect_below`](Self::suspect_below): a refused command stops the SMMU until [`advance`](Self::advance) sees it.
    pub(crate) fn is_drained<P: Platform>(&self, platform: &mut P) -> bool {
        platform.read32(offset::CMDQ_CONS) == self.register(self.put)
    }

    /// What was sent, batches of [`send_all`](Self::send_all) as far as their senders have counted them.
    pub(crate) const fn counters(&self) -> CommandCounters {
        let pairs = self.put.wrapping_sub(self.batched) / 2;
        let CommandCounters { configuration, tlb, syncs, refused, timeouts } = self.counters;
        CommandCounters { configuration, tlb: tlb + pairs, syncs: syncs + pairs, refused, timeouts }
    }

    /// Counts the batch sent last, which began at `start`: `configuration` commands, and invalidations of TLBs.
    pub(crate) const fn count_batch(&mut self, start: u64, configuration: u64) {
        self.counters.configuration += configuration;
        self.counters.tlb += self.put.wrapping_sub(start).saturating_sub(1 + configuration);
        self.counters.syncs += 1;
    }

    /// Whether there are streams with a guest's stage 1.
    pub(crate) const fn is_nested(&self) -> bool {
        self.is_nested
    }

    /// From now on there are streams with a guest's stage 1, or there are none.
    pub(crate) fn set_nested(&mut self, is_nested: bool) {
        self.is_nested = is_nested;
        self.plan();
    }

    /// Whether everything before position `end` is complete, mending what stopped the queue. An error when it does not
    /// go on any more, or when the caller's time is up.
    pub(crate) fn mend<P: Platform>(&mut self, platform: &mut P, end: u64, is_late: bool) -> Result<bool, Error> {
        let mut errors = 0;
        while let Some((_, reason)) = self.advance(platform, is_late, &mut errors)? {
            if errors > MAX_ERRORS {
                return Err(Error::CommandRefused { command: Command::Sync, reason });
            }
        }
        if self.done < end && is_late {
            return Err(self.give_up());
        }
        Ok(self.done >= end)
    }

    /// The position that CONS tells; past `put` when it tells nonsense.
    #[inline]
    fn consumed(&self, cons: u32) -> u64 {
        let ahead = u64::from(cons).wrapping_sub(self.done) & self.index_mask;
        self.done.wrapping_add(ahead)
    }

    /// Waits until everything before position `end` is complete. `start` is the position of `batch[0]`; without a
    /// batch, what is refused is told by the position alone.
    pub(crate) fn wait<P: Platform>(
        &mut self,
        platform: &mut P,
        start: u64,
        end: u64,
        batch: &[Command],
    ) -> Result<(), Error> {
        let began = platform.now_us();
        let mut first = None;
        let mut errors = 0;
        loop {
            let is_late = platform.now_us().saturating_sub(began) > self.timeout_us;
            let refused = self.advance(platform, is_late, &mut errors)?;
            if let Some((position, reason)) = refused {
                let place = usize::try_from(position.wrapping_sub(start)).unwrap_or(usize::MAX);
                let command = batch.get(place).copied().unwrap_or(Command::Sync);
                if position >= start {
                    first.get_or_insert(Error::CommandRefused { command, reason });
                }
                if errors > MAX_ERRORS {
                    // Left halted: nothing that follows is executed, and every later wait says so.
                    return Err(Error::CommandRefused { command, reason });
                }
                continue;
            }
            if self.done >= end {
                let reason = CommandError::None;
                let unsure =
                    (start < self.suspect_below).then_some(Error::CommandRefused { command: Command::Sync, reason });
                return first.or(unsure).map_or(Ok(()), Err);
            }
            if is_late {
                return Err(self.give_up());
            }
            platform.relax();
        }
    }

    /// Reads how far the SMMU is, and makes it go on after an error: which command was refused, and why. With `errors`
    /// past their limit it is left halted.
    fn advance<P: Platform>(
        &mut self,
        platform: &mut P,
        is_late: bool,
        errors: &mut u32,
    ) -> Result<Option<(u64, CommandError)>, Error> {
        let cons = platform.read32(offset::CMDQ_CONS);
        let consumed = self.consumed(cons);
        if consumed > self.put {
            return Err(Error::QueueCorrupt { cons, prod: self.register(self.put) });
        }
        self.done = consumed;
        self.is_stuck &= consumed != self.put;
        if !self.is_stuck {
            self.limit = consumed.wrapping_add(self.entries());
        }
        self.plan();
        // ERR keeps its last value: it says something only while CMDQ_ERR is active (6.3, SMMU_CMDQ_CONS).
        if consumed != self.put
            && (CMDQ_CONS::ERR.read(cons) != 0 || is_late)
            && Gerror::active(platform).contains(Gerror::CMDQ_ERR)
        {
            let reason = CommandError::from_cons(cons);
            self.suspect_below = consumed.wrapping_add(1);
            self.counters.refused += 1;
            *errors += 1;
            if *errors <= MAX_ERRORS {
                self.step_over(platform, consumed, reason);
            }
            return Ok(Some((consumed, reason)));
        }
        Ok(None)
    }

    fn give_up(&mut self) -> Error {
        self.counters.timeouts += 1;
        self.is_stuck = true;
        self.limit = self.put;
        self.plan();
        let (cons, prod) = (self.register(self.done), self.register(self.put));
        Error::QueueStuck { cons, prod, timeout_us: self.timeout_us }
    }

    /// Makes the SMMU go on after an error at `position` (7.1): a bad command becomes a CMD_SYNC, a command that could
    /// not be read is tried again, and the error is acknowledged.
    fn step_over<P: Platform>(&self, platform: &mut P, position: u64, reason: CommandError) {
        if reason != CommandError::Abort && reason != CommandError::AtcInvSync {
            self.write_words(platform, self.slot(position), SYNC);
        }
        platform.barrier();
        Gerror::acknowledge(platform, Gerror::CMDQ_ERR);
    }

    /// One past the last command that was refused.
    pub(crate) const fn suspect_below(&self) -> u64 {
        self.suspect_below
    }

    /// Commands that were seen to be consumed.
    pub(crate) const fn done(&self) -> u64 {
        self.done
    }

    /// The bound of a wait in microseconds.
    pub(crate) const fn timeout_us(&self) -> u64 {
        self.timeout_us
    }
}

#[cfg(test)]
mod tests;
