//! What a VM configures, and what it may.

use bulkhead_core::{ids::StreamId, stage1::StreamConfig};

use super::{CFGI_STE, HOLE, S12_VMALL, every_config, stage1, take_over, vm};
use crate::{
    error::Error,
    features::IdRegisters,
    model::{DmaAccess, Failure, Model, ModelConfig},
    smmu::{Smmu, StreamState},
    ste::{Recording, Ste, SteError},
};

const NIC: StreamId = StreamId(0x108);
const CONFIGS: [StreamConfig; 5] =
    [StreamConfig::Invalid, StreamConfig::Abort, StreamConfig::Bypass, stage1(0x4000_0040), stage1(0x4000_0080)];

/// Would miss: an entry that is not what was asked for, a transition that leaves the old one cached.
#[test]
fn each_configuration_is_its_entry_from_any_other() {
    for config in every_config() {
        let model = Model::new(config);
        let mut smmu = take_over(&model);
        let vm = vm(&model, 1);
        model.grant(NIC, vm.frame, 4096);
        smmu.attach(NIC, &vm.s2).expect("attach");
        for from in CONFIGS {
            for to in CONFIGS {
                smmu.configure(NIC, &from).expect("from");
                let before = model.executed(CFGI_STE);
                smmu.configure(NIC, &to).expect("to");
                assert_eq!(model.executed(CFGI_STE) - before, if from == to { 1 } else { 3 });
                let info = smmu.find_stream(NIC).expect("known");
                assert_eq!((info.config, info.state), (to, StreamState::Attached));
                let features = smmu.features();
                let made = match &to {
                    StreamConfig::Invalid => Ste::invalid(),
                    StreamConfig::Abort => Ste::abort(),
                    StreamConfig::Bypass => Ste::stage2(&vm.s2, features, Recording::On).expect("an entry"),
                    StreamConfig::Stage1(context) => Ste::nested(&vm.s2, context, features).expect("an entry"),
                };
                assert_eq!(model.entry(NIC), Some(*made.words()), "{from:?} to {to:?}");
            }
        }
        let _ = smmu.detach(NIC).expect("detach");
        assert_eq!(model.entry(NIC), Some(*Ste::abort().words()));
        model.assert_clean();
    }
}

/// Would miss: another VM's stream, or nobody's, that is configured; a stage 1 where there is none.
#[test]
fn what_may_not_be_configured_changes_nothing() {
    let id = IdRegisters { idr0: ModelConfig::QEMU.idr0 & !(1 << 1), ..ModelConfig::QEMU };
    let model = Model::new(ModelConfig::new(id));
    let mut smmu = take_over(&model);
    let vm = vm(&model, 1);
    assert_eq!(smmu.configure(NIC, &StreamConfig::Bypass), Err(Error::NotAttached { stream: NIC }));
    smmu.attach(NIC, &vm.s2).expect("attach");
    let entry = model.entry(NIC);
    assert_eq!(smmu.configure(NIC, &stage1(0x4000_0000)), Err(Error::Entry(SteError::NoStage1)));
    assert_eq!((model.entry(NIC), smmu.find_stream(NIC).map(|info| info.config)), (entry, Some(StreamConfig::Bypass)));
    smmu.configure(NIC, &StreamConfig::Abort).expect("it needs no stage 1");
    model.assert_clean();
}

/// Would miss: a guest's pointer that ends EL2's work, or is fetched from past the VM's addresses.
#[test]
fn a_descriptor_out_of_reach_makes_the_stream_invalid() {
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let mut smmu = take_over(&model);
    let vm = vm(&model, 1);
    smmu.attach(NIC, &vm.s2).expect("attach");
    for at in [1 << 39, 0x4000_0020, u64::MAX] {
        smmu.configure(NIC, &StreamConfig::Bypass).expect("configure");
        smmu.configure(NIC, &stage1(at)).expect("the guest's own fault");
        assert_eq!(model.entry(NIC), Some([0; 8]));
        assert_eq!(smmu.find_stream(NIC).map(|info| info.config), Some(StreamConfig::Invalid));
    }
    model.assert_clean();
}

