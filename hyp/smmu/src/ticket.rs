//! A flush on its way: its ticket, the proof of its completion, and how far the queue is for those without the lock.

use core::sync::atomic::{AtomicU64, Ordering};

use bulkhead_core::{
    addr::Ipa,
    ids::{SmmuId, Vmid},
};

use crate::command::Command;

/// What of a VMID's stage-2 translations is to be forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalidation {
    /// One page.
    Page {
        /// Any address in it.
        ipa: Ipa,
        /// Whether entries above the last level may stay cached: not after a table was unlinked.
        is_leaf: bool,
    },
    /// `(num + 1) << scale` pages of 4 KiB. Where there are no range commands, everything of the VMID.
    Range {
        /// First address.
        ipa: Ipa,
        /// 0 to 31.
        num: u8,
        /// 0 to 31.
        scale: u8,
        /// See `Page`.
        is_leaf: bool,
    },
    /// Everything.
    Context,
}

impl Invalidation {
    /// The command for it, on an SMMU with range commands or without.
    #[inline(always)]
    pub(crate) const fn command(self, vmid: Vmid, has_ranges: bool) -> (Command, Kind) {
        match self {
            // NUM, SCALE and TTL all zero with TG is reserved (4.4.1.1).
            Self::Page { ipa, is_leaf } | Self::Range { ipa, num: 0, scale: 0, is_leaf } => {
                (Command::TlbiS2Ipa { vmid, ipa, is_leaf }, Kind::Page)
            }
            Self::Range { ipa, num, scale, is_leaf } if has_ranges => {
                (Command::TlbiS2IpaRange { vmid, ipa, num, scale, is_leaf }, Kind::Range)
            }
            Self::Range { .. } | Self::Context => (Command::TlbiS12Vmall { vmid }, Kind::Context),
        }
    }
}

/// An invalidation as sent: its place among a VMID's counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Page = 0,
    Range = 1,
    Context = 2,
}

/// A flush that was submitted. To be redeemed for its [`Synced`]; dropped, what it flushes stays unproven.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "nothing is flushed before the ticket's SYNC is complete"]
pub struct Ticket {
    pub(crate) smmu: SmmuId,
    pub(crate) vmid: Vmid,
    /// Position of its first command.
    pub(crate) start: u64,
    /// Its commands, its CMD_SYNC included.
    pub(crate) count: u32,
    /// Whether it was seen complete when it was submitted.
    pub(crate) is_complete: bool,
    /// When it was first found incomplete; [`Ticket::NEVER`] before.
    pub(crate) since_us: u64,
}

impl Ticket {
    pub(crate) const NEVER: u64 = u64::MAX;

    /// Whether its SYNC was seen complete when it was submitted.
    #[inline(always)]
    pub const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// One past the position of its CMD_SYNC.
    #[inline]
    pub(crate) const fn end(&self) -> u64 {
        self.start.wrapping_add(self.count as u64)
    }
}

/// A flush that failed; the driver still knows why ([`Smmu::reason`](crate::Smmu::reason)). Of no size, so that
/// flushes are answered in registers.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "the driver knows why"]
pub struct Failed(pub(crate) ());

/// Proof that the CMD_SYNC of a ticket is complete: what its commands name is forgotten, and every transaction that
/// used it has finished (IHI 0070 3.21.1). Only the driver makes it.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "pages may be reused only with this proof"]
// In the order in which a flush has them in registers.
#[repr(C)]
pub struct Synced {
    smmu: SmmuId,
    vmid: Vmid,
}

impl Synced {
    pub(crate) const fn new(ticket: &Ticket) -> Self {
        Self { smmu: ticket.smmu, vmid: ticket.vmid }
    }

    /// The SMMU.
    pub const fn smmu(&self) -> SmmuId {
        self.smmu
    }

    /// Whose translations were flushed.
    pub const fn vmid(&self) -> Vmid {
        self.vmid
    }
}

/// How far the queue was after a CPU's stores to the tables: a flush submitted later was submitted after them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark(pub(crate) u64);

impl Mark {
    /// No flush of another is late enough.
    pub const NEVER: Self = Self(i64::MAX.cast_unsigned());
}

/// How far an SMMU's command queue is, for CPUs that do not hold the driver's lock. Written under the lock by plain
/// stores.
#[derive(Debug, Default)]
pub struct Progress {
    submitted: AtomicU64,
    /// Stands still once a command was refused: what is complete from then on, the driver tells.
    completed: AtomicU64,
}

impl Progress {
    /// Of a queue that was never used.
    pub const fn new() -> Self {
        Self { submitted: AtomicU64::new(0), completed: AtomicU64::new(0) }
    }

    /// To be taken after the stores to the tables and a barrier that orders them before this load (`dmb ish`, or the
    /// `dsb` that orders them for the SMMU; a clean as well where it is not coherent), and before the lock is taken.
    ///
    /// Whoever submits stores its position here first, then comes its barrier, then PROD: a flush whose position is
    /// not here yet reaches the SMMU after the stores.
    #[inline]
    pub fn mark(&self) -> Mark {
        Mark(self.submitted.load(Ordering::Acquire))
    }

    /// The proof, if the ticket's SYNC was seen complete when it was submitted, or later by any CPU.
    #[inline]
    pub fn redeem(&self, ticket: &Ticket) -> Option<Synced> {
        let is_complete = ticket.is_complete || self.completed.load(Ordering::Acquire) >= ticket.end();
        is_complete.then_some(Synced::new(ticket))
    }

    #[inline]
    pub(crate) fn note_submitted(&self, position: u64) {
        self.submitted.store(position, Ordering::Release);
    }

    #[inline]
    pub(crate) fn note_completed(&self, position: u64) {
        self.completed.store(position, Ordering::Release);
    }
}
