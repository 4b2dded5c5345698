//! Which commands a batch of a guest's stage 1 becomes: fixed by the manifest, or the cheapest by a cost model.

use super::{
    counters::{Stage1Counters, Stage1Tally},
    group::Group,
    stretch::{Stretch, Tag},
    ways::Ways,
    work::Stage1Work,
};
use crate::flush::{
    Costs, Covering, Kind, Scope,
    policy::{HYSTERESIS, PAGE_COMMANDS_MAX},
};

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
    /// What it did.
    pub from: Kind,
    /// What it does.
    pub to: Kind,
    /// Cost of its part of the batch by the old kind, in nanoseconds.
    pub from_ns: u64,
    /// And by the new one.
    pub to_ns: u64,
}

/// Translations in use that nobody flushes: a device's rings.
const RINGS: u64 = 8;

/// The flush policy of one VM's stage 1, by ASID.
///
/// What a flush of everything would lose is not known: the guest's tables are not looked at. The estimate is the pages
/// flushed since the last flush of everything, up to the size of the TLB. A translation is cached when its page is used,
/// and a page that was used is soon unmapped: as many were filled since as were flushed since.
///
/// One flush of everything may be dear, and many of them cheap, since little is cached between one and the next. So a
/// batch that is flushed by address is charged to its ASID with what it cost more than a flush of everything between two
/// such, and when that reaches what the first one loses, the ASID changes over.
#[derive(Clone, Debug)]
pub struct Stage1Policy {
    mode: Stage1Mode,
    has_ranges: bool,
    costs: Costs,
    ways: Ways,
    switched: Option<Stage1Switch>,
    counters: Stage1Counters,
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

    /// The last change of kind that the last decision made, once: for the trace.
    pub const fn take_switch(&mut self) -> Option<Stage1Switch> {
        self.switched.take()
    }

    /// The VM starts anew: its ASIDs mean nothing any more. What was counted stays.
    pub fn reset(&mut self) {
        *self = Self { counters: self.counters, ..Self::new(self.mode, self.has_ranges, self.costs) };
    }

    pub(super) fn note_guest(&mut self, guest: &mut Stage1Tally) {
        self.counters.guest.add(&core::mem::take(guest));
    }

    pub(super) fn note_work(&mut self, work: &Stage1Work<'_>) {
        if work.is_empty() {
            self.counters.nothing = self.counters.nothing.wrapping_add(1);
            return;
        }
        self.counters.syncs = self.counters.syncs.wrapping_add(1);
        if work.is_all() {
            self.ways.forget_all();
        }
        for command in work {
            self.counters.sent.note(&command);
        }
    }

    /// Has each run sent in the way that pays; false: the whole batch is better one flush of everything.
    #[inline]
    pub(super) fn suffices(&mut self, asids: &[u16], runs: &mut [Stretch]) -> bool {
        // The everyday case. A range is less than 1/16 too long: no other way costs less, where a refill does not cost
        // as much as 16 commands.
        if let ([], [run], Stage1Mode::Auto, true) = (asids, &*runs, self.mode, self.has_ranges)
            && self.costs.are_commands_dear()
        {
            let pages = run.run.pages();
            let way = self.ways.of(run.tag);
            if way.kind == Kind::Range && Covering::of(pages).is_some() {
                way.flushed = way.flushed.saturating_add(pages);
                way.regret_ns = way.regret_ns.saturating_sub(self.costs.refills(pages));
                return true;
            }
        }
        self.choose(asids, runs)
    }

