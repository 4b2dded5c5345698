//! The queue at every position, across the wrap, and longer batches than the queue.

use bulkhead_core::{
    addr::{Ipa, PhysAddr},
    ids::Vmid,
};

use super::{Cmdq, CommandError, QueueFeatures};
use crate::{
    command::Command,
    error::Error,
    model::{Failure, Model, ModelConfig, Mutant, Mutation},
    platform::Platform,
    registers::offset,
};

const VMID: Vmid = match Vmid::new(1) {
    Some(vmid) => vmid,
    None => panic!("not zero"),
};

fn page(number: u64) -> Command {
    Command::TlbiS2Ipa { vmid: VMID, ipa: Ipa::new(number * 4096), is_leaf: true }
}

/// A queue of `2^log2` commands on a fresh model.
fn queue(log2: u8, lag: u32) -> (Model, Cmdq) {
    let config = ModelConfig { lag, is_left_on: false, ..ModelConfig::new(ModelConfig::QEMU) };
    let mut model = Model::new(config);
    let base = model.alloc(1, 4096);
    model.barrier();
    model.write64(offset::CMDQ_BASE, base.as_u64() | u64::from(log2));
    model.write32(offset::CR0, 1 << 3);
    for _ in 0..=lag {
        let _ = model.read32(offset::CR0ACK);
    }
    let cmdq =
        Cmdq::new(PhysAddr::new(base.as_u64()), log2, QueueFeatures { is_coherent: true, has_ranges: true }, 10_000);
    (model, cmdq)
}

#[test]
fn every_batch_length_at_every_position_is_executed_whole() {
    // Would miss a wrong wrap bit, a lost or repeated command at the queue's end.
    for lag in [0, 2] {
        for length in 0..20u64 {
            let (model, mut cmdq) = queue(4, lag);
            let commands: std::vec::Vec<Command> = (0..length).map(page).collect();
            for round in 1..=40 {
                cmdq.submit(&mut model.clone(), &commands).expect("submit");
                assert_eq!(model.executed(0x2a), length * round);
            }
            // 15 commands and their SYNC fill the queue.
            let syncs = length.div_ceil(15).max(1) * 40;
            assert_eq!(model.executed(0x46), syncs);
            assert_eq!((cmdq.counters().tlb, cmdq.counters().syncs), (length * 40, syncs));
            model.assert_clean();
        }
    }
}

#[test]
fn one_write_of_prod_publishes_a_batch() {
    let (model, mut cmdq) = queue(4, 0);
    let mut counting = Mutant::new(model, Mutation::None);
    cmdq.submit(&mut counting, &[page(1), page(2), page(3)]).expect("submit");
    assert_eq!(counting.prod_writes, 1);
}

#[test]
fn a_refusal_at_every_position_is_named_and_stepped_over() {
    for position in 0..40 {
        for code in [0, 1, 2, 3, 9] {
            let (model, mut cmdq) = queue(4, 1);
            for _ in 0..position {
                cmdq.submit(&mut model.clone(), &[]).expect("submit");
            }
            model.refuse(0x2a, code, 1);
            let refused = cmdq.submit(&mut model.clone(), &[Command::CfgiAll, page(7), page(8)]);
            let Err(Error::CommandRefused { command, reason }) = refused else {
                // CERROR_NONE does not show in CONS: found when the time is up.
                panic!("position {position}, code {code}: {refused:?}");
            };
            assert_eq!(command, page(7));
            let expected = match code {
                0 => CommandError::None,
                1 => CommandError::Illegal,
                2 => CommandError::Abort,
                3 => CommandError::AtcInvSync,
                other => CommandError::Unknown(other),
            };
            assert_eq!(reason, expected);
            // The others of the batch were executed; the refused one again where that makes sense.
            assert_eq!(model.executed(0x2a), if matches!(code, 2 | 3) { 2 } else { 1 });
            cmdq.submit(&mut model.clone(), &[page(9)]).expect("the queue goes on");
            model.assert_clean();
        }
    }
}

#[test]
fn a_queue_that_is_stuck_and_comes_back_executes_nothing_twice() {
    let (model, mut cmdq) = queue(4, 0);
    model.fail(Failure::StuckQueue);
    let before = model.clone().now_us();
    assert!(matches!(cmdq.submit(&mut model.clone(), &[page(1)]), Err(Error::QueueStuck { timeout_us: 10_000, .. })));
    assert!(matches!(cmdq.submit(&mut model.clone(), &[page(2)]), Err(Error::QueueStuck { .. })));
    assert!(model.clone().now_us() - before < 25_000);
    model.repair();
    cmdq.submit(&mut model.clone(), &[page(3)]).expect("submit");
    assert_eq!(model.executed(0x2a), 2, "the second was never put in");
    assert_eq!(cmdq.counters.timeouts, 2);
    model.assert_clean();
}
