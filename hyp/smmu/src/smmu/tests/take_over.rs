//! Take-over from every state, and the way down in a panic.

use bulkhead_core::{
    addr::PhysAddr,
    ids::{SmmuId, StreamId},
};

use super::{IOVA, config, every_config, reason, take_over, vm};
use crate::{
    error::Error,
    event::Reason,
    features::{FeatureError, IdRegisters},
    model::{DmaAccess, Failure, Model, ModelConfig, Mutant, Mutation, Outcome},
    platform::Platform,
    registers::offset,
    smmu::{Smmu, panic_abort},
};

#[test]
fn take_over_leaves_every_stream_in_abort_on_every_kind_of_smmu() {
    // Would miss nothing of rule 2: transactions are tried after every single step, caches are full of bypass.
    for config in every_config() {
        let model = Model::new(config);
        for stream in [0, 8, 0x3f, 0x100, 0x3ff] {
            model.attack_with(StreamId(stream), IOVA);
        }
        let smmu = take_over(&model);
        assert!(model.is_enabled() && model.is_global_abort(), "{config:x?}");
        for stream in [0, 8, 0x3f, 0x100, 0x3ff, 0x400, u32::MAX] {
            let outcome = model.dma(StreamId(stream), IOVA, DmaAccess::Write);
            assert!(matches!(reason(outcome), Some(Reason::BadSte | Reason::BadStreamId)), "{config:x?} {outcome:?}");
        }
        assert_eq!(smmu.streams().count(), 0);
        model.assert_clean();
    }
}

#[test]
fn an_smmu_that_does_not_obey_is_refused_and_stays_in_abort() {
    for (failure, register) in
        [(Failure::StuckGbpa, "GBPA"), (Failure::StuckCr0, "CR0ACK"), (Failure::StuckIrqCtrl, "IRQ_CTRLACK")]
    {
        let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
        model.fail(failure);
        match Smmu::take_over(model.clone(), SmmuId(0), config()).map(|_| ()) {
            Err(Error::Timeout { register: found, timeout_us: 100_000, .. }) => {
                assert_eq!(found, register);
            }
            other => panic!("{failure:?}: {other:?}"),
        }
        model.assert_clean();
    }
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    model.fail(Failure::StuckQueue);
    let taken = Smmu::take_over(model.clone(), SmmuId(0), config()).map(|_| ());
    assert!(matches!(taken, Err(Error::QueueStuck { .. })));
    assert!(!model.is_enabled() && model.is_global_abort());
    assert_eq!(model.dma(StreamId(8), IOVA, DmaAccess::Write), Outcome::Aborted);
}

#[test]
fn an_smmu_without_stage_2_is_refused_and_aborts_everything() {
    let idr0 = 0x0d44_101a;
    let model = Model::new(ModelConfig::new(IdRegisters { idr0, ..ModelConfig::QEMU }));
    let taken = Smmu::take_over(model.clone(), SmmuId(0), config()).map(|_| ());
    assert_eq!(taken, Err(Error::Unsupported(FeatureError::NoStage2 { idr0 })));
    assert!(!model.is_enabled() && model.is_global_abort());
    assert_eq!(model.dma(StreamId(8), IOVA, DmaAccess::Write), Outcome::Aborted);
    model.assert_clean();
}

#[test]
fn a_base_register_that_does_not_keep_its_value_is_noticed() {
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    // The hint bit is not compared; an address is.
    model.fail(Failure::ShortBases);
    let _ = Smmu::take_over(model.clone(), SmmuId(0), config()).expect("addresses below 4 GiB");
    let high = Mutant::new(model.clone(), Mutation::AllocAt(PhysAddr::new(0x1_4000_0000)));
    let taken = Smmu::take_over(high, SmmuId(0), config()).map(|_| ());
    assert_eq!(taken, Err(Error::NotKept { register: "STRTAB_BASE", written: 0x1_4000_0000, read: 0x4000_0000 }));
    assert!(model.is_global_abort() && !model.is_enabled());
}

#[test]
fn a_panic_leaves_every_stream_in_abort_at_any_time() {
    for config in every_config() {
        let model = Model::new(config);
        let mut smmu = take_over(&model);
        let vm = vm(&model, 1);
        let nic = StreamId(0x8);
        model.grant(nic, vm.frame, 4096);
        smmu.attach(nic, &vm.s2).expect("attach");
        model.attack_with(nic, IOVA);
        panic_abort(smmu.platform()).expect("abort");
        assert_eq!(model.dma(nic, IOVA, DmaAccess::Write), Outcome::Aborted);
        panic_abort(smmu.platform()).expect("twice");
        model.assert_clean();
    }
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let mut smmu = take_over(&model);
    model.fail(Failure::StuckCr0);
    assert!(matches!(panic_abort(smmu.platform()), Err(Error::Timeout { register: "CR0ACK", .. })));
}

#[test]
fn the_smmus_own_accesses_have_the_attributes_of_its_coherence() {
    // CR1: inner shareable write-back throughout, or not cached, outer shareable.
    for (id, expected) in [(ModelConfig::QEMU, 0b11_01_01_11_01_01), (ModelConfig::MMU600, 0b10_00_00_10_00_00)] {
        let model = Model::new(ModelConfig::new(id));
        let _ = take_over(&model);
        assert_eq!(model.clone().read32(offset::CR1), expected);
        // CR2: RECINVSID alone; there is no broadcast TLB maintenance to stay out of.
        assert_eq!(model.clone().read32(offset::CR2), 0b010);
        model.assert_clean();
    }
    let id = IdRegisters { idr0: ModelConfig::QEMU.idr0 | 1 << 5, ..ModelConfig::QEMU };
    let model = Model::new(ModelConfig::new(id));
    let _ = take_over(&model);
    assert_eq!(model.clone().read32(offset::CR2), 0b110, "PTM");
    model.assert_clean();
}

#[test]
fn the_translations_of_el2s_regime_go_where_it_exists() {
    for (id, times) in [(ModelConfig::QEMU, 0), (ModelConfig::MMU600, 1)] {
        let model = Model::new(ModelConfig::new(id));
        let _ = take_over(&model);
        assert_eq!(model.executed(0x20), times);
        assert_eq!((model.executed(0x04), model.executed(0x30)), (1, 1));
    }
}

#[test]
fn memory_that_the_smmu_cannot_take_is_refused() {
    for (at, alignment) in [(1 << 44, 4096), (0x4000_0800, 4096), (!0xfff, 4096)] {
        let at = PhysAddr::new(at);
        let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
        let platform = Mutant::new(model.clone(), Mutation::AllocAt(at));
        let taken = Smmu::take_over(platform, SmmuId(0), config()).map(drop);
        let expected = Error::BadMemory { what: "stream table", at, alignment, oas_bits: 44 };
        assert_eq!(taken, Err(expected));
        assert!(model.is_global_abort() && !model.is_enabled());
    }
}
