//! What a batch becomes, group by group, and whether everything at once is better.

use super::{
    counters::Stage1Tally,
    group::Group,
    policy::{Stage1Mode, Stage1Policy, Stage1Switch},
    stretch::{Stretch, Tag},
};
use crate::flush::{
    Covering, Kind, Scope, Switch,
    policy::{HYSTERESIS, PAGE_COMMANDS_MAX},
};

/// Translations in use that are never flushed: a device's rings.
const RINGS: u64 = 8;

impl Stage1Policy {
    /// Has each run sent in the way that pays, and counts it: how many are left to send. `None`: the whole batch is better one
    /// flush of everything.
    #[inline]
    pub(super) fn narrow(&mut self, asids: &[u16], runs: &mut [Stretch]) -> Option<usize> {
        // The everyday case. A range is less than 1/16 too long: no other way costs less, where a refill does not cost
        // as much as 16 commands.
        if let ([], [run], Stage1Mode::Auto, true) = (asids, &*runs, self.mode, self.has_ranges)
            && self.costs.are_commands_dear()
        {
            let pages = run.run.pages();
            let way = self.ways.of(run.tag);
            if way.kind == Kind::Range && Covering::of(pages).is_some() {
                way.flushed = way.flushed.saturating_add(pages);
                way.charge_ns = way.charge_ns.saturating_sub(self.costs.refills(pages));
                self.counters.sent.note_pages(pages);
                self.counters.syncs = self.counters.syncs.wrapping_add(1);
                return Some(1);
            }
        }
        self.choose(asids, runs)
    }

    #[inline(never)]
    fn choose(&mut self, asids: &[u16], runs: &mut [Stretch]) -> Option<usize> {
        if asids.is_empty() && runs.is_empty() {
            self.counters.nothing = self.counters.nothing.wrapping_add(1);
            return Some(0);
        }
        for asid in asids {
            self.ways.forget(Tag::of(Some(*asid)));
        }
        let live = self.ways.flushed();
        let mut pages = RINGS;
        let mut sent = Stage1Tally { asid: u64::try_from(asids.len()).unwrap_or(u64::MAX), ..Stage1Tally::NONE };
        let mut left = runs.len();
        let mut is_narrow = self.mode != Stage1Mode::Each;
        for at in 0..runs.len() {
            let (before, rest) = runs.split_at_mut(at);
            let Some(tag) = rest.first().map(|run| run.tag) else { break };
            if before.iter().any(|run| run.tag == tag) {
                continue;
            }
            let group = Group::of(tag, rest);
            let scope = match self.mode {
                Stage1Mode::Auto => self.cheapest(&group, live),
                Stage1Mode::Fixed(kind) => self.fixed(kind),
                Stage1Mode::Each => Scope::Context,
            };
            is_narrow &= scope != Scope::Context && group.commands(scope) != u64::MAX;
            sent.add(&group.tally(scope));
            pages = pages.saturating_add(group.pages);
            let way = self.ways.of(tag);
            way.flushed = match scope {
                Scope::Range => way.flushed.saturating_sub(group.beside(scope)),
                _ => way.flushed.saturating_add(group.pages),
            };
            left = at.wrapping_add(group.apply(scope, rest));
            if group.runs == rest.len() {
                break;
            }
        }
        let commands = sent.sum();
        // One command for everything is no cheaper than one for less.
        let is_cheap = commands == 1 || self.mode != Stage1Mode::Auto || {
            let everything_ns = self.costs.commands(1).saturating_add(self.costs.refills(live.saturating_add(pages)));
            !is_beaten(self.costs.commands(commands), everything_ns)
        };
        let suffices = is_narrow && is_cheap && commands <= PAGE_COMMANDS_MAX;
        if suffices {
            self.counters.sent.add(&sent);
            self.counters.syncs = self.counters.syncs.wrapping_add(1);
        }
        suffices.then_some(left)
    }

    /// The nearest to `kind` that the SMMU can do.
    const fn fixed(&self, kind: Kind) -> Scope {
        match kind {
            Kind::Context => Scope::Context,
            Kind::Range if self.has_ranges => Scope::Runs,
            Kind::Page | Kind::Range => Scope::Pages,
        }
    }

    /// The cheapest for one ASID, where `live` translations of all may be cached.
    fn cheapest(&mut self, group: &Group, live: u64) -> Scope {
        let (has_ranges, costs) = (self.has_ranges, self.costs);
        let way = self.ways.of(group.tag);
        let own_live = if group.tag.owner() == Tag::ANY { live } else { way.flushed };
        let cost = |scope, live: u64| {
            let refills = costs.refills(group.beside(scope).min(live));
            match group.commands(scope) {
                u64::MAX => u64::MAX,
                commands => costs.commands(commands).saturating_add(refills),
            }
        };

        let pages_ns = if group.pages <= PAGE_COMMANDS_MAX { cost(Scope::Pages, 0) } else { u64::MAX };
        let runs_ns = if has_ranges { cost(Scope::Runs, own_live) } else { u64::MAX };
        let is_paged = match way.kind {
            Kind::Page => !is_beaten(pages_ns, runs_ns),
            Kind::Range | Kind::Context => is_beaten(runs_ns, pages_ns),
        };
        let (narrow, narrow_ns) = if is_paged { (Scope::Pages, pages_ns) } else { (Scope::Runs, runs_ns) };

        let has_hull = has_ranges && group.commands(Scope::Range) != u64::MAX;
        let (wide, cached) = if has_hull { (Scope::Range, own_live) } else { (Scope::Context, live) };
        let between = group.pages.saturating_add(RINGS);
        let wide_ns = cost(wide, cached.saturating_add(between));
        let each_time_ns = cost(wide, between);

        let from_ns = if way.is_wide { wide_ns } else { narrow_ns };
        way.is_wide = if way.is_wide {
            !is_beaten(wide_ns, narrow_ns)
        } else {
            is_beaten(narrow_ns.saturating_add(way.charge_ns), wide_ns)
        };
        let (scope, to_ns) = if way.is_wide { (wide, wide_ns) } else { (narrow, narrow_ns) };
        way.charge_ns = match way.is_wide {
            true => 0,
            false => way.charge_ns.saturating_add(narrow_ns).saturating_sub(each_time_ns),
        };
        let (from, to) = (way.kind, scope.kind());
        if from != to {
            way.kind = to;
            self.switched = Some(Stage1Switch { asid: group.tag.asid(), switch: Switch { from, to, from_ns, to_ns } });
            self.counters.switches = self.counters.switches.wrapping_add(1);
        }
        scope
    }
}

/// Whether `cost` is more than `other` by enough to change over.
const fn is_beaten(cost: u64, other: u64) -> bool {
    cost > other.saturating_add(other >> HYSTERESIS)
}
