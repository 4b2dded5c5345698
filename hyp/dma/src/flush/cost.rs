//! What a flush costs: commands by the time that an SMMU takes for them, lost translations by the time of a refill.

/// Cost of the parts of a flush for one stream, in nanoseconds. The CMD_SYNC costs every flush the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Costs {
    /// One invalidation command.
    pub command_ns: u32,
    /// One translation that has to be walked again.
    pub refill_ns: u32,
    /// Translations that the SMMU's TLB holds: no more can be lost.
    pub tlb_entries: u32,
}

/// Measured values enter with this weight, as a shift: 1/8.
const WEIGHT: u32 = 3;

impl Costs {
    /// Before anything was measured: a command of 100 ns; a walk of one access of 60 ns, the levels above the last
    /// being cached; 512 entries, as a small TCU has.
    pub const START: Self = Self { command_ns: 100, refill_ns: 60, tlb_entries: 512 };

    /// Takes note of a submission of `commands` that took `elapsed_ns`, of which `sync_ns` are its SYNC's.
    pub fn measured_commands(&mut self, commands: u32, elapsed_ns: u32, sync_ns: u32) {
        if let Some(each) = elapsed_ns.saturating_sub(sync_ns).checked_div(commands) {
            self.command_ns = average(self.command_ns, each);
        }
    }

    /// Takes note of `misses` refills that took `elapsed_ns` in all.
    pub fn measured_refills(&mut self, misses: u32, elapsed_ns: u32) {
        if let Some(each) = elapsed_ns.checked_div(misses) {
            self.refill_ns = average(self.refill_ns, each);
        }
    }

    /// Whether 16 commands cost at least one refill.
    pub(super) const fn are_commands_dear(&self) -> bool {
        self.command_ns.saturating_mul(16) >= self.refill_ns
    }

    pub(super) const fn commands(&self, count: u64) -> u64 {
        count.saturating_mul(self.command_ns as u64)
    }

    pub(super) fn refills(&self, entries: u64) -> u64 {
        entries.min(self.tlb_entries.into()).saturating_mul(self.refill_ns.into())
    }
}

/// At least 1: a cost of nothing would be chosen for ever.
fn average(old: u32, new: u32) -> u32 {
    let (old, new) = (u64::from(old), u64::from(new));
    let mixed = (old * ((1 << WEIGHT) - 1) + new).div_ceil(1 << WEIGHT);
    u32::try_from(mixed).unwrap_or(u32::MAX).max(1)
}

/// What a stream's VM has loaded: the translations that a flush of everything could cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Live {
    /// Pages that are loaded, those in the batch not counted. Where sampled access flags tell how many of them are in
    /// use ([`Channel::in_use`](crate::map::Channel::in_use)), that number.
    pub entries: u64,
}
