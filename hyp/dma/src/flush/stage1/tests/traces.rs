//! Auto against every fixed policy on the same traces, with the refills of a TLB that is simulated.

use std::{collections::BTreeMap, string::String, vec::Vec};

use bulkhead_core::{addr::PAGE_SIZE, stage1::Stage1Flush};

use super::pages;
use crate::flush::{Costs, Kind, Stage1Batch, Stage1Mode, Stage1Policy};

/// What a device uses, then what the guest gives up before one SYNC.
#[derive(Clone, Default)]
struct Step {
    used: Vec<(u16, u64)>,
    flushed: Vec<Stage1Flush>,
}

/// A TLB of pages, the longest unused of which makes room.
#[derive(Default)]
struct Tlb {
    tick: u64,
    used: BTreeMap<(u16, u64), u64>,
    by_use: BTreeMap<u64, (u16, u64)>,
}

impl Tlb {
    /// Whether the page has to be walked for, by a TLB of `size`.
    fn misses(&mut self, page: (u16, u64), size: usize) -> bool {
        self.tick += 1;
        let before = self.used.insert(page, self.tick);
        if let Some(before) = before {
            self.by_use.remove(&before);
        }
        self.by_use.insert(self.tick, page);
        if self.used.len() > size {
            let (_, oldest) = self.by_use.pop_first().expect("not empty");
            self.used.remove(&oldest);
        }
        before.is_none()
    }

    fn flush(&mut self, flush: &Stage1Flush) {
        let gone = match *flush {
            Stage1Flush::All => (0, 0)..=(u16::MAX, u64::MAX),
            Stage1Flush::Asid(asid) => (asid, 0)..=(asid, u64::MAX),
            Stage1Flush::Pages(range) => {
                let (asid, first) = (range.asid.expect("of one"), range.first / PAGE_SIZE);
                (asid, first)..=(asid, first + range.pages - 1)
            }
        };
        let gone: Vec<_> = self.used.range(gone).map(|(page, used)| (*page, *used)).collect();
        for (page, used) in gone {
            self.used.remove(&page);
            self.by_use.remove(&used);
        }
    }
}

/// What a trace came to.
#[derive(Clone, Copy)]
struct Sum {
    commands: u64,
    misses: u64,
    switches: u64,
}

impl Sum {
    fn cost_ns(self, costs: Costs) -> u64 {
        self.commands * u64::from(costs.command_ns) + self.misses * u64::from(costs.refill_ns)
    }
}

fn run(mode: Stage1Mode, has_ranges: bool, costs: Costs, trace: &[Step]) -> Sum {
    let mut policy = Stage1Policy::new(mode, has_ranges, costs);
    let mut batch = Stage1Batch::new();
    let size = usize::try_from(costs.tlb_entries).expect("small");
    let mut tlb = Tlb::default();
    let mut misses = 0;
    for step in trace {
        misses += step.used.iter().map(|page| u64::from(tlb.misses(*page, size))).sum::<u64>();
        step.flushed.iter().for_each(|flush| batch.add(*flush));
        batch.close(&mut policy).iter().for_each(|command| tlb.flush(&command));
    }
    let counters = policy.counters();
    Sum { commands: counters.sent.sum(), misses, switches: counters.switches }
}

/// Buffers, `per_sync` of which are given up at each SYNC. Each is used when it is posted, `depth` before, and when it is
/// done; the rings at each step.
fn churn(asid: u16, steps: u64, per_sync: u64, depth: u64, place: impl Fn(u64) -> (u64, u64)) -> Vec<Step> {
    let pages_of = |slot| {
        let (first, pages) = place(slot);
        (first..first + pages).map(|page| (asid, page))
    };
    let step = |step: u64| {
        let done = step * per_sync..(step + 1) * per_sync;
        let posted = done.clone().flat_map(|slot| pages_of(slot + depth));
        let rings = (0..4).map(|page| (asid, page));
        Step {
            used: rings.chain(posted).chain(done.clone().flat_map(pages_of)).collect(),
            flushed: done.map(|slot| pages(asid, place(slot).0, place(slot).1)).collect(),
        }
    };
    (0..steps).map(step).collect()
}

/// Buffers of `size` pages in a ring of 256.
fn ring(asid: u16, steps: u64, per_sync: u64, size: u64, depth: u64) -> Vec<Step> {
    churn(asid, steps, per_sync, depth, |slot| (0x1000 + slot % 256 * (size + 1), size))
}

/// Single pages over 1 GiB.
fn scatter(asid: u16, steps: u64, per_sync: u64, depth: u64) -> Vec<Step> {
    churn(asid, steps, per_sync, depth, |slot| (0x1000 + slot * 0x9e37_79b1 % (1 << 18), 1))
}

/// The steps of two traces by turns.
fn mix(a: Vec<Step>, b: Vec<Step>) -> Vec<Step> {
    a.into_iter().zip(b).flat_map(|(a, b)| [a, b]).collect()
}

fn named() -> Vec<(&'static str, Vec<Step>)> {
    let phases =
        (0..4).flat_map(|phase| if phase % 2 == 0 { ring(1, 200, 1, 3, 64) } else { scatter(1, 200, 30, 120) });
    std::vec![
        ("steady stream", ring(1, 400, 1, 16, 16)),
        ("steady stream, in batches", ring(1, 100, 8, 16, 16)),
        ("request and response", ring(1, 1000, 1, 1, 1)),
        ("small datagrams", ring(1, 200, 16, 1, 128)),
        ("large buffers", ring(1, 100, 1, 128, 2)),
        ("huge buffers", ring(1, 50, 1, 512, 2)),
        ("scatter 8", scatter(1, 400, 8, 64)),
        ("scatter 30", scatter(1, 200, 30, 120)),
        ("two devices", mix(ring(1, 200, 1, 2, 64), scatter(2, 200, 24, 96))),
        ("two rings", mix(ring(1, 400, 1, 1, 200), ring(2, 400, 1, 3, 16))),
        ("phases", phases.collect()),
    ]
}

/// Would miss: a cost model that picks the dearer flush, keeps to it, or flaps.
#[test]
fn auto_is_within_five_percent_of_the_best_fixed_policy() {
    let mut failed = String::new();
    for (name, trace) in named() {
        for has_ranges in [true, false] {
            let fixed = [Kind::Page, Kind::Range, Kind::Context]
                .map(|kind| run(Stage1Mode::Fixed(kind), has_ranges, Costs::START, &trace));
            for (command_ns, refill_ns) in [(100, 60), (1000, 60), (100, 600)] {
                let costs = Costs { command_ns, refill_ns, ..Costs::START };
                let auto = run(Stage1Mode::Auto, has_ranges, costs, &trace);
                let fixed = fixed.map(|sum| sum.cost_ns(costs));
                let best = fixed.into_iter().min().expect("three");
                if auto.cost_ns(costs) * 100 > best * 105 || auto.switches > 10 {
                    failed += &std::format!(
                        "{name}, ranges {has_ranges}, {command_ns} and {refill_ns} ns: {} against {fixed:?}, {} switches\n",
                        auto.cost_ns(costs),
                        auto.switches
                    );
                }
            }
        }
    }
    assert!(failed.is_empty(), "\n{failed}");
}
