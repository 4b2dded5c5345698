//! Flushes of a guest's stage 1: the cheapest command that does it, one doorbell, one SYNC.

use bulkhead_core::{
    addr::{AddrRange, Ipa},
    ids::{SmmuId, StreamId, Vmid},
    stage1::{Stage1Flush, Stage1Pages},
};

use super::{
    CFGI_CD_ALL, IOVA, NH_ALL, NH_ASID, NH_VA, NH_VAA, S2_IPA, S12_VMALL, SYNC, every_config, stage1, take_over, vm,
};
use crate::{
    error::Error,
    features::IdRegisters,
    model::{Failure, Model, ModelConfig, Mutant, Mutation},
    smmu::{Config, Smmu, StreamState},
    ticket::{Invalidation, Mark},
};

const NIC: StreamId = StreamId(8);
const DISK: StreamId = StreamId(16);
const VMID: Vmid = Vmid::new(1).expect("not zero");

fn pages(asid: Option<u16>, first: u64, pages: u64) -> Stage1Flush {
    Stage1Flush::Pages(Stage1Pages { asid, first, pages, is_leaf: true })
}

fn nested(config: ModelConfig) -> (Model, Smmu<Mutant<Model>>) {
    let model = Model::new(config);
    let mutant = Mutant::new(model.clone(), Mutation::None);
    let mut smmu = Smmu::take_over(mutant, SmmuId(0), Config::new(40, 0x3ff)).expect("take-over");
    let vm = vm(&model, 1);
    for stream in [NIC, DISK] {
        model.grant(stream, vm.frame, 4096);
        smmu.attach(stream, &vm.s2).expect("attach");
        smmu.configure(stream, &stage1(0x4000_0040)).expect("configure");
    }
    (model, smmu)
}

/// Commands of stage 1 that were executed: CFGI_CD_ALL, NH_ALL, NH_ASID, NH_VA, NH_VAA; and CMD_SYNCs.
fn counts(model: &Model) -> [u64; 6] {
    [CFGI_CD_ALL, NH_ALL, NH_ASID, NH_VA, NH_VAA, SYNC].map(|opcode| model.executed(opcode))
}

fn minus(now: [u64; 6], then: [u64; 6]) -> [u64; 6] {
    core::array::from_fn(|at| now[at] - then[at])
}

/// Would miss: less than was asked for, a second doorbell, a second SYNC, commands that are not counted.
#[test]
fn a_flush_is_the_cheapest_that_does_it() {
    let many: Vec<Stage1Flush> = (0..255).map(|page| pages(Some(7), page << 12, 1)).collect();
    let more: Vec<Stage1Flush> = (0..256).map(|page| pages(Some(7), page << 12, 1)).collect();
    // What is asked for, streams whose context goes, and the commands with ranges and without.
    type Case<'a> = (&'a [Stage1Flush], &'a [StreamId], [u64; 6], [u64; 6]);
    let cases: [Case<'_>; 12] = [
        (&[Stage1Flush::All], &[], [0, 1, 0, 0, 0, 1], [0, 1, 0, 0, 0, 1]),
        (&[Stage1Flush::Asid(7)], &[], [0, 0, 1, 0, 0, 1], [0, 0, 1, 0, 0, 1]),
        (&[pages(Some(7), 0xffff_8000_0000_0000, 1)], &[], [0, 0, 0, 1, 0, 1], [0, 0, 0, 1, 0, 1]),
        (&[pages(None, 0x1000, 1)], &[], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1]),
        (&[pages(Some(7), 0x1000, 31 << 7)], &[], [0, 0, 0, 1, 0, 1], [0, 1, 0, 0, 0, 1]),
        (&[pages(None, 0x1000, 1 << 36)], &[], [0, 0, 0, 0, 1, 1], [0, 1, 0, 0, 0, 1]),
        // Pages that are no (num + 1) << scale; no pages.
        (&[pages(Some(7), 0x1000, 33)], &[], [0, 1, 0, 0, 0, 1], [0, 1, 0, 0, 0, 1]),
        (&[pages(Some(7), 0x1000, 0)], &[], [0, 1, 0, 0, 0, 1], [0, 1, 0, 0, 0, 1]),
        (&[pages(Some(7), 0, 1), pages(Some(7), 0x4000, 2)], &[NIC], [1, 0, 0, 2, 0, 1], [1, 1, 0, 1, 0, 1]),
        (&[], &[NIC, DISK], [2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 1]),
        (&many, &[], [0, 0, 0, 255, 0, 1], [0, 0, 0, 255, 0, 1]),
        (&more, &[NIC], [1, 1, 0, 0, 0, 1], [1, 1, 0, 0, 0, 1]),
    ];
    for (id, has_ranges) in [(ModelConfig::QEMU, true), (IdRegisters { idr3: 0, ..ModelConfig::QEMU }, false)] {
        for (flushes, stale, ranges, plain) in cases {
            for lag in [0, 2] {
                let (model, mut smmu) = nested(ModelConfig { lag, ..ModelConfig::new(id) });
                for stream in stale {
                    smmu.forget_context(*stream).expect("attached");
                }
                let (before, doorbells) = (counts(&model), smmu.platform().prod_writes);
                let commands = smmu.counters().commands;
                let ticket = smmu.submit_stage1(VMID, flushes.iter().copied()).expect("room");
                assert_eq!(smmu.platform().prod_writes - doorbells, 1);
                let _synced = smmu.wait(ticket).expect("done");
                let expected = if has_ranges { ranges } else { plain };
                assert_eq!(minus(counts(&model), before), expected, "{} flushes, {stale:?}", flushes.len());
                let counted = smmu.counters().commands;
                assert_eq!(counted.configuration - commands.configuration, expected[0]);
                assert_eq!(counted.tlb - commands.tlb, expected[1..5].iter().sum());
                assert_eq!(counted.syncs - commands.syncs, 1);
                // Once is enough, and nothing is nothing.
                let doorbells = smmu.platform().prod_writes;
                let ticket = smmu.submit_stage1(VMID, core::iter::empty()).expect("nothing");
                let _synced = smmu.wait(ticket).expect("done");
                assert_eq!(smmu.platform().prod_writes, doorbells);
                model.assert_clean();
            }
        }
    }
}

