//! Flushes: submitted with one write of PROD, waited for by ticket, shared by those who come late.

use bulkhead_core::{addr::PAGE_SIZE, ids::Vmid};

use super::Smmu;
use crate::{
    command::Command,
    error::Error,
    platform::Platform,
    ticket::{Invalidation, Mark, Progress, Synced, Ticket},
};

/// Flushes of one VMID, by their commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VmidCounters {
    /// CMD_TLBI_S2_IPA of a page.
    pub pages: u64,
    /// CMD_TLBI_S2_IPA of a range.
    pub ranges: u64,
    /// CMD_TLBI_S12_VMALL.
    pub contexts: u64,
    /// CMD_SYNC, each with one write of PROD.
    pub syncs: u64,
    /// Flushes that another's SYNC did.
    pub rides: u64,
}

impl VmidCounters {
    /// Invalidation commands.
    pub const fn commands(&self) -> u64 {
        self.pages + self.ranges + self.contexts
    }

    #[inline]
    const fn note(&mut self, command: Command) {
        let kind = match command {
            Command::TlbiS2Ipa { .. } => &mut self.pages,
            Command::TlbiS2IpaRange { .. } => &mut self.ranges,
            _ => &mut self.contexts,
        };
        *kind = kind.wrapping_add(1);
    }
}

/// The last flush that was submitted, for those that may ride on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Last {
    command: Command,
    /// Position of the command; the flush ends after the CMD_SYNC behind it.
    start: u64,
}

impl Default for Last {
    /// Covers nothing.
    fn default() -> Self {
        Self { command: Command::Sync, start: 0 }
    }
}

/// The addresses of a flush: VMID, first, one past the last, and whether tables may stay cached.
const fn extent(command: Command) -> Option<(Vmid, u64, u64, bool)> {
    match command {
        Command::TlbiS12Vmall { vmid } => Some((vmid, 0, u64::MAX, false)),
        Command::TlbiS2Ipa { vmid, ipa, is_leaf } => {
            let start = ipa.align_down(PAGE_SIZE).as_u64();
            Some((vmid, start, start.saturating_add(PAGE_SIZE), is_leaf))
        }
        Command::TlbiS2IpaRange { vmid, ipa, num, scale, is_leaf } => {
            let bytes = ((num as u64 + 1) << scale).saturating_mul(PAGE_SIZE);
            let start = ipa.align_down(PAGE_SIZE).as_u64();
            Some((vmid, start, start.saturating_add(bytes), is_leaf))
        }
        _ => None,
    }
}

/// Whether a flush by `one` does what `other` asks for.
fn does_cover(one: Command, other: Command) -> bool {
    let (Some(one), Some(other)) = (extent(one), extent(other)) else { return false };
    let (same, is_whole) = (one.0 == other.0, one.1 <= other.1 && other.2 <= one.2);
    same && is_whole && (!one.3 || other.3)
}

impl<P: Platform> Smmu<P> {
    /// Lets CPUs that do not hold the driver's lock see how far the queue is.
    pub fn share(&mut self, progress: &'static Progress) {
        progress.note_submitted(self.cmdq.position());
        progress.note_completed(self.cmdq.done(), self.cmdq.suspect_below());
        self.progress = Some(progress);
    }

    /// Flushes of `vmid` so far.
    pub fn vmid_counters(&self, vmid: Vmid) -> VmidCounters {
        self.vmids.get(usize::from(vmid.as_u16())).or(self.vmids.first()).copied().unwrap_or_default()
    }

    /// Sends one invalidation and its CMD_SYNC by one write of PROD, and waits for nothing but room in the queue.
    ///
    /// The stores to the tables were made before, and cleaned where the SMMU is not coherent; the barrier is here. With
    /// a `mark` taken after them, a flush of another that was submitted since and covers this one is shared: nothing
    /// is sent, the ticket is for its SYNC. After an error the streams of `vmid` are quarantined.
    #[inline]
    pub fn submit(&mut self, vmid: Vmid, what: Invalidation, mark: Mark) -> Result<Ticket, Error> {
        let command = what.command(vmid, self.features.has_range_invalidation);
        if mark.0 <= self.last.start
            && let Some(ticket) = self.ride(vmid, command)
        {
            return Ok(ticket);
        }
        let progress = self.progress;
        let tell = |position| {
            if let Some(progress) = progress {
                progress.note_submitted(position);
            }
        };
        if let Err(error) = self.cmdq.send(&mut self.platform, command.encode(), tell) {
            return Err(self.fail(vmid, error));
        }
        let end = self.cmdq.position();
        let start = end.wrapping_sub(2);
        self.last = Last { command, start };
        let counters = Self::counters_of(&mut self.vmids, vmid);
        counters.note(command);
        counters.syncs = counters.syncs.wrapping_add(1);
        Ok(Ticket { smmu: self.id, vmid, start, end, since_us: None })
    }

