//! Auto against every fixed policy on the same traces, in the model's own cost.

use std::vec::Vec;

use proptest::prelude::{Strategy, prop_assert, proptest};

use super::{batch, iova};
use crate::flush::{Batch, Costs, Kind, Live, Mode, Policy, Scope};

/// One SYNC of a trace: what was unloaded before it, and what is still loaded.
#[derive(Clone, Debug)]
struct Sync {
    unloads: Vec<(u64, u64)>,
    live: u64,
}

fn fill(batch: &mut Batch, sync: &Sync) {
    for (first, pages) in &sync.unloads {
        let _ = batch.add(iova(*first), *pages);
    }
}

/// Cost of a trace by `mode`, and how often it switched.
fn run(mode: Mode, has_ranges: bool, costs: Costs, trace: &[Sync]) -> (u64, u64) {
    let mut policy = Policy::new(mode, has_ranges, costs);
    let mut total = 0;
    let mut batch = batch(has_ranges);
    for sync in trace {
        fill(&mut batch, sync);
        let live = Live { entries: sync.live };
        let scope = policy.decide(&mut batch, live, 0).expect("not deferred");
        total += policy.cost_ns(scope, &batch, live);
        drop(policy.close(&mut batch, scope));
    }
    (total, policy.counters().switches)
}

fn best_fixed(has_ranges: bool, costs: Costs, trace: &[Sync]) -> u64 {
    let kinds = [Kind::Page, Kind::Range, Kind::Context];
    let cost = |kind| run(Mode::Fixed(kind), has_ranges, costs, trace).0;
    kinds.into_iter().map(cost).min().expect("three kinds")
}

fn ring(slot: u64) -> (u64, u64) {
    (0x1000 + slot % 256 * 7, 3)
}

/// The traces that the bench knows by name.
fn named() -> Vec<(&'static str, Vec<Sync>)> {
    let churn = |batch: u64| {
        (0..400).map(move |step| Sync { unloads: (0..batch).map(|at| ring(step * batch + at)).collect(), live: 768 })
    };
    // A scatter of single pages over 1 GiB: nothing that one range could cover.
    let scatter = (0..200u64).map(|step| Sync {
        unloads: (0..64).map(|at| ((step * 64 + at) * 0x9e37_79b1 % (1 << 18), 1)).collect(),
        live: 32,
    });
    let teardown = [Sync { unloads: std::vec![(0, 262_144)], live: 0 }, Sync { unloads: std::vec![(9, 1)], live: 400 }];
    // Long-lived receive maps beside a little churn of sends.
    let server = (0..400).map(|step| Sync { unloads: std::vec![ring(step)], live: 4096 });
    // Quiet and busy by turns: what is cheapest changes with what is loaded.
    let phases = (0..400u64).map(|step| Sync {
        unloads: (0..24).map(|at| ((step + at * 977) * 64 % (1 << 17), 2)).collect(),
        live: if step / 50 % 2 == 0 { 0 } else { 900 },
    });
    std::vec![
        ("churn 1", churn(1).collect()),
        ("churn 32", churn(32).collect()),
        ("scatter", scatter.collect()),
        ("teardown", teardown.to_vec()),
        ("server", server.collect()),
        ("phases", phases.collect()),
    ]
}

fn syncs() -> impl Strategy<Value = Vec<Sync>> {
    let near = (0u64..256, 1u64..8).prop_map(|(slot, pages)| (0x1000 + slot * 8, pages));
    let far = (0u64..1 << 18, 1u64..1500);
    let unloads = proptest::collection::vec(proptest::prop_oneof![3 => near, 1 => far], 0..50);
    let sync = (unloads, 0u64..3000).prop_map(|(unloads, live)| Sync { unloads, live });
    proptest::collection::vec(sync, 1..40)
}

fn costs() -> impl Strategy<Value = Costs> {
    (1u32..2000, 1u32..2000, 16u32..4096).prop_map(|(command_ns, refill_ns, tlb_entries)| Costs {
        command_ns,
        refill_ns,
        tlb_entries,
    })
}

/// Would miss: a cost model that picks the dearer flush on one of the traces that are measured.
#[test]
fn auto_is_within_five_percent_of_the_best_fixed_policy_on_the_named_traces() {
    for (name, trace) in named() {
        for has_ranges in [true, false] {
            let (auto, switches) = run(Mode::Auto, has_ranges, Costs::START, &trace);
            let best = best_fixed(has_ranges, Costs::START, &trace);
            assert!(auto * 100 <= best * 105, "{name}, ranges {has_ranges}: {auto} against {best}");
            assert!(switches <= 20, "{name}, ranges {has_ranges}: {switches} switches");
        }
    }
}

proptest! {
    /// Would miss: a policy that hysteresis, or an overflow of the cost, holds in the wrong kind.
    #[test]
    fn auto_is_within_five_percent_of_the_best_fixed_policy(
        trace in syncs(),
        costs in costs(),
        has_ranges in proptest::bool::ANY,
    ) {
        let (auto, _) = run(Mode::Auto, has_ranges, costs, &trace);
        let best = best_fixed(has_ranges, costs, &trace);
        prop_assert!(auto * 100 <= best * 105, "{auto} against {best}");
    }
}