/// Would miss: a stream that a guest makes loud, or alive, again by configuring it.
#[test]
fn silence_and_abort_outlast_a_configuration() {
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let mut smmu = take_over(&model);
    let vm = vm(&model, 1);
    smmu.attach(NIC, &vm.s2).expect("attach");
    let quiet = Ste::stage2(&vm.s2, smmu.features(), Recording::Off).expect("an entry");
    assert_eq!(smmu.silence(NIC), Ok(StreamState::Silenced));
    smmu.configure(NIC, &StreamConfig::Invalid).expect("configure");
    assert_eq!(model.entry(NIC), Some(*Ste::abort().words()), "C_BAD_STE is recorded whatever the entry says");
    smmu.configure(NIC, &StreamConfig::Bypass).expect("configure");
    assert_eq!(model.entry(NIC), Some(*quiet.words()));
    // Of a stage 1 the guest decides what is recorded: no half way.
    smmu.configure(NIC, &stage1(0x4000_0000)).expect("configure");
    assert_eq!(smmu.find_stream(NIC).map(|info| info.state), Some(StreamState::Silenced));
    assert_eq!(smmu.silence(NIC), Ok(StreamState::Aborted));
    for config in CONFIGS {
        smmu.configure(NIC, &config).expect("kept");
        assert_eq!(model.entry(NIC), Some(*Ste::abort().words()));
        assert_eq!(smmu.find_stream(NIC).map(|info| (info.config, info.state)), Some((config, StreamState::Aborted)));
    }
    let _ = smmu.detach(NIC).expect("detach");
    smmu.attach(NIC, &vm.s2).expect("attach");
    smmu.configure(NIC, &stage1(0x4000_0000)).expect("configure");
    assert_eq!(smmu.silence(NIC), Ok(StreamState::Aborted), "at once: S2R says nothing of stage 1");
    let _ = smmu.detach(NIC).expect("detach");
    smmu.attach(NIC, &vm.s2).expect("attach");
    smmu.configure(NIC, &StreamConfig::Invalid).expect("configure");
    assert_eq!(smmu.silence(NIC), Ok(StreamState::Silenced));
    assert_eq!(model.entry(NIC), Some(*Ste::abort().words()));
    assert_eq!(smmu.unsilence(NIC), Ok(StreamState::Attached));
    assert_eq!(model.entry(NIC), Some([0; 8]));
    model.assert_clean();
}

/// Would miss: a guest whose device records for ever, because each new stage 1 is a new budget.
#[test]
fn a_silenced_stream_has_one_more_budget_and_no_third() {
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let mut smmu = take_over(&model);
    let vm = vm(&model, 1);
    model.grant(NIC, vm.frame, 4096);
    smmu.attach(NIC, &vm.s2).expect("attach");
    let faults = |smmu: &mut Smmu<Model>, count: u32| {
        for _ in 0..count {
            let _ = model.dma(NIC, HOLE, DmaAccess::Write);
        }
        let reported = smmu.poll_events(1000, |_, _| {}).reported;
        (reported, smmu.find_stream(NIC).map(|info| info.state))
    };
    assert_eq!(faults(&mut smmu, 33), (32, Some(StreamState::Silenced)));
    smmu.configure(NIC, &stage1(0x4000_0000)).expect("configure");
    assert_eq!(faults(&mut smmu, 20), (20, Some(StreamState::Silenced)));
    smmu.configure(NIC, &StreamConfig::Bypass).expect("configure");
    smmu.configure(NIC, &stage1(0x4000_0000)).expect("configure");
    assert_eq!(faults(&mut smmu, 20), (12, Some(StreamState::Aborted)));
    assert_eq!(faults(&mut smmu, 20), (0, Some(StreamState::Aborted)));
    model.assert_clean();
}

/// Would miss: a configuration that is taken for done, a stream that stays usable after it.
#[test]
fn a_configuration_that_does_not_finish_quarantines() {
    for config in [stage1(0x4000_0000), StreamConfig::Bypass] {
        let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
        let mut smmu = take_over(&model);
        let vm = vm(&model, 1);
        smmu.attach(NIC, &vm.s2).expect("attach");
        model.fail(Failure::StuckQueue);
        assert!(matches!(smmu.configure(NIC, &config), Err(Error::QueueStuck { .. })));
        assert_eq!(smmu.find_stream(NIC).map(|info| info.state), Some(StreamState::Quarantined));
        model.repair();
        assert_eq!(smmu.configure(NIC, &config), Err(Error::StreamQuarantined { stream: NIC }));
        let _ = smmu.detach(NIC).expect("detach");
        model.assert_clean();
    }
    // The VMID is not flushed for a configuration: that is the guest's.
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let mut smmu = take_over(&model);
    let vm = vm(&model, 1);
    smmu.attach(NIC, &vm.s2).expect("attach");
    let before = model.executed(S12_VMALL);
    smmu.configure(NIC, &stage1(0x4000_0000)).expect("configure");
    assert_eq!(model.executed(S12_VMALL), before);
}