/// Would miss: another command than in a batch, one that overtakes a context of its own VM, a queue that is full or at its end.
#[test]
fn one_flush_goes_at_once_as_it_does_alone_in_a_batch() {
    for id in [ModelConfig::QEMU, IdRegisters { idr3: 0, ..ModelConfig::QEMU }] {
        for lag in [0, 2] {
            let (model, mut smmu) = nested(ModelConfig { lag, ..ModelConfig::new(id) });
            let mut told = 0;
            for flush in
                [Stage1Flush::All, Stage1Flush::Asid(7), pages(Some(7), 0x1000, 1), pages(None, 0, 33)].repeat(200)
            {
                let mut before = counts(&model);
                let mut sent = [[0; 6]; 2];
                for (is_batch, sent) in [false, true].into_iter().zip(&mut sent) {
                    let doorbells = smmu.platform().prod_writes;
                    let at_once = if is_batch { None } else { smmu.submit_stage1_at_once(VMID, flush) };
                    told += u32::from(at_once.is_some());
                    let ticket = at_once.map_or_else(|| smmu.submit_stage1(VMID, [flush].into_iter()), Ok);
                    let _synced = smmu.wait(ticket.expect("room")).expect("done");
                    assert_eq!(smmu.platform().prod_writes - doorbells, 1);
                    *sent = minus(counts(&model), before);
                    before = counts(&model);
                }
                assert_eq!(sent[0], sent[1], "{flush:?}");
            }
            assert!((700..800).contains(&told), "{told}: not where the queue ends");
            smmu.forget_context(NIC).expect("attached");
            assert!(smmu.submit_stage1_at_once(VMID, Stage1Flush::All).is_none());
            let ticket = smmu.submit_stage1(VMID, [Stage1Flush::All].into_iter()).expect("room");
            let _synced = smmu.wait(ticket).expect("done");
            assert!(smmu.submit_stage1_at_once(VMID, Stage1Flush::All).is_some());
            model.assert_clean();
        }
    }
}

/// Would miss: another VM's context that goes with this one's flush, one that is forgotten about.
#[test]
fn a_context_is_forgotten_with_the_flush_of_its_own_vm() {
    let (model, mut smmu) = nested(ModelConfig::new(ModelConfig::QEMU));
    let other = vm(&model, 2);
    let theirs = StreamId(24);
    smmu.attach(theirs, &other.s2).expect("attach");
    smmu.configure(theirs, &stage1(0x4000_0040)).expect("configure");
    assert_eq!(smmu.forget_context(StreamId(9)), Err(Error::NotAttached { stream: StreamId(9) }));
    smmu.forget_context(theirs).expect("attached");
    for flushes in [&[Stage1Flush::All][..], &[Stage1Flush::All, Stage1Flush::Asid(1)]] {
        let ticket = smmu.submit_stage1(VMID, flushes.iter().copied()).expect("room");
        let _synced = smmu.wait(ticket).expect("done");
        assert_eq!(model.executed(CFGI_CD_ALL), 0);
    }
    assert!(smmu.submit_stage1_at_once(VMID, Stage1Flush::All).is_some(), "theirs is no matter");
    let ticket = smmu.submit_stage1(other.s2.vmid, core::iter::empty()).expect("room");
    let _synced = smmu.wait(ticket).expect("done");
    assert_eq!(model.executed(CFGI_CD_ALL), 1);
    model.assert_clean();
}