    #[cold]
    fn choose(&mut self, asids: &[u16], runs: &mut [Stretch]) -> bool {
        if asids.is_empty() && runs.is_empty() {
            return true;
        }
        for asid in asids {
            self.ways.forget(Tag::of(Some(*asid)));
        }
        let live = self.ways.flushed();
        let pages = runs.iter().map(|run| run.run.pages()).fold(RINGS, u64::saturating_add);
        let lost = |live: u64| self.costs.commands(1).saturating_add(self.costs.refills(live.saturating_add(pages)));
        let everything = Everything { now_ns: lost(live), each_time_ns: lost(0), live };
        let mut commands = u64::try_from(asids.len()).unwrap_or(u64::MAX);
        let mut cost_ns = self.costs.commands(commands);
        let mut suffices = self.mode != Stage1Mode::Each;
        for at in 0..runs.len() {
            let (before, rest) = runs.split_at_mut(at);
            let Some(tag) = rest.first().map(|run| run.tag) else { break };
            if before.iter().any(|run| run.tag == tag) {
                continue;
            }
            let group = Group::of(tag, rest);
            let scope = match self.mode {
                Stage1Mode::Auto => self.cheapest(tag, &group, &everything),
                Stage1Mode::Fixed(kind) => self.fixed(kind),
                Stage1Mode::Each => Scope::Context,
            };
            suffices &= scope != Scope::Context;
            commands = commands.saturating_add(group.commands(scope));
            cost_ns = cost_ns.saturating_add(group.cost_ns(scope, &self.costs, 0));
            let way = self.ways.of(tag);
            way.flushed = way.flushed.saturating_add(group.pages);
            group.apply(scope, rest);
        }
        let is_cheap = self.mode != Stage1Mode::Auto || !is_beaten(cost_ns, everything.now_ns);
        suffices && is_cheap && commands <= PAGE_COMMANDS_MAX
    }

    /// The nearest to `kind` that the SMMU can do.
    fn fixed(&self, kind: Kind) -> Scope {
        match kind {
            Kind::Context => Scope::Context,
            Kind::Range if self.has_ranges => Scope::Runs,
            Kind::Page | Kind::Range => Scope::Pages,
        }
    }

    fn cheapest(&mut self, tag: Tag, group: &Group, everything: &Everything) -> Scope {
        let (has_ranges, costs) = (self.has_ranges, self.costs);
        let way = self.ways.of(tag);
        let live = if tag == Tag::ANY { everything.live } else { way.flushed };
        let cost = |scope| (group.cost_ns(scope, &costs, live), scope);
        let cheaper = |a: (u64, Scope), b: (u64, Scope)| if b.0 < a.0 { b } else { a };
        let pages = (group.pages <= PAGE_COMMANDS_MAX).then(|| cost(Scope::Pages));
        let range = has_ranges.then(|| cheaper(cost(Scope::Runs), cost(Scope::Range)));
        let (own, other) = if way.kind == Kind::Page { (pages, range) } else { (range, pages) };
        let by_address = match (own, other) {
            (Some(own), Some(other)) if !is_beaten(own.0, other.0) => own,
            (_, Some(other)) => other,
            (own, None) => own.unwrap_or((u64::MAX, Scope::Context)),
        };
        let is_context = if way.kind == Kind::Context {
            !is_beaten(everything.now_ns, by_address.0)
        } else {
            is_beaten(by_address.0.saturating_add(way.regret_ns), everything.now_ns)
        };
        let (cost_ns, scope) = if is_context { (everything.now_ns, Scope::Context) } else { by_address };
        let (from, to) = (way.kind, scope.kind());
        way.regret_ns = match scope {
            Scope::Context => 0,
            _ => way.regret_ns.saturating_add(cost_ns).saturating_sub(everything.each_time_ns),
        };
        if from != to {
            way.kind = to;
            let own = if from == Kind::Page { pages } else { range };
            let from_ns = match from {
                Kind::Context => everything.now_ns,
                _ => own.map_or(u64::MAX, |own| own.0),
            };
            self.switched = Some(Stage1Switch { asid: tag.asid(), from, to, from_ns, to_ns: cost_ns });
            self.counters.switches = self.counters.switches.wrapping_add(1);
        }
        scope
    }
}

/// A flush of everything, in place of a batch.
struct Everything {
    /// Its cost now.
    now_ns: u64,
    /// Its cost where every batch is one.
    each_time_ns: u64,
    /// Translations that may be cached.
    live: u64,
}

/// Whether `cost` is more than `other` by enough to change over.
const fn is_beaten(cost: u64, other: u64) -> bool {
    cost > other.saturating_add(other >> HYSTERESIS)
}