/// Would miss: a stream that flaps between two kinds that cost nearly the same, a switch without an event.
#[test]
fn near_equals_do_not_flap_and_a_switch_is_told_once() {
    let costs = Costs { command_ns: 100, refill_ns: 100, tlb_entries: 512 };
    let mut policy = Policy::new(Mode::Auto, false, costs);
    // 40 pages one by one: 4,000; everything: 100 and what is loaded.
    let mut decide = |live: u64| {
        let mut batch = batch(false);
        let _ = batch.add(iova(0), 40);
        let scope = policy.decide(&mut batch, Live { entries: live }, 0);
        (scope, policy.take_switch(), policy.take_switch())
    };
    for live in [39, 38, 39, 40, 38] {
        assert_eq!(decide(live), (Some(Scope::Pages), None, None));
    }
    let (scope, switch, again) = decide(10);
    assert_eq!((scope, again), (Some(Scope::Context), None));
    let switch = switch.expect("told");
    assert_eq!((switch.from, switch.to, switch.from_ns, switch.to_ns), (Kind::Page, Kind::Context, 4000, 1100));
    assert_eq!(decide(39), (Some(Scope::Context), None, None));
    assert_eq!(decide(60).0, Some(Scope::Pages));
    assert_eq!(policy.counters().switches, 2);
}

/// Would miss: a fixed policy that the SMMU cannot carry out, or one that floods the queue.
#[test]
fn fixed_policies_do_what_the_smmu_can() {
    for (kind, has_ranges, pages, expected) in [
        (Kind::Page, true, 128, Scope::Pages),
        (Kind::Page, true, 129, Scope::Context),
        (Kind::Range, true, 129, Scope::Range),
        (Kind::Range, false, 128, Scope::Pages),
        (Kind::Range, false, 129, Scope::Context),
        (Kind::Context, true, 1, Scope::Context),
    ] {
        let mut policy = Policy::new(Mode::Fixed(kind), has_ranges, Costs::START);
        let mut batch = batch(has_ranges);
        assert_eq!(policy.decide(&mut batch, Live::default(), 0), Some(Scope::Nothing));
        let _ = batch.add(iova(4), pages);
        assert_eq!(policy.decide(&mut batch, Live::default(), 0), Some(expected), "{kind:?}");
    }
}

/// Would miss: a window that is longer or wider than the manifest says.
#[test]
fn a_deferred_flush_is_bounded_in_pages_and_in_time() {
    let mut policy = Policy::new(Mode::Deferred { pages: 8, window_us: 1000 }, true, Costs::START);
    let mut batch = batch(true);
    let live = Live { entries: 10 };
    let stamp = batch.add(iova(0), 3);
    assert_eq!(policy.decide(&mut batch, live, 5_000), None);
    assert_eq!(policy.due_in_us(&mut batch, 5_400), 600, "a timer that looks early has only the rest to wait");
    assert_eq!(policy.decide(&mut batch, live, 5_999), None);
    assert_eq!(policy.decide(&mut batch, live, 6_000), Some(Scope::Runs));
    assert!(batch.is_open(stamp) && !batch.is_settled(stamp));
    drop(policy.close(&mut batch, Scope::Runs));
    let _ = batch.add(iova(0), 7);
    assert_eq!(policy.decide(&mut batch, live, 9_000), None);
    let _ = batch.add(iova(7), 1);
    assert_eq!(policy.decide(&mut batch, live, 9_001), Some(Scope::Runs));
    assert_eq!(policy.counters().deferred, 3);
}

/// Would miss: a counter that counts another kind.
#[test]
fn counters_tell_kinds_apart() {
    let mut policy = Policy::new(Mode::Auto, true, Costs::START);
    let mut batch = batch(true);
    drop(policy.close(&mut batch, Scope::Nothing));
    for scope in [Scope::Pages, Scope::Runs, Scope::Range, Scope::Context] {
        let _ = (batch.add(iova(0), 3), batch.add(iova(1000), 2));
        drop(policy.close(&mut batch, scope));
    }
    policy.note_failure();
    let counters = policy.counters();
    assert_eq!((counters.nothing, counters.by_page, counters.by_range, counters.by_context), (1, 1, 2, 1));
    assert_eq!((counters.page_commands, counters.range_commands), (5, 3));
    assert_eq!((counters.commands(), counters.syncs(), counters.pages, counters.maps), (9, 4, 20, 8));
    assert_eq!(counters.failed, 1);
}

/// Would miss: a measured cost that drifts to nothing or overflows.
#[test]
fn costs_follow_what_is_measured() {
    let mut costs = Costs::START;
    for _ in 0..100 {
        costs.measured_commands(4, 3_000, 1_000);
        costs.measured_refills(10, 0);
        costs.measured_commands(0, 5, 0);
    }
    assert!((500..=508).contains(&costs.command_ns), "{costs:?}");
    assert!((1..=8).contains(&costs.refill_ns), "{costs:?}");
    costs.measured_commands(1, u32::MAX, 0);
    assert!(costs.command_ns > 500_000_000);
}