/// Would miss: more contexts than a small queue holds.
#[test]
fn more_contexts_than_a_queue_holds_are_all_of_them() {
    let idr1 = ModelConfig::QEMU.idr1 & !(31 << 21) | 4 << 21;
    let model = Model::new(ModelConfig::new(IdRegisters { idr1, ..ModelConfig::QEMU }));
    let mut smmu = take_over(&model);
    let vm = vm(&model, 1);
    for stream in (0..16).map(StreamId) {
        smmu.attach(stream, &vm.s2).expect("attach");
        smmu.configure(stream, &stage1(0x4000_0040)).expect("configure");
        smmu.forget_context(stream).expect("attached");
    }
    let (before, all) = (counts(&model), model.executed(0x04));
    let flushes = [Stage1Flush::Asid(1), pages(None, 0, 1)];
    let ticket = smmu.submit_stage1(VMID, flushes.into_iter()).expect("room");
    let _synced = smmu.wait(ticket).expect("done");
    assert_eq!((minus(counts(&model), before), model.executed(0x04) - all), ([0, 0, 1, 0, 1, 1], 1));
    model.assert_clean();
}

/// Would miss: a refused command of a guest's flush that is taken for done; a stream that goes on after it.
#[test]
fn a_refused_flush_quarantines() {
    for flushes in [vec![Stage1Flush::All], vec![Stage1Flush::All, Stage1Flush::Asid(1)]] {
        for lag in [0, 2] {
            let (model, mut smmu) = nested(ModelConfig { lag, ..ModelConfig::new(ModelConfig::QEMU) });
            model.refuse(NH_ALL, 1, 1);
            let ticket = smmu.submit_stage1(VMID, flushes.iter().copied()).expect("room");
            assert_eq!(
                smmu.wait(ticket).map_err(|failed| smmu.reason(&failed)),
                Err(Error::FlushUnsure { vmid: VMID })
            );
            for stream in [NIC, DISK] {
                assert_eq!(smmu.find_stream(stream).map(|info| info.state), Some(StreamState::Quarantined));
            }
            model.assert_clean();
        }
    }
}

/// Would miss: a flush that found no room and is taken for one that was never asked for.
#[test]
fn a_flush_that_is_not_submitted_quarantines() {
    let (model, mut smmu) = nested(ModelConfig::new(ModelConfig::QEMU));
    model.fail(Failure::StuckQueue);
    let _never = smmu.submit_stage1(VMID, [Stage1Flush::All].into_iter()).expect("room");
    let failed = smmu.submit_stage1(VMID, [Stage1Flush::All, Stage1Flush::Asid(1)].into_iter());
    assert!(matches!(failed.map_err(|failed| smmu.reason(&failed)), Err(Error::QueueStuck { .. })));
    for stream in [NIC, DISK] {
        assert_eq!(smmu.find_stream(stream).map(|info| info.state), Some(StreamState::Quarantined));
    }
}

/// Would miss: a flush by IPA where the TLB may hold both stages in one (16.2.1), from the first stage 1 of a VMID to
/// the end of its last stream; any other VM's that becomes dearer.
#[test]
fn a_vmid_with_stage_1_is_flushed_whole() {
    for config in every_config() {
        let model = Model::new(config);
        let mut smmu = take_over(&model);
        let (ours, theirs) = (vm(&model, 1), vm(&model, 2));
        smmu.attach(NIC, &ours.s2).expect("attach");
        smmu.attach(DISK, &theirs.s2).expect("attach");
        let page = Invalidation::Page { ipa: Ipa::new(0x4000_0000), is_leaf: true };
        let range = AddrRange::new(IOVA, 4096).expect("a page");
        // Whether three kinds of flush of each VM go by IPA.
        let by_ipa = |smmu: &mut Smmu<Model>, vmid| {
            let before = [S2_IPA, S12_VMALL].map(|opcode| model.executed(opcode));
            let first = smmu.submit(vmid, page, Mark::NEVER).expect("room");
            let _synced = smmu.wait(first).expect("done");
            let second = smmu.submit_all(vmid, [page].into_iter()).expect("room");
            let _synced = smmu.wait(second).expect("done");
            let _flushed = smmu.flush_range(vmid, range).expect("done");
            let now = [S2_IPA, S12_VMALL].map(|opcode| model.executed(opcode));
            [now[0] - before[0], now[1] - before[1]]
        };
        assert_eq!([1, 2].map(|_| by_ipa(&mut smmu, ours.s2.vmid)), [[3, 0]; 2]);
        smmu.configure(NIC, &stage1(0x4000_0040)).expect("configure");
        assert_eq!(by_ipa(&mut smmu, ours.s2.vmid), [0, 3]);
        assert_eq!(by_ipa(&mut smmu, theirs.s2.vmid), [3, 0]);
        smmu.configure(NIC, &bulkhead_core::stage1::StreamConfig::Bypass).expect("configure");
        assert_eq!(by_ipa(&mut smmu, ours.s2.vmid), [0, 3], "what is cached stays until the VMID is flushed");
        assert!(smmu.cmdq.is_nested());
        let _ = smmu.detach(NIC).expect("detach");
        assert!(!smmu.cmdq.is_nested(), "others' flushes go in at once again");
        smmu.attach(NIC, &ours.s2).expect("attach");
        assert_eq!(by_ipa(&mut smmu, ours.s2.vmid), [3, 0]);
        model.assert_clean();
    }
}
