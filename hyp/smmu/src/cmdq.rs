//! The command queue: batches, each ended by one CMD_SYNC and waited for (IHI 0070 3.5, 4.7, 7.1).

use core::fmt;

use bulkhead_core::addr::PhysAddr;

use crate::{
    command::{COMMAND_BYTES, Command, Kind},
    error::Error,
    gerror::Gerror,
    platform::Platform,
    registers::{CMDQ_CONS, offset},
};

/// CMDQ_CONS.ERR: why the SMMU stopped at a command (7.1, table 7-1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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

/// The producer's side of the command queue.
pub(crate) struct Cmdq {
    base: PhysAddr,
    log2: u8,
    /// Write index with its wrap bit above, as CMDQ_PROD takes it.
    prod: u32,
    is_coherent: bool,
    timeout_us: u64,
    pub(crate) counters: CommandCounters,
}

/// How often an error may come back in one wait before the queue is given up.
const MAX_ERRORS: u32 = 4;

impl Cmdq {
    /// An empty queue of `2^log2` commands at `base`, aligned to its size.
    pub(crate) fn new(base: PhysAddr, log2: u8, is_coherent: bool, timeout_us: u64) -> Self {
        let counters = CommandCounters::default();
        Self { base, log2, prod: 0, is_coherent, timeout_us, counters }
    }

    const fn entries(&self) -> u32 {
        1 << self.log2
    }

    /// Mask of an index with its wrap bit.
    const fn index_mask(&self) -> u32 {
        (2 << self.log2) - 1
    }

    /// Entries from `from` up to `to`, both with wrap bits.
    const fn distance(&self, from: u32, to: u32) -> u32 {
        to.wrapping_sub(from) & self.index_mask()
    }

    fn slot(&self, index: u32) -> Option<PhysAddr> {
        self.base.checked_add(u64::from(index & (self.entries() - 1)) * COMMAND_BYTES)
    }

    /// Sends `commands` and one CMD_SYNC, then waits until the SMMU has completed them all.
    ///
    /// The batch is published by one write of PROD per queue-full of commands. `Ok` means that every effect of the
    /// commands is complete (4.7.3). After an error none may be relied upon; the queue stays usable.
    pub(crate) fn submit<P: Platform>(&mut self, platform: &mut P, commands: &[Command]) -> Result<(), Error> {
        // Every earlier command is done or given up before the queue is reused, so a batch starts in an empty queue.
        let per_batch = (self.entries() - 1) as usize;
        let mut rest = commands;
        loop {
            let (batch, later) = rest.split_at(rest.len().min(per_batch));
            self.drain(platform)?;
            let start = self.prod;
            for command in batch {
                self.push(platform, *command);
            }
            self.push(platform, Command::Sync);
            // The entries, and the structures that they speak of, are visible before PROD (3.5.1, 3.21.3).
            platform.barrier();
            platform.write32(offset::CMDQ_PROD, self.prod);
            self.wait(platform, start, batch)?;
            self.counters.syncs += 1;
            if later.is_empty() {
                return Ok(());
            }
            rest = later;
        }
    }

    fn push<P: Platform>(&mut self, platform: &mut P, command: Command) {
        self.write_slot(platform, self.prod, command);
        match command.kind() {
            Kind::Configuration => self.counters.configuration += 1,
            Kind::Tlb => self.counters.tlb += 1,
            Kind::Sync => {}
        }
        self.prod = self.prod.wrapping_add(1) & self.index_mask();
    }

    fn write_slot<P: Platform>(&self, platform: &mut P, index: u32, command: Command) {
        let Some(slot) = self.slot(index) else { return };
        let [low, high] = command.encode();
        platform.write_memory(slot, low);
        if let Some(upper) = slot.checked_add(8) {
            platform.write_memory(upper, high);
        }
        if !self.is_coherent {
            platform.clean(slot, COMMAND_BYTES);
        }
    }

    /// Waits for what a wait that ran out of time left behind; nothing to do otherwise. `Ok`: the queue is empty.
    fn drain<P: Platform>(&mut self, platform: &mut P) -> Result<(), Error> {
        if self.is_empty(platform) {
            return Ok(());
        }
        match self.wait(platform, self.prod, &[]) {
            // A command of the abandoned batch was refused: its caller was told of the failure already.
            Err(Error::CommandRefused { .. }) if self.is_empty(platform) => Ok(()),
            other => other,
        }
    }

    fn is_empty<P: Platform>(&self, platform: &mut P) -> bool {
        let cons = platform.read32(offset::CMDQ_CONS);
        CMDQ_CONS::RD.read(cons) & self.index_mask() == self.prod
    }

    /// Waits until CONS has reached PROD. `start` is the index of `batch[0]`.
    fn wait<P: Platform>(&mut self, platform: &mut P, start: u32, batch: &[Command]) -> Result<(), Error> {
        let began = platform.now_us();
        let mut refused = None;
        let mut errors = 0;
        loop {
            let is_late = platform.now_us().saturating_sub(began) > self.timeout_us;
            let cons = platform.read32(offset::CMDQ_CONS);
            let read_index = CMDQ_CONS::RD.read(cons) & self.index_mask();
            if read_index == self.prod {
                return refused.map_or(Ok(()), Err);
            }
            if self.distance(read_index, self.prod) > self.entries() {
                return Err(Error::QueueCorrupt { cons, prod: self.prod });
            }
            // ERR keeps its last value: it says something only while CMDQ_ERR is active (6.3, SMMU_CMDQ_CONS).
            if CMDQ_CONS::ERR.read(cons) != 0 || is_late {
                let active = Gerror::active(platform);
                if active.contains(Gerror::CMDQ_ERR) {
                    let reason = CommandError::from_cons(cons);
                    let place = self.distance(start, read_index) as usize;
                    let command = batch.get(place).copied().unwrap_or(Command::Sync);
                    refused.get_or_insert(Error::CommandRefused { command, reason });
                    self.counters.refused += 1;
                    errors += 1;
                    if errors > MAX_ERRORS {
                        // Left halted: nothing that follows is executed, and every later wait says so.
                        return refused.map_or(Ok(()), Err);
                    }
                    self.step_over(platform, read_index, reason);
                    continue;
                }
            }
            if is_late {
                self.counters.timeouts += 1;
                return Err(Error::QueueStuck { cons, prod: self.prod, timeout_us: self.timeout_us });
            }
            platform.relax();
        }
    }

    /// Makes the SMMU go on after an error at `index` (7.1): a bad command becomes a CMD_SYNC, a command that could
    /// not be read is tried again, and the error is acknowledged.
    fn step_over<P: Platform>(&self, platform: &mut P, index: u32, reason: CommandError) {
        if reason != CommandError::Abort && reason != CommandError::AtcInvSync {
            self.write_slot(platform, index, Command::Sync);
        }
        platform.barrier();
        Gerror::acknowledge(platform, Gerror::CMDQ_ERR);
    }
}

#[cfg(test)]
mod tests;
