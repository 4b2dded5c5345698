//! Flushes: submitted with one write of PROD, waited for by ticket, shared by those who come late.

use bulkhead_core::{
    addr::PAGE_SIZE,
    ids::{SmmuId, Vmid},
    vplat::VMS_MAX,
};

use super::Smmu;
use crate::{
    cmdq::Sent,
    command::Command,
    error::Error,
    platform::Platform,
    ticket::{Failed, Invalidation, Kind, Mark, Progress, Synced, Ticket},
};

/// Flushes that another's SYNC did, by VMID: those of VMs each have their own, what is beyond shares.
pub(super) type Rides = [u64; 16];

/// Its place among those of VMs.
pub(super) const fn place(vmid: Vmid) -> usize {
    const { assert!(VMS_MAX < 16) };
    (vmid.as_u16() & 15) as usize
}

/// First address and one past the last of a flush by the command of these words, all of one VMID; none if they are no
/// such command's.
fn extent([low, high]: [u64; 2]) -> Option<(u64, u64)> {
    match low & 0xff {
        Command::OP_TLBI_S12_VMALL => Some((0, u64::MAX)),
        Command::OP_TLBI_S2_IPA => {
            let start = high & Command::IPA_MASK;
            // Without a range both fields are zero: one page.
            let pages = ((low >> 12 & 31) + 1) << (low >> 20 & 31);
            Some((start, start.saturating_add(pages.saturating_mul(PAGE_SIZE))))
        }
        _ => None,
    }
}

/// Whether a flush by `one` does what `other` asks for.
fn does_cover(one: [u64; 2], other: [u64; 2]) -> bool {
    let vmid = |words: [u64; 2]| words[0] >> 32;
    // CMD_TLBI_S12_VMALL has the bit as zero: tables do not stay.
    let is_leaf = |words: [u64; 2]| words[1] & 1 != 0;
    let Some((mine, wanted)) = extent(one).zip(extent(other)) else { return false };
    vmid(one) == vmid(other) && mine.0 <= wanted.0 && wanted.1 <= mine.1 && (!is_leaf(one) || is_leaf(other))
}

impl<P: Platform> Smmu<P> {
    /// Lets CPUs that do not hold the driver's lock see how far the queue is.
    pub fn share(&mut self, progress: &'static Progress) {
        self.cmdq.share(progress);
    }

    /// Flushes of `vmid` so far that another's SYNC did.
    pub fn rides(&self, vmid: Vmid) -> u64 {
        self.rides[place(vmid)]
    }

    /// Sends one invalidation and its CMD_SYNC by one write of PROD, and looks once whether they are complete. Waits
    /// for nothing but room in the queue.
    ///
    /// The stores to the tables were made before, and cleaned where the SMMU is not coherent; the barrier is here. With
    /// a `mark` taken after them, a flush of another that was submitted since and covers this one is shared: nothing
    /// is sent, the ticket is for its SYNC. After an error the streams of `vmid` are quarantined.
    #[inline(always)]
    pub fn submit(&mut self, vmid: Vmid, what: Invalidation, mark: Mark) -> Result<Ticket, Failed> {
        let (command, kind) = what.command(vmid, true);
        let words @ [low, high] = command.encode();
        let Sent { start, is_complete } = match self.cmdq.send_at_once(&mut self.platform, words, kind, mark) {
            Some(sent) => sent,
            None => self.submit_slowly(vmid, high, low, kind, mark)?,
        };
        Ok(Ticket { smmu: self.id, vmid, start, count: 2, is_complete, since_us: Ticket::NEVER })
    }

    /// Rides on another's flush, or sends one where there is more to look at.
    #[cold]
    #[inline(never)]
    fn submit_slowly(&mut self, vmid: Vmid, high: u64, low: u64, kind: Kind, mark: Mark) -> Result<Sent, Failed> {
        let is_wide = kind == Kind::Range && !self.features.has_range_invalidation;
        let words =
            if is_wide || self.had_stage1(vmid) { Command::TlbiS12Vmall { vmid }.encode() } else { [low, high] };
        if let Some(start) = self.ride(vmid, words, mark) {
            return Ok(Sent { start, is_complete: self.cmdq.is_drained(&mut self.platform) });
        }
        let sent = self.cmdq.send(&mut self.platform, words);
        sent.map_err(|error| self.fail(vmid, error))
    }

    /// Why a flush failed: to be asked before the driver is let go.
    pub const fn reason(&self, _: &Failed) -> Error {
        self.failure
    }

