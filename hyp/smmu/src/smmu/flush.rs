//! Flushes: submitted with one write of PROD, waited for by ticket, shared by those who come late.

use bulkhead_core::{
    addr::PAGE_SIZE,
    ids::{SmmuId, Vmid},
    vplat::VMS_MAX,
};

use super::Smmu;
use crate::{
    command::Command,
    error::Error,
    platform::Platform,
    ticket::{Failed, Invalidation, Kind, Mark, Progress, Synced, Ticket},
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
}

/// What is counted of one VMID: one store for a flush of one command.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Flushes of one command, by its [`Kind`].
    single: [u64; 3],
    /// Commands of the others, and their CMD_SYNCs.
    several: [u64; 3],
    syncs: u64,
    rides: u64,
}

impl Tally {
    pub(super) fn counters(&self) -> VmidCounters {
        let [pages, ranges, contexts] = [0, 1, 2].map(|kind| self.single[kind] + self.several[kind]);
        let syncs = self.single.iter().sum::<u64>() + self.syncs;
        VmidCounters { pages, ranges, contexts, syncs, rides: self.rides }
    }
}

/// Tallies by VMID. Those of VMs each have their own; what is beyond shares.
pub(super) type Tallies = [Tally; 16];

#[inline]
const fn tally_of(tallies: &mut Tallies, vmid: Vmid) -> &mut Tally {
    const { assert!(VMS_MAX < 16) };
    &mut tallies[(vmid.as_u16() & 15) as usize]
}

/// Where the progress of a queue that nobody else looks at goes.
pub(super) static UNSHARED: Progress = Progress::new();

/// The last flush that was submitted, for those that may ride on it: its command as encoded, which is all that the
/// submission has at hand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Last {
    words: [u64; 2],
    /// Position of the command; the flush ends after the CMD_SYNC behind it. Zero, the first that take-over sent, is
    /// no flush.
    start: u64,
}

/// First address and one past the last of a flush by the command of these words, all of one VMID.
fn extent([low, high]: [u64; 2]) -> (u64, u64) {
    if low & 0xff == Command::OP_TLBI_S12_VMALL {
        return (0, u64::MAX);
    }
    let start = high & Command::IPA_MASK;
    // Without a range both fields are zero: one page.
    let pages = ((low >> 12 & 31) + 1) << (low >> 20 & 31);
    (start, start.saturating_add(pages.saturating_mul(PAGE_SIZE)))
}

/// Whether a flush by `one` does what `other` asks for.
fn does_cover(one: [u64; 2], other: [u64; 2]) -> bool {
    let vmid = |words: [u64; 2]| words[0] >> 32;
    // CMD_TLBI_S12_VMALL has the bit as zero: tables do not stay.
    let is_leaf = |words: [u64; 2]| words[1] & 1 != 0;
    let (mine, wanted) = (extent(one), extent(other));
    vmid(one) == vmid(other) && mine.0 <= wanted.0 && wanted.1 <= mine.1 && (!is_leaf(one) || is_leaf(other))
}

impl<P: Platform> Smmu<P> {
    /// Lets CPUs that do not hold the driver's lock see how far the queue is.
    pub fn share(&mut self, progress: &'static Progress) {
        progress.note_submitted(self.cmdq.position());
        self.progress = progress;
    }

    /// Flushes of `vmid` so far.
    pub fn vmid_counters(&self, vmid: Vmid) -> VmidCounters {
        self.tallies[usize::from(vmid.as_u16() & 15)].counters()
    }

    /// Sends one invalidation and its CMD_SYNC by one write of PROD, and waits for nothing but room in the queue.
    ///
    /// The stores to the tables were made before, and cleaned where the SMMU is not coherent; the barrier is here. With
    /// a `mark` taken after them, a flush of another that was submitted since and covers this one is shared: nothing
    /// is sent, the ticket is for its SYNC. After an error the streams of `vmid` are quarantined.
    #[inline(always)]
    pub fn submit(&mut self, vmid: Vmid, what: Invalidation, mark: Mark) -> Result<Ticket, Failed> {
        let (command, kind) = what.command(vmid, true);
        let words @ [low, high] = command.encode();
        let has_command = kind != Kind::Range || self.features.has_range_invalidation;
        // Nothing was submitted since the mark: there is nothing to ride on.
        let start = if has_command
            && mark.0 >= self.cmdq.position()
            && let progress = self.progress
            && let Some(start) = self.cmdq.send_at_once(&mut self.platform, words, |end| progress.note_submitted(end))
        {
            self.note(vmid, Last { words, start }, kind);
            start
        } else {
            self.submit_slowly(vmid, low, high, kind, mark)?
        };
        Ok(Ticket { smmu: self.id, vmid, start, count: 2, since_us: Ticket::NEVER })
    }

