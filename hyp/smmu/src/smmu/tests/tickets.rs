//! Flushes by ticket: one doorbell, proof after the SYNC alone, riders, refusals, timeouts, any position.

use std::{boxed::Box, vec::Vec};

use bulkhead_core::{addr::Ipa, ids::Vmid};

use super::{IOVA, IPA, S2_IPA, S12_VMALL, SYNC, every_config, take_over, vm};
use crate::{
    error::Error,
    features::IdRegisters,
    model::{DmaAccess, Failure, Model, ModelConfig, Mutant, Mutation},
    smmu::{Config, Smmu, StreamState},
    ticket::{Invalidation, Mark, Progress},
};

const STREAM: bulkhead_core::ids::StreamId = bulkhead_core::ids::StreamId(8);
const VMID: Vmid = Vmid::new(1).expect("not zero");

fn page(number: u64) -> Invalidation {
    Invalidation::Page { ipa: Ipa::new(IPA.as_u64() + number * 4096), is_leaf: true }
}

fn range(number: u64, num: u8, scale: u8) -> Invalidation {
    Invalidation::Range { ipa: Ipa::new(IPA.as_u64() + number * 4096), num, scale, is_leaf: true }
}

/// An SMMU with one stream attached to a page of memory.
fn attached(config: ModelConfig) -> (Model, Smmu<Model>) {
    let model = Model::new(config);
    let mut smmu = take_over(&model);
    let vm = vm(&model, 1);
    model.grant(STREAM, vm.frame, 4096);
    smmu.attach(STREAM, &vm.s2).expect("attach");
    (model, smmu)
}

/// Would miss: a proof before the SYNC, a flush that does not reach the TLB, on any kind of SMMU.
#[test]
fn a_ticket_is_redeemed_after_its_sync_alone() {
    for config in every_config() {
        for what in [page(0), range(0, 2, 0), Invalidation::Context] {
            let (model, mut smmu) = attached(config);
            assert!(!model.dma(STREAM, IOVA, DmaAccess::Read).is_contained());
            model.fail(Failure::StuckQueue);
            let mut ticket = smmu.submit(VMID, what, Mark::NEVER).expect("room");
            assert_eq!(smmu.poll(&mut ticket), Ok(None));
            assert!(model.cached_translation(VMID, IOVA).is_some());
            model.repair();
            let synced = smmu.wait(ticket).expect("it goes on");
            assert_eq!((synced.vmid(), synced.smmu()), (VMID, smmu.id()));
            assert_eq!(model.cached_translation(VMID, IOVA), None, "{what:?}");
            model.assert_clean();
        }
    }
}

/// Would miss: a second doorbell, a CMD_SYNC for each command, one that is not counted.
#[test]
fn a_flush_is_one_doorbell_and_counted() {
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let mutant = Mutant::new(model.clone(), Mutation::None);
    let mut smmu = Smmu::take_over(mutant, bulkhead_core::ids::SmmuId(0), Config::new(40, 0x3ff)).expect("take-over");
    let before = smmu.platform().prod_writes;
    let mut tickets = Vec::new();
    for what in [page(1), range(3, 4, 2), Invalidation::Context, range(9, 0, 0)] {
        tickets.push(smmu.submit(VMID, what, Mark::NEVER).expect("room"));
    }
    tickets.push(smmu.submit_all(VMID, (0..20).map(page)).expect("room"));
    assert_eq!(smmu.platform().prod_writes - before, 5);
    for ticket in tickets {
        let _synced = smmu.wait(ticket).expect("done");
    }
    // Take-over: one TLBI, one SYNC.
    let all = smmu.counters().commands;
    assert_eq!((all.tlb, all.syncs), (25, 6));
    assert_eq!((model.executed(S2_IPA), model.executed(S12_VMALL)), (23, 1));
    // More than a queue-full becomes one flush of everything.
    let many = smmu.submit_all(VMID, (0..300).map(page)).expect("room");
    let _synced = smmu.wait(many).expect("done");
    assert_eq!((model.executed(S12_VMALL), model.executed(SYNC)), (2, 7));
    model.assert_clean();
}

/// Would miss: a range command on an SMMU that has none (CERROR_ILL).
#[test]
fn without_ranges_a_range_is_everything() {
    let id = IdRegisters { idr3: 0, ..ModelConfig::QEMU };
    let (model, mut smmu) = attached(ModelConfig::new(id));
    let before = model.executed(S12_VMALL);
    let ticket = smmu.submit(VMID, range(0, 5, 1), Mark::NEVER).expect("room");
    let _synced = smmu.wait(ticket).expect("done");
    assert_eq!((model.executed(S12_VMALL) - before, model.executed(S2_IPA)), (1, 0));
}

