//! Which flush a stream's batch gets: fixed by the manifest, or the cheapest by a cost model.

use super::{
    batch::{Batch, Work},
    cost::{Costs, Live},
    counters::FlushCounters,
};

/// Kinds of flush that a stream can be in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A command a page.
    Page,
    /// A command a range, rounded up.
    Range,
    /// One command for everything of the VMID.
    Context,
}

/// How the manifest has it (`flush = ...`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// `"auto"`: the cheapest by [`Costs`], with hysteresis.
    Auto,
    /// `"page"`, `"range"`, `"context"`: always so, as far as the SMMU can and a queue holds it.
    Fixed(Kind),
    /// `"deferred"`: as auto, but not before so many pages are gathered or so much time has passed.
    ///
    /// The window: from an unload until its batch's flush, a device can still reach the pages that it unloaded, at
    /// most `pages` and those of one call of the guest, for at most `window_us` after the first SYNC that was put off
    /// and the time by which the timer that [`Policy::due_in_us`] sets is late. The pages stay the VM's own, and no
    /// IOVA is given out again before the flush: the guest is not protected from its own device for that long, nobody
    /// else is exposed. Never the default.
    Deferred {
        /// Pages that may wait.
        pages: u32,
        /// Microseconds that they may wait.
        window_us: u32,
    },
}

/// How one batch is flushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Not at all: nothing was unmapped.
    Nothing,
    /// A command for each page.
    Pages,
    /// A range command for each run.
    Runs,
    /// One range command for all runs and what lies between them.
    Range,
    /// One command for the VMID.
    Context,
}

impl Scope {
    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::Nothing | Self::Pages => Kind::Page,
            Self::Runs | Self::Range => Kind::Range,
            Self::Context => Kind::Context,
        }
    }
}

/// A stream changed its kind of flush, for the trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Switch {
    /// What it did.
    pub from: Kind,
    /// What it does.
    pub to: Kind,
    /// Cost of the batch by the old kind, in nanoseconds.
    pub from_ns: u64,
    /// And by the new one.
    pub to_ns: u64,
}

/// Pages that are flushed one by one at most: half of the command queue.
pub const PAGE_COMMANDS_MAX: u64 = 128;
/// The other kind has to be cheaper by this part of its cost, as a shift, before a stream changes: 1/32.
pub(super) const HYSTERESIS: u32 = 5;

/// The flush policy of one stream.
#[derive(Clone, Debug)]
pub struct Policy {
    mode: Mode,
    has_ranges: bool,
    costs: Costs,
    kind: Kind,
    switched: Option<Switch>,
    counters: FlushCounters,
}

impl Policy {
    /// A policy as the manifest has it; `has_ranges`: every SMMU of the VM takes range commands (IDR3.RIL).
    pub const fn new(mode: Mode, has_ranges: bool, costs: Costs) -> Self {
        let kind = match mode {
            Mode::Fixed(kind) => kind,
            _ if has_ranges => Kind::Range,
            _ => Kind::Page,
        };
        Self { mode, has_ranges, costs, kind, switched: None, counters: COUNTERS }
    }

    /// What it does now.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The costs, to take note of what was measured.
    pub const fn costs(&mut self) -> &mut Costs {
        &mut self.costs
    }

    /// What was counted.
    pub const fn counters(&self) -> FlushCounters {
        self.counters
    }

    /// The change of kind that the last decision made, once: for the trace.
    pub const fn take_switch(&mut self) -> Option<Switch> {
        self.switched.take()
    }

    /// How the batch is to be flushed at a SYNC; `None`: not yet, the deferred mode lets it wait.
    #[inline]
    pub fn decide(&mut self, batch: &mut Batch, live: Live, now_us: u64) -> Option<Scope> {
        if batch.is_empty() {
            return Some(Scope::Nothing);
        }
        match self.mode {
            Mode::Fixed(kind) => return Some(self.fixed(kind, batch)),
            Mode::Deferred { pages, .. } => {
                if self.due_in_us(batch, now_us) > 0 && batch.pages() < pages.into() {
                    self.counters.deferred += 1;
                    return None;
                }
            }
            Mode::Auto => {}
        }
        Some(self.cheapest(batch, live))
    }