    /// Rides on another's flush, or sends one where there is more to look at: the position of the command.
    #[cold]
    #[inline(never)]
    fn submit_slowly(&mut self, vmid: Vmid, low: u64, high: u64, kind: Kind, mark: Mark) -> Result<u64, Failed> {
        let (words, kind) = if kind == Kind::Range && !self.features.has_range_invalidation {
            (Command::TlbiS12Vmall { vmid }.encode(), Kind::Context)
        } else {
            ([low, high], kind)
        };
        if let Some(start) = self.ride(vmid, words, mark) {
            return Ok(start);
        }
        let progress = self.progress;
        let tell = |end| progress.note_submitted(end);
        let sent = match self.cmdq.send_at_once(&mut self.platform, words, tell) {
            Some(start) => Ok(start),
            None => self.cmdq.send(&mut self.platform, words, tell),
        };
        match sent {
            Ok(start) => {
                self.note(vmid, Last { words, start }, kind);
                Ok(start)
            }
            Err(error) => Err(self.fail(vmid, error)),
        }
    }

    /// A flush of one command was sent.
    #[inline(always)]
    fn note(&mut self, vmid: Vmid, last: Last, kind: Kind) {
        self.last = last;
        let count = &mut tally_of(&mut self.tallies, vmid).single[kind as usize];
        *count = count.wrapping_add(1);
    }

    /// Why a flush failed: to be asked before the driver is let go.
    pub const fn reason(&self, _: &Failed) -> Error {
        self.failure
    }

    /// As [`submit`](Self::submit) for several invalidations, at most a queue-full with their CMD_SYNC; more than that
    /// become a flush of the whole VMID.
    pub fn submit_all(
        &mut self,
        vmid: Vmid,
        what: impl Iterator<Item = Invalidation> + Clone,
    ) -> Result<Ticket, Failed> {
        if what.clone().nth(self.cmdq.capacity()).is_some() {
            return self.submit(vmid, Invalidation::Context, Mark::NEVER);
        }
        let has_ranges = self.features.has_range_invalidation;
        let tally = tally_of(&mut self.tallies, vmid);
        let commands = what.map(|what| {
            let (command, kind) = what.command(vmid, has_ranges);
            tally.several[kind as usize] += 1;
            command
        });
        let progress = self.progress;
        let tell = |position| progress.note_submitted(position);
        match self.cmdq.send_all(&mut self.platform, commands, tell) {
            Ok(start) => {
                // A queue holds at most 2^19 commands.
                let count = u32::try_from(self.cmdq.position().wrapping_sub(start)).unwrap_or(u32::MAX);
                tally_of(&mut self.tallies, vmid).syncs += 1;
                Ok(Ticket { smmu: self.id, vmid, start, count, since_us: Ticket::NEVER })
            }
            Err(error) => Err(self.fail(vmid, error)),
        }
    }

    /// The proof, if the ticket's SYNC is complete; `None` if it is not yet. The queue is looked at once: a caller that
    /// gets `None` lets go of the lock before it asks again. The first `None` starts the ticket's time; once that is
    /// up the answer is an error, and the streams of its VMID are quarantined.
    #[inline]
    pub fn poll(&mut self, ticket: &mut Ticket) -> Result<Option<Synced>, Failed> {
        if self.is_surely_done(ticket.smmu) {
            return Ok(Some(Synced::new(ticket)));
        }
        self.poll_slowly(ticket)
    }

    /// Polls until the ticket's SYNC is complete or its time is up, holding the driver all the while.
    #[inline]
    pub fn wait(&mut self, ticket: Ticket) -> Result<Synced, Failed> {
        if self.is_surely_done(ticket.smmu) {
            return Ok(Synced::new(&ticket));
        }
        // Taken apart, so that it need not be in memory for this.
        let Ticket { smmu, vmid, start, count, since_us } = ticket;
        self.wait_slowly(smmu, vmid, start, count, since_us)
    }

    /// Whether everything that was ever submitted is done, by one look at the queue.
    #[inline]
    fn is_surely_done(&mut self, smmu: SmmuId) -> bool {
        if smmu != self.id || !self.cmdq.is_drained(&mut self.platform) {
            return false;
        }
        self.progress.note_completed(self.cmdq.done());
        true
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
        let mut ticket = Ticket { smmu, vmid, start, count, since_us };
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
                    self.progress.note_completed(self.cmdq.done());
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
        let Last { words: sent, start } = self.last;
        if start == 0 || start < mark.0 || start < self.cmdq.suspect_below() || !does_cover(sent, words) {
            return None;
        }
        tally_of(&mut self.tallies, vmid).rides += 1;
        Some(start)
    }

    #[cold]
    fn fail(&mut self, vmid: Vmid, error: Error) -> Failed {
        self.quarantine_vmid(vmid);
        self.failure = error;
        Failed(())
    }
}