/// Would miss: a wrong wrap, an overrun queue, a ticket taken for done a turn of the queue early.
#[test]
fn tickets_hold_at_every_position_of_the_queue() {
    for lag in [0, 2] {
        let (model, mut smmu) = attached(ModelConfig { lag, ..ModelConfig::new(ModelConfig::QEMU) });
        let mut tickets = std::collections::VecDeque::new();
        for step in 0..1_500 {
            tickets.push_back(smmu.submit(VMID, page(step % 7), Mark::NEVER).expect("room"));
            if tickets.len() == 100 {
                let _synced = smmu.wait(tickets.pop_front().expect("100")).expect("done");
            }
        }
        for ticket in tickets {
            let _synced = smmu.wait(ticket).expect("done");
        }
        assert_eq!(model.executed(S2_IPA), 1_500);
        model.assert_clean();
    }
}

/// Would miss: a ride on a flush that was submitted before the rider's stores, of another VM, or of fewer pages.
#[test]
fn a_second_waiter_rides_on_a_later_flush_that_covers_its_own() {
    let (model, mut smmu) = attached(ModelConfig::new(ModelConfig::QEMU));
    let progress: &'static Progress = Box::leak(Box::default());
    smmu.share(progress);
    let other = Vmid::new(2).expect("not zero");
    let table = Invalidation::Page { ipa: IPA, is_leaf: false };
    let cases = [
        (Invalidation::Context, VMID, page(5), true),
        (Invalidation::Context, VMID, table, true),
        (Invalidation::Context, other, page(5), false),
        (range(0, 7, 0), VMID, page(7), true),
        (range(0, 7, 0), VMID, page(8), false),
        (range(0, 7, 0), VMID, range(2, 5, 0), true),
        (range(0, 7, 0), VMID, range(2, 6, 0), false),
        (range(0, 7, 0), VMID, table, false),
        (range(0, 7, 0), VMID, Invalidation::Context, false),
        (page(5), VMID, page(5), true),
    ];
    for (sent, vmid, wanted, does_ride) in cases {
        model.fail(Failure::StuckQueue);
        // The second CPU's stores; then the first submits, before the second has the lock.
        let mark = progress.mark();
        let first = smmu.submit(vmid, sent, mark).expect("room");
        let rides = smmu.rides(VMID);
        let second = smmu.submit(VMID, wanted, mark).expect("room");
        assert_eq!(smmu.rides(VMID) - rides, u64::from(does_ride), "{wanted:?} on {sent:?}");
        // Stores after the submission: it proves nothing for them.
        let third = smmu.submit(VMID, wanted, progress.mark()).expect("room");
        assert_eq!(smmu.rides(VMID) - rides, u64::from(does_ride));
        assert_eq!(progress.redeem(&third), None);
        model.repair();
        let _synced = (smmu.wait(third).expect("done"), smmu.wait(first).expect("done"));
        // The first one's wait is enough for the second, without the lock.
        assert!(progress.redeem(&second).is_some());
    }
    model.assert_clean();
}

/// Would miss: a look that is not taken when a flush is submitted, or by a rider; a ticket that is done although its
/// SYNC is not.
#[test]
fn what_is_complete_at_once_needs_no_second_look() {
    for lag in [0, 2] {
        let (model, mut smmu) = attached(ModelConfig { lag, ..ModelConfig::new(ModelConfig::QEMU) });
        let progress: &'static Progress = Box::leak(Box::default());
        smmu.share(progress);
        // Twice around the queue: the first flush of each lap goes in by the other way.
        for step in 0..256 {
            let mark = progress.mark();
            let first = smmu.submit(VMID, Invalidation::Context, mark).expect("room");
            assert_eq!(progress.redeem(&first).is_some(), lag == 0, "{step}");
            let rider = smmu.submit(VMID, page(step % 7), mark).expect("room");
            assert_eq!(smmu.rides(VMID), step + 1);
            assert_eq!(progress.redeem(&rider).is_some(), lag == 0, "{step}");
            for ticket in [first, rider] {
                let _synced = smmu.wait(ticket).expect("done");
            }
        }
        model.assert_clean();
    }
}

/// Would miss: another command taken for an invalidation, another's last command that is not looked at.
#[test]
fn any_invalidation_before_the_last_sync_is_ridden_on_and_nothing_else() {
    let (model, mut smmu) = attached(ModelConfig::new(ModelConfig::QEMU));
    let progress: &'static Progress = Box::leak(Box::default());
    smmu.share(progress);
    let other = vm(&model, 2);
    let mark = progress.mark();
    // Ends with a CMD_CFGI_STE that has 1 where the others have the VMID, and no address.
    smmu.attach(bulkhead_core::ids::StreamId(1), &other.s2).expect("attach");
    let first = smmu.submit(VMID, Invalidation::Page { ipa: Ipa::new(0), is_leaf: true }, mark).expect("room");
    assert_eq!(smmu.rides(VMID), 0);
    let batch = smmu.submit_all(VMID, [page(1), page(2)].into_iter()).expect("room");
    let second = smmu.submit(VMID, page(2), mark).expect("room");
    assert_eq!(smmu.rides(VMID), 1);
    let third = smmu.submit(VMID, page(1), mark).expect("room");
    assert_eq!((smmu.rides(VMID), model.executed(S2_IPA)), (1, 4));
    for ticket in [first, batch, second, third] {
        let _synced = smmu.wait(ticket).expect("done");
    }
    model.assert_clean();
}

