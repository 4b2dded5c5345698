//! Fixed policies, switches, counters.

use std::vec::Vec;

use bulkhead_core::stage1::Stage1Flush;

use super::{pages, policy, sent};
use crate::flush::{Costs, Kind, Stage1Batch, Stage1Mode, Stage1Policy, Stage1Switch, Stage1Tally};

/// Would miss: a fixed policy that the SMMU cannot carry out, or one that floods the queue.
#[test]
fn fixed_policies_do_what_the_smmu_can() {
    for (kind, has_ranges, count, expected) in [
        (Kind::Page, true, 128, Some(128)),
        (Kind::Page, true, 129, None),
        (Kind::Range, true, 129, Some(1)),
        (Kind::Range, true, 1 << 40, None),
        (Kind::Range, false, 128, Some(128)),
        (Kind::Range, false, 129, None),
        (Kind::Context, true, 1, None),
    ] {
        let mut policy = policy(Stage1Mode::Fixed(kind), has_ranges);
        let work = sent(&mut policy, &[pages(1, 4, count)]);
        let is_everything = work == [Stage1Flush::All];
        assert_eq!((!is_everything).then_some(work.len()), expected, "{kind:?} of {count}");
    }
    let mut context = policy(Stage1Mode::Fixed(Kind::Context), true);
    assert_eq!(sent(&mut context, &[Stage1Flush::Asid(3)]), [Stage1Flush::Asid(3)]);
}

/// Would miss: a comparison with a flush of everything for every command that sends less.
#[test]
fn each_sends_everything_for_every_command() {
    let mut policy = policy(Stage1Mode::Each, true);
    assert!(policy.closes_each());
    let added = [pages(1, 2, 1), Stage1Flush::Asid(1), Stage1Flush::All];
    for flush in &added {
        assert_eq!(sent(&mut policy, &[*flush]), [Stage1Flush::All]);
    }
    assert_eq!((policy.counters().syncs, policy.counters().sent.all), (3, 3));
}

/// Would miss: a flush that failed between two CMD_SYNCs and is not told of, or is not done again.
#[test]
fn what_failed_is_due_again_and_told_once() {
    for mode in [Stage1Mode::Auto, Stage1Mode::Each] {
        let (mut policy, mut batch) = (policy(mode, true), Stage1Batch::new());
        batch.add(pages(1, 2, 1));
        assert_eq!(batch.close(&mut policy).only(), sent(&mut policy, &[pages(1, 2, 1)]).first().copied());
        batch.fail();
        batch.add(pages(1, 7, 1));
        assert!(batch.close(&mut policy).is_all());
        assert!(batch.close(&mut policy).is_empty());
        assert!(batch.take_failure());
        assert!(!batch.take_failure() && batch.is_empty());
    }
}

/// Would miss: a counter that counts another kind, or the batch before again.
#[test]
fn counters_tell_kinds_apart() {
    let mut policy = policy(Stage1Mode::Auto, true);
    let added =
        [pages(1, 2, 1), pages(1, 3, 4), pages(2, 9, 1), pages(3, 9, 2), Stage1Flush::Asid(4), Stage1Flush::Asid(4)];
    let _ = sent(&mut policy, &added);
    let _ = sent(&mut policy, &[Stage1Flush::All, pages(1, 1, 1)]);
    let counters = policy.counters();
    assert_eq!(counters.guest, Stage1Tally { page: 3, range: 2, asid: 2, all: 1 });
    assert_eq!(counters.sent, Stage1Tally { page: 1, range: 2, asid: 1, all: 1 });
    assert_eq!((counters.guest.sum(), counters.sent.sum()), (8, 5));
    assert_eq!((counters.syncs, counters.nothing, counters.switches), (2, 2, 0));
}

/// `count` pages with one between each two.
fn scatter(policy: &mut Stage1Policy, asid: u16, count: u64) -> bool {
    let mut batch = Stage1Batch::new();
    (0..count).for_each(|at| batch.add(pages(asid, at * 0x999, 1)));
    batch.close(policy).is_all()
}