    /// Microseconds until a flush that was put off is due.
    pub fn due_in_us(&self, batch: &mut Batch, now_us: u64) -> u64 {
        let Mode::Deferred { window_us, .. } = self.mode else { return 0 };
        let waited = now_us.saturating_sub(batch.since_us(now_us));
        u64::from(window_us).saturating_sub(waited)
    }

    /// Closes the batch with `scope`, counted.
    #[inline]
    pub fn close<'b>(&mut self, batch: &'b mut Batch, scope: Scope) -> Work<'b> {
        let (pages, maps) = (batch.pages(), batch.maps());
        let work = batch.close(scope);
        self.counters.note(&work, pages, maps);
        work
    }

    /// A flush failed.
    pub const fn note_failure(&mut self) {
        self.counters.failed += 1;
    }

    /// The nearest to `kind` that the SMMU can do.
    fn fixed(&self, kind: Kind, batch: &Batch) -> Scope {
        match kind {
            Kind::Context => Scope::Context,
            Kind::Range if self.has_ranges => Scope::Range,
            Kind::Page | Kind::Range if batch.run_pages() <= PAGE_COMMANDS_MAX => Scope::Pages,
            Kind::Page | Kind::Range => Scope::Context,
        }
    }

    /// What `scope` costs for `batch`, by the model: commands, and refills of what is flushed beside it.
    pub fn cost_ns(&self, scope: Scope, batch: &Batch, live: Live) -> u64 {
        let beside = |covered: u64| self.costs.refills(covered.saturating_sub(batch.run_pages()).min(live.entries));
        match scope {
            Scope::Nothing => 0,
            Scope::Pages => self.costs.commands(batch.run_pages()),
            Scope::Runs => self.costs.commands(batch.runs().into()).saturating_add(beside(batch.covered_pages())),
            Scope::Range => {
                let covered = super::Covering::reach(batch.hull().pages());
                self.costs.commands(1).saturating_add(beside(covered))
            }
            Scope::Context => self.costs.commands(1).saturating_add(self.costs.refills(live.entries)),
        }
    }

    fn cheapest(&mut self, batch: &Batch, live: Live) -> Scope {
        // The everyday case. A range is less than 1/16 too long, so page by page is cheaper only where a refill costs
        // as much as 16 commands; a context flush costs one command as well, and no fewer refills.
        if self.kind == Kind::Range && batch.runs() == 1 && self.costs.are_commands_dear() {
            return Scope::Runs;
        }
        let cost = |scope| (self.cost_ns(scope, batch, live), scope);
        let cheaper = |a: (u64, Scope), b: (u64, Scope)| if b.0 < a.0 { b } else { a };
        let context = cost(Scope::Context);
        let pages = (batch.run_pages() <= PAGE_COMMANDS_MAX).then(|| cost(Scope::Pages));
        let range = self.has_ranges.then(|| cheaper(cost(Scope::Runs), cost(Scope::Range)));
        let best = [pages, range].into_iter().flatten().fold(context, |best, other| {
            // Among equals the narrower one.
            if other.0 <= best.0 { other } else { best }
        });
        let own = match self.kind {
            Kind::Page => pages,
            Kind::Range => range,
            Kind::Context => Some(context),
        };
        match own {
            Some(own) if best.0.saturating_add(best.0 >> HYSTERESIS) >= own.0 => own.1,
            own => {
                let (from, to) = (self.kind, best.1.kind());
                if from != to {
                    let from_ns = own.map_or(u64::MAX, |own| own.0);
                    self.switched = Some(Switch { from, to, from_ns, to_ns: best.0 });
                    self.counters.switches += 1;
                    self.kind = to;
                }
                best.1
            }
        }
    }
}

const COUNTERS: FlushCounters = FlushCounters {
    nothing: 0,
    by_page: 0,
    by_range: 0,
    by_context: 0,
    deferred: 0,
    page_commands: 0,
    range_commands: 0,
    pages: 0,
    maps: 0,
    switches: 0,
    failed: 0,
};