/// Would miss: a ride on a flush from before the stores, because something else was submitted after them.
#[test]
fn nobody_rides_on_a_flush_from_before_its_stores() {
    let (model, mut smmu) = attached(ModelConfig::new(ModelConfig::QEMU));
    let progress: &'static Progress = Box::leak(Box::default());
    smmu.share(progress);
    let early = smmu.submit(VMID, Invalidation::Context, progress.mark()).expect("room");
    let mark = progress.mark();
    let other = smmu.submit_all(VMID, [page(1), page(2)].into_iter()).expect("room");
    let own = smmu.submit(VMID, page(5), mark).expect("room");
    assert_eq!((smmu.rides(VMID), model.executed(S2_IPA)), (0, 3));
    for ticket in [early, other, own] {
        let _synced = smmu.wait(ticket).expect("done");
    }
    model.assert_clean();
}

/// Would miss: a flush whose command was refused, but whose SYNC was not, taken for done; by its rider as well.
#[test]
fn a_refused_command_fails_its_ticket_and_quarantines() {
    for what in [page(0), Invalidation::Context] {
        for lag in [0, 2] {
            let (model, mut smmu) = attached(ModelConfig { lag, ..ModelConfig::new(ModelConfig::QEMU) });
            let progress: &'static Progress = Box::leak(Box::default());
            smmu.share(progress);
            model.refuse(if what == page(0) { S2_IPA } else { S12_VMALL }, 1, 1);
            let mark = progress.mark();
            let ticket = smmu.submit(VMID, what, mark).expect("room");
            let rider = smmu.submit(VMID, page(0), mark).expect("room");
            assert_eq!(
                smmu.wait(ticket).map_err(|failed| smmu.reason(&failed)),
                Err(Error::FlushUnsure { vmid: VMID })
            );
            assert_eq!(smmu.find_stream(STREAM).map(|info| info.state), Some(StreamState::Quarantined));
            assert_eq!(progress.redeem(&rider), None);
            assert_eq!(smmu.wait(rider).map_err(|failed| smmu.reason(&failed)), Err(Error::FlushUnsure { vmid: VMID }));
            // What was refused is known by now: no ride.
            let later = smmu.submit(VMID, page(0), mark).expect("room");
            assert_eq!(smmu.rides(VMID), 1);
            let _synced = smmu.wait(later).expect("the queue goes on");
            model.assert_clean();
        }
    }
}

/// Would miss: a ride on a flush whose command is known to be refused, and was consumed when it was tried again.
#[test]
fn nobody_rides_on_a_refused_command() {
    for code in [1, 2] {
        let (model, mut smmu) = attached(ModelConfig::new(ModelConfig::QEMU));
        let progress: &'static Progress = Box::leak(Box::default());
        smmu.share(progress);
        // No streams that a quarantine would send commands for.
        let other = Vmid::new(2).expect("not zero");
        let mark = progress.mark();
        model.refuse(S12_VMALL, code, 1);
        let refused = smmu.submit(other, Invalidation::Context, mark).expect("room");
        assert_eq!(smmu.wait(refused).map_err(|failed| smmu.reason(&failed)), Err(Error::FlushUnsure { vmid: other }));
        let own = smmu.submit(other, page(0), mark).expect("room");
        assert_eq!((smmu.rides(other), model.executed(S2_IPA)), (0, 1));
        let _synced = smmu.wait(own).expect("the queue goes on");
        model.assert_clean();
    }
}

/// Would miss: a wait without an end, a ticket that is done after its time-out although nothing was proven, commands
/// put into a queue that is given up.
#[test]
fn a_stuck_queue_ends_in_quarantine() {
    let (model, mut smmu) = attached(ModelConfig::new(ModelConfig::QEMU));
    model.fail(Failure::StuckQueue);
    let mut ticket = smmu.submit(VMID, page(0), Mark::NEVER).expect("room");
    assert_eq!(smmu.poll(&mut ticket), Ok(None));
    model.sleep(200_000);
    let polled = smmu.poll(&mut ticket).map_err(|failed| smmu.reason(&failed));
    assert!(matches!(polled, Err(Error::QueueStuck { timeout_us: 100_000, .. })));
    assert_eq!(smmu.find_stream(STREAM).map(|info| info.state), Some(StreamState::Quarantined));
    let refused = smmu.submit(VMID, page(0), Mark::NEVER).map_err(|failed| smmu.reason(&failed));
    assert!(matches!(refused, Err(Error::QueueStuck { .. })));
    model.repair();
    let later = smmu.submit(VMID, page(1), Mark::NEVER).expect("room");
    let _synced = smmu.wait(later).expect("done");
    assert_eq!(model.executed(S2_IPA), 2);
    model.assert_clean();
}