/// Would miss: churn that is flushed run by run for ever, or a change of kind on the first batch of it; an ASID that
/// pays for another's churn; a switch that is not told, or told twice.
#[test]
fn churn_changes_over_once_it_has_paid_for_it() {
    let costs = Costs { command_ns: 1000, refill_ns: 60, tlb_entries: 512 };
    let mut policy = Stage1Policy::new(Stage1Mode::Auto, false, costs);
    for _ in 0..600 {
        assert!(!scatter(&mut policy, 1, 1));
    }
    // 20 pages cost 20,000; everything 1,000 and up to 512 refills of 60 the first time, 28 of them from then on.
    let first = (1..50).find(|_| scatter(&mut policy, 2, 20)).expect("it changes over");
    assert_eq!(first, 2);
    let Stage1Switch { asid, switch } = policy.take_switch().expect("told");
    assert_eq!((asid, switch.from, switch.to), (Some(2), Kind::Page, Kind::Context));
    assert!(switch.to_ns > switch.from_ns, "{switch:?}: paid by what went before");
    assert_eq!(policy.take_switch(), None);
    for _ in 0..20 {
        assert!(scatter(&mut policy, 2, 20));
    }
    assert!(!scatter(&mut policy, 1, 1));
    assert_eq!((policy.kind(1), policy.kind(2), policy.kind(3)), (Some(Kind::Page), Some(Kind::Context), None));
    assert_eq!(policy.counters().switches, 1);
    assert!(!scatter(&mut policy, 2, 1));
    let Stage1Switch { asid, switch: back } = policy.take_switch().expect("told");
    assert_eq!((asid, back.from, back.to), (Some(2), Kind::Context, Kind::Page));
}

/// Would miss: an ASID that flaps between two kinds that cost nearly the same.
#[test]
fn near_equals_do_not_flap() {
    // Everything costs 100 and 20 refills of 103, as much as 21.6 pages.
    let costs = Costs { command_ns: 100, refill_ns: 103, tlb_entries: 20 };
    let mut policy = Stage1Policy::new(Stage1Mode::Auto, false, costs);
    let kinds = [21, 30, 21, 22, 21, 20, 21].map(|count| scatter(&mut policy, 1, count));
    assert_eq!(kinds, [false, true, true, true, true, false, false]);
    assert_eq!(policy.counters().switches, 2);
}

/// Would miss: many ASIDs at once, each of which costs little.
#[test]
fn a_batch_of_many_asids_is_everything_where_that_costs_less() {
    let costs = Costs { command_ns: 1000, ..Costs::START };
    let mut policy = Stage1Policy::new(Stage1Mode::Auto, true, costs);
    let added: Vec<_> = (0..8).map(|asid| pages(asid, 5, 2)).collect();
    assert_eq!(sent(&mut policy, &added), [Stage1Flush::All]);
    assert_eq!(sent(&mut policy, &added[..1]), added[..1]);
    assert_eq!(policy.counters().switches, 0);
}

/// Would miss: a table of ASIDs that overflows, or that an ASID which went keeps for good.
#[test]
fn more_asids_than_devices_share() {
    let mut policy = policy(Stage1Mode::Auto, true);
    for asid in 0..100 {
        assert_eq!(sent(&mut policy, &[pages(asid, 5, 2)]), [pages(asid, 5, 2)]);
    }
    assert_eq!((policy.kind(3), policy.kind(99)), (Some(Kind::Range), None));
    let _ = sent(&mut policy, &[Stage1Flush::Asid(3)]);
    let _ = sent(&mut policy, &[pages(99, 5, 2)]);
    assert_eq!((policy.kind(3), policy.kind(99)), (None, Some(Kind::Range)));
    policy.reset();
    assert_eq!((policy.kind(99), policy.counters().syncs), (None, 102));
}
