//! An SMMU that refuses, hangs or lies.

use bulkhead_core::ids::{StreamId, Vmid};

use super::{IOVA, S12_VMALL, every_config, take_over, vm};
use crate::{
    cmdq::CommandError,
    command::Command,
    error::Error,
    model::{DmaAccess, Failure, Model, ModelConfig},
    platform::Platform,
    smmu::StreamState,
};

#[test]
fn a_refused_command_is_named_and_the_queue_goes_on() {
    for config in every_config() {
        let model = Model::new(config);
        let mut smmu = take_over(&model);
        let vm = vm(&model, 1);
        let nic = StreamId(0x8);
        model.refuse(S12_VMALL, 1, 1);
        let refused = smmu.flush_vmid(vm.s2.vmid);
        assert!(matches!(
            refused,
            Err(Error::CommandRefused { command: Command::TlbiS12Vmall { .. }, reason: CommandError::Illegal })
        ));
        model.grant(nic, vm.frame, 4096);
        smmu.attach(nic, &vm.s2).expect("the queue works again");
        assert_eq!(smmu.counters().commands.refused, 1);
        model.assert_clean();
    }
}

#[test]
fn a_command_that_cannot_be_read_once_is_tried_again() {
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let mut smmu = take_over(&model);
    let vmid = Vmid::new(1).expect("a vmid");
    model.refuse(S12_VMALL, 2, 1);
    assert!(matches!(smmu.flush_vmid(vmid), Err(Error::CommandRefused { .. })));
    assert_eq!(model.executed(S12_VMALL), 1, "executed at the second try");
    model.refuse(S12_VMALL, 2, u32::MAX);
    assert!(matches!(smmu.flush_vmid(vmid), Err(Error::CommandRefused { .. })), "bounded");
    // A queue that stays halted takes nothing more in: it would run over.
    for _ in 0..300 {
        assert!(smmu.flush_vmid(vmid).is_err());
    }
    model.assert_clean();
}

#[test]
fn a_detach_that_is_refused_quarantines_until_one_succeeds() {
    for config in every_config() {
        for opcode in [0x03, S12_VMALL] {
            let model = Model::new(config);
            let mut smmu = take_over(&model);
            let vm = vm(&model, 1);
            let nic = StreamId(0x8);
            model.grant(nic, vm.frame, 4096);
            smmu.attach(nic, &vm.s2).expect("attach");
            model.refuse(opcode, 1, 1);
            assert!(smmu.detach(nic).is_err());
            let state = smmu.find_stream(nic).map(|info| info.state);
            assert_eq!(state, Some(StreamState::Quarantined));
            let again = Error::StreamQuarantined { stream: nic };
            assert_eq!(smmu.attach(nic, &vm.s2), Err(again));
            assert_eq!(smmu.attach(StreamId(0x10), &vm.s2), Err(again), "its vmid neither");
            let _ = smmu.detach(nic).expect("detach");
            model.revoke(nic);
            model.release(vm.frame, 4096);
            assert!(model.dma(nic, IOVA, DmaAccess::Write).is_contained());
            model.assert_clean();
        }
    }
}

#[test]
fn a_stuck_queue_ends_in_an_error_within_the_bound_and_a_quarantine() {
    for config in every_config() {
        let model = Model::new(config);
        let mut smmu = take_over(&model);
        let vm = vm(&model, 1);
        let nic = StreamId(0x8);
        model.grant(nic, vm.frame, 4096);
        smmu.attach(nic, &vm.s2).expect("attach");
        model.fail(Failure::StuckQueue);
        let before = model.clone().now_us();
        assert!(matches!(smmu.detach(nic), Err(Error::QueueStuck { .. })));
        let took = model.clone().now_us() - before;
        assert!(took < 300_000, "{took} us");
        assert_eq!(smmu.find_stream(nic).map(|info| info.state), Some(StreamState::Quarantined));
        assert!(matches!(smmu.flush_vmid(vm.s2.vmid), Err(Error::QueueStuck { .. })));
        let other = super::vm(&model, 2);
        assert!(matches!(smmu.attach(StreamId(0x10), &other.s2), Err(Error::QueueStuck { .. })));
        model.repair();
        let _ = smmu.detach(nic).expect("detach");
        model.revoke(nic);
        model.release(vm.frame, 4096);
        model.assert_clean();
        assert!(smmu.counters().commands.timeouts >= 3);
    }
}

#[test]
fn a_wild_consumer_index_is_an_error() {
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let mut smmu = take_over(&model);
    model.fail(Failure::WildCons);
    let vmid = Vmid::new(1).expect("a vmid");
    assert!(matches!(smmu.flush_vmid(vmid), Err(Error::QueueCorrupt { .. })));
}

#[test]
fn a_flush_that_fails_stops_every_stream_of_its_vmid() {
    for config in every_config() {
        let model = Model::new(config);
        let mut smmu = take_over(&model);
        let (ours, theirs) = (vm(&model, 1), vm(&model, 2));
        smmu.attach(StreamId(8), &ours.s2).expect("attach");
        smmu.attach(StreamId(0x108), &ours.s2).expect("attach");
        smmu.attach(StreamId(16), &theirs.s2).expect("attach");
        model.refuse(S12_VMALL, 1, 1);
        assert!(smmu.flush_vmid(ours.s2.vmid).is_err());
        for (stream, state, word0) in [
            (8, StreamState::Quarantined, 0),
            (0x108, StreamState::Quarantined, 0),
            (16, StreamState::Attached, 0b1101),
        ] {
            let info = smmu.find_stream(StreamId(stream)).expect("known");
            assert_eq!(info.state, state);
            assert_eq!(model.entry(StreamId(stream)).expect("an entry")[0], word0);
        }
        let _ = smmu.detach(StreamId(8)).expect("detach");
        let _ = smmu.detach(StreamId(0x108)).expect("detach");
        smmu.attach(StreamId(8), &ours.s2).expect("attach");
        model.assert_clean();
    }
}

#[test]
fn a_level_1_descriptor_that_was_not_forgotten_is_so_at_the_next_attach() {
    for config in every_config() {
        let model = Model::new(config);
        let mut smmu = take_over(&model);
        let vm = vm(&model, 1);
        let (first, second) = (StreamId(0x108), StreamId(0x110));
        model.grant(second, vm.frame, 4096);
        // The SMMU caches that there is no level-2 table.
        let _ = model.dma(second, super::IOVA, DmaAccess::Read);
        model.refuse(0x03, 1, 1);
        assert!(smmu.attach(first, &vm.s2).is_err());
        let _ = smmu.detach(first).expect("detach");
        smmu.attach(second, &vm.s2).expect("attach");
        let outcome = model.dma(second, super::IOVA, DmaAccess::Read);
        assert!(!outcome.is_contained(), "{config:x?} {outcome:?}");
        model.assert_clean();
    }
}