    /// As [`submit`](Self::submit) for several invalidations, at most a queue-full with their CMD_SYNC; more than that
    /// become a flush of the whole VMID, and so do any of a VMID that had a guest's stage 1: flushes by IPA need not forget
    /// translations of both stages in one (16.2.1).
    pub fn submit_all(
        &mut self,
        vmid: Vmid,
        what: impl Iterator<Item = Invalidation> + Clone,
    ) -> Result<Ticket, Failed> {
        if what.clone().nth(self.cmdq.capacity()).is_some() || self.had_stage1(vmid) {
            return self.submit(vmid, Invalidation::Context, Mark::NEVER);
        }
        let has_ranges = self.features.has_range_invalidation;
        let commands = what.map(|what| what.command(vmid, has_ranges).0);
        match self.cmdq.send_all(&mut self.platform, commands) {
            Ok(start) => {
                self.cmdq.count_batch(start, 0);
                Ok(self.ticket(vmid, start, false))
            }
            Err(error) => Err(self.fail(vmid, error)),
        }
    }

    /// The proof, if the ticket's SYNC is complete; `None` if it is not yet. The queue is looked at once: a caller that
    /// gets `None` lets go of the lock before it asks again. The first `None` starts the ticket's time; once that is
    /// up the answer is an error, and the streams of its VMID are quarantined.
    #[inline]
    pub fn poll(&mut self, ticket: &mut Ticket) -> Result<Option<Synced>, Failed> {
        if ticket.is_complete {
            return Ok(Some(Synced::new(ticket)));
        }
        self.poll_slowly(ticket)
    }

    /// Polls until the ticket's SYNC is complete or its time is up, holding the driver all the while.
    #[inline]
    pub fn wait(&mut self, ticket: Ticket) -> Result<Synced, Failed> {
        if ticket.is_complete {
            return Ok(Synced::new(&ticket));
        }
        // Taken apart, so that it need not be in memory for this.
        let Ticket { smmu, vmid, start, count, since_us, .. } = ticket;
        self.wait_slowly(smmu, vmid, start, count, since_us)
    }

    #[cold]
    #[inline(never)]
    fn wait_slowly(
        &mut self,
        smmu: SmmuId,
        vmid: Vmid,
        start: u64,
        count: u32,
        since_us: u64,
    ) -> Result<Synced, Failed> {
        let mut ticket = Ticket { smmu, vmid, start, count, is_complete: false, since_us };
        loop {
            if let Some(synced) = self.poll_slowly(&mut ticket)? {
                return Ok(synced);
            }
            self.platform.relax();
        }
    }

    #[cold]
    fn poll_slowly(&mut self, ticket: &mut Ticket) -> Result<Option<Synced>, Failed> {
        let now_us = self.platform.now_us();
        ticket.since_us = ticket.since_us.min(now_us);
        let is_late = now_us.saturating_sub(ticket.since_us) > self.cmdq.timeout_us();
        match self.cmdq.mend(&mut self.platform, ticket.end(), is_late) {
            Ok(true) if ticket.start >= self.cmdq.suspect_below() && ticket.smmu == self.id => {
                if self.cmdq.suspect_below() == 0 {
                    self.cmdq.progress().note_completed(self.cmdq.done());
                }
                Ok(Some(Synced::new(ticket)))
            }
            Ok(true) => Err(self.fail(ticket.vmid, Error::FlushUnsure { vmid: ticket.vmid })),
            Ok(false) => Ok(None),
            Err(error) => Err(self.fail(ticket.vmid, error)),
        }
    }

    /// Position of the last flush's command, if it does what `words` ask for.
    fn ride(&mut self, vmid: Vmid, words: [u64; 2], mark: Mark) -> Option<u64> {
        let (start, sent) = self.cmdq.last(&mut self.platform)?;
        if start < mark.0 || start < self.cmdq.suspect_below() || !does_cover(sent, words) {
            return None;
        }
        self.rides[place(vmid)] += 1;
        Some(start)
    }

    /// The ticket of what was sent from `start` on.
    pub(super) fn ticket(&self, vmid: Vmid, start: u64, is_complete: bool) -> Ticket {
        // A queue holds at most 2^19 commands.
        let count = u32::try_from(self.cmdq.position().wrapping_sub(start)).unwrap_or(u32::MAX);
        Ticket { smmu: self.id, vmid, start, count, is_complete, since_us: Ticket::NEVER }
    }

    #[cold]
    pub(super) fn fail(&mut self, vmid: Vmid, error: Error) -> Failed {
        self.quarantine_vmid(vmid);
        self.failure = error;
        Failed(())
    }
}
