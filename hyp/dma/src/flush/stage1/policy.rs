//! How a VM's stage 1 is flushed: fixed by the manifest, or the cheapest by a cost model; and what that came to.

use super::{
    counters::{Stage1Counters, Stage1Tally},
    stretch::Tag,
    ways::Ways,
};
use crate::flush::{Costs, Kind, Switch};

/// How the manifest has it (`flush = ...`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage1Mode {
    /// The cheapest by [`Costs`], with hysteresis.
    Auto,
    /// Always so, as far as the SMMU can and a queue holds it. [`Kind::Context`] is everything of the VMID.
    Fixed(Kind),
    /// Everything of the VMID for each command of the guest, at once: for comparison.
    Each,
}

/// An ASID changed its kind of flush, for the trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage1Switch {
    /// Which; `None` for flushes of all ASIDs.
    pub asid: Option<u16>,
    /// What changed; costs are those of its part of the batch.
    pub switch: Switch,
}

/// The flush policy of one VM's stage 1, by ASID.
///
/// Narrow is a flush of what was gathered, page by page or a range for each run. Wide is one command: a range for all
/// runs and what lies between them or, where the SMMU has no ranges, everything of the VMID.
///
/// What a wide flush loses beside what was gathered is not known: the guest's tables are not looked at. The estimate is
/// the pages flushed since the last wide flush, up to the size of the TLB: a translation is cached when its page is
/// used, and a page that was used is soon unmapped, so that about as many were filled since as were flushed since. It
/// is too high where buffers are used only once, and too low where a device uses many that are never unmapped.
///
/// One wide flush may be dear, and many of them cheap, since little is cached between one and the next. So an ASID that
/// is flushed narrowly is charged with what that costs more than a wide flush each time would, and when the charge comes
/// to what the first one loses, the ASID changes over.
#[derive(Clone, Debug)]
pub struct Stage1Policy {
    pub(super) mode: Stage1Mode,
    pub(super) has_ranges: bool,
    pub(super) costs: Costs,
    pub(super) ways: Ways,
    pub(super) switched: Option<Stage1Switch>,
    pub(super) counters: Stage1Counters,
}

impl Stage1Policy {
    /// A policy as the manifest has it; `has_ranges`: the VM's SMMU takes range commands (IDR3.RIL).
    pub fn new(mode: Stage1Mode, has_ranges: bool, costs: Costs) -> Self {
        let kind = match mode {
            Stage1Mode::Fixed(kind) => kind,
            Stage1Mode::Each => Kind::Context,
            Stage1Mode::Auto if has_ranges => Kind::Range,
            Stage1Mode::Auto => Kind::Page,
        };
        let counters = Stage1Counters::default();
        Self { mode, has_ranges, costs, ways: Ways::new(kind), switched: None, counters }
    }

    /// Whether each command of the guest is flushed at once: the batch is closed after every
    /// [`add`](super::Stage1Batch::add).
    pub fn closes_each(&self) -> bool {
        self.mode == Stage1Mode::Each
    }

    /// What is done for an ASID now; `None` if it was never flushed by address, or shares with others.
    pub fn kind(&self, asid: u16) -> Option<Kind> {
        self.ways.find(Tag::of(Some(asid))).map(|way| way.kind)
    }

    /// The costs, to take note of what was measured.
    pub const fn costs(&mut self) -> &mut Costs {
        &mut self.costs
    }

    /// What was counted.
    pub const fn counters(&self) -> Stage1Counters {
        self.counters
    }

    /// Whether there is a change of kind to be told of.
    #[inline]
    pub const fn has_switched(&self) -> bool {
        self.switched.is_some()
    }

    /// The last change of kind that the last decision made, once: for the trace.
    pub const fn take_switch(&mut self) -> Option<Stage1Switch> {
        self.switched.take()
    }

    /// The VM starts anew: its ASIDs mean nothing any more. What was counted stays.
    pub fn reset(&mut self) {
        *self = Self { counters: self.counters, ..Self::new(self.mode, self.has_ranges, self.costs) };
    }

    #[inline]
    pub(super) fn note_guest(&mut self, by_address: u64, of_ranges: u64, others: &mut Stage1Tally) {
        let guest = &mut self.counters.guest;
        guest.page = guest.page.wrapping_add(by_address.wrapping_sub(of_ranges));
        guest.range = guest.range.wrapping_add(of_ranges);
        if others.sum() > 0 {
            guest.add(&core::mem::take(others));
        }
    }

    /// Everything is flushed.
    #[inline(never)]
    pub(super) fn note_everything(&mut self) {
        self.ways.forget_all();
        self.counters.sent.note_all();
        self.counters.syncs = self.counters.syncs.wrapping_add(1);
    }
}