    /// As [`submit`](Self::submit) for several invalidations, at most a queue-full with their CMD_SYNC; more than that
    /// become a flush of the whole VMID.
    pub fn submit_all(
        &mut self,
        vmid: Vmid,
        what: impl Iterator<Item = Invalidation> + Clone,
    ) -> Result<Ticket, Error> {
        if what.clone().nth(self.cmdq.capacity()).is_some() {
            return self.submit(vmid, Invalidation::Context, Mark::NEVER);
        }
        let has_ranges = self.features.has_range_invalidation;
        let commands = what.map(|what| what.command(vmid, has_ranges));
        let counters = Self::counters_of(&mut self.vmids, vmid);
        let noted = commands.inspect(|command| counters.note(*command));
        let progress = self.progress;
        let tell = |position| {
            if let Some(progress) = progress {
                progress.note_submitted(position);
            }
        };
        match self.cmdq.send_all(&mut self.platform, noted, tell) {
            Ok(start) => {
                let end = self.cmdq.position();
                let counters = Self::counters_of(&mut self.vmids, vmid);
                counters.syncs = counters.syncs.wrapping_add(1);
                Ok(Ticket { smmu: self.id, vmid, start, end, since_us: None })
            }
            Err(error) => Err(self.fail(vmid, error)),
        }
    }

    /// The proof, if the ticket's SYNC is complete; `None` if it is not yet. The queue is looked at once: a caller that
    /// gets `None` lets go of the lock before it asks again. The first `None` starts the ticket's time; once that is
    /// up the answer is an error, and the streams of its VMID are quarantined.
    #[inline]
    pub fn poll(&mut self, ticket: &mut Ticket) -> Result<Option<Synced>, Error> {
        if self.cmdq.is_done(&mut self.platform, ticket.end) {
            return self.redeem(ticket).map(Some);
        }
        self.poll_slowly(ticket)
    }

    /// Polls until the ticket's SYNC is complete or its time is up, holding the driver all the while.
    #[inline]
    pub fn wait(&mut self, mut ticket: Ticket) -> Result<Synced, Error> {
        loop {
            if let Some(synced) = self.poll(&mut ticket)? {
                return Ok(synced);
            }
            self.platform.relax();
        }
    }

    #[cold]
    fn poll_slowly(&mut self, ticket: &mut Ticket) -> Result<Option<Synced>, Error> {
        let now_us = self.platform.now_us();
        let since_us = *ticket.since_us.get_or_insert(now_us);
        let is_late = now_us.saturating_sub(since_us) > self.cmdq.timeout_us();
        match self.cmdq.mend(&mut self.platform, ticket.end, is_late) {
            Ok(true) => self.redeem(ticket).map(Some),
            Ok(false) => Ok(None),
            Err(error) => Err(self.fail(ticket.vmid, error)),
        }
    }

    #[inline]
    fn redeem(&mut self, ticket: &Ticket) -> Result<Synced, Error> {
        let suspect_below = self.cmdq.suspect_below();
        if let Some(progress) = self.progress {
            progress.note_completed(self.cmdq.done(), suspect_below);
        }
        if ticket.start < suspect_below || ticket.smmu != self.id {
            return Err(self.fail(ticket.vmid, Error::FlushUnsure { vmid: ticket.vmid }));
        }
        Ok(Synced::new(ticket))
    }

    /// A ticket for the last flush, if it does what `command` asks for.
    #[cold]
    fn ride(&mut self, vmid: Vmid, command: Command) -> Option<Ticket> {
        let Last { command: sent, start } = self.last;
        if !does_cover(sent, command) || start < self.cmdq.suspect_below() {
            return None;
        }
        let counters = Self::counters_of(&mut self.vmids, vmid);
        counters.rides = counters.rides.wrapping_add(1);
        Some(Ticket { smmu: self.id, vmid, start, end: start.wrapping_add(2), since_us: None })
    }

    #[cold]
    fn fail(&mut self, vmid: Vmid, error: Error) -> Error {
        self.quarantine_vmid(vmid);
        error
    }

    #[inline]
    fn counters_of(vmids: &mut [VmidCounters; super::VMS_MAX + 1], vmid: Vmid) -> &mut VmidCounters {
        let index = usize::from(vmid.as_u16());
        &mut vmids[if index <= super::VMS_MAX { index } else { 0 }]
    }
}
