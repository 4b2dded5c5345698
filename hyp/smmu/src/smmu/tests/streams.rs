//! Attach, detach, flush, quarantine.

use bulkhead_core::{
    addr::{AddrRange, Iova, Ipa, PhysAddr},
    ids::{SmmuId, StreamId, Vmid},
    stage2::S2Config,
};

use super::{HOLE, IOVA, S2_IPA, S12_VMALL, SYNC, every_config, reason, take_over, vm};
use crate::{
    error::Error,
    event::Reason,
    features::IdRegisters,
    model::{DmaAccess, Model, ModelConfig, Outcome},
    smmu::{Config, MAX_STREAMS, Smmu},
};

#[test]
fn an_attached_stream_reaches_its_vm_and_nothing_else() {
    for config in every_config() {
        let model = Model::new(config);
        let mut smmu = take_over(&model);
        let (a, b) = (vm(&model, 1), vm(&model, 2));
        let (nic_a, nic_b) = (StreamId(0x8), StreamId(0x108));
        model.attack_with(nic_a, IOVA);
        model.attack_with(nic_b, IOVA);
        model.grant(nic_a, a.frame, 4096);
        smmu.attach(nic_a, &a.s2).expect("attach");
        model.grant(nic_b, b.frame, 4096);
        smmu.attach(nic_b, &b.s2).expect("attach");
        for (stream, vm) in [(nic_a, &a), (nic_b, &b)] {
            let outcome = model.dma(stream, Iova::new(0x4000_0123), DmaAccess::Write);
            assert_eq!(outcome, Outcome::Translated(PhysAddr::new(vm.frame.as_u64() + 0x123)));
            let outcome = model.dma(stream, HOLE, DmaAccess::Read);
            assert_eq!(reason(outcome), Some(Reason::Translation), "{config:x?}");
            let outcome = model.dma(stream, Iova::new(1 << 39), DmaAccess::Read);
            assert_eq!(reason(outcome), Some(Reason::Translation));
            let outcome = model.dma(stream, Iova::new(u64::MAX), DmaAccess::Write);
            assert!(outcome.is_contained());
        }
        model.assert_clean();
    }
}

#[test]
fn a_detached_stream_reaches_nothing_and_its_frames_can_be_given_up() {
    for config in every_config() {
        let model = Model::new(config);
        let mut smmu = take_over(&model);
        let vm = vm(&model, 1);
        let nic = StreamId(0x8);
        model.attack_with(nic, IOVA);
        model.grant(nic, vm.frame, 4096);
        smmu.attach(nic, &vm.s2).expect("attach");
        let flushed = smmu.detach(nic).expect("detach");
        assert_eq!(flushed.vmid(), vm.s2.vmid);
        model.revoke(nic);
        model.release(vm.frame, 4096);
        model.release(vm.table.root(), 4096);
        // Abort without a record: a dead VM's device cannot flood the queue.
        assert_eq!(model.dma(nic, IOVA, DmaAccess::Write), Outcome::Aborted, "{config:x?}");
        assert_eq!(smmu.find_stream(nic), None);
        assert_eq!(smmu.detach(nic), Err(Error::NotAttached { stream: nic }));
        model.assert_clean();
    }
}

#[test]
fn a_vmid_used_again_starts_without_translations() {
    // The first user's table is taken away with a stale translation in the TLB; the second must not see it.
    for config in every_config() {
        let model = Model::new(config);
        let mut smmu = take_over(&model);
        let (old, new) = (vm(&model, 1), vm(&model, 1));
        let nic = StreamId(0x8);
        model.grant(nic, old.frame, 4096);
        smmu.attach(nic, &old.s2).expect("attach");
        assert!(!model.dma(nic, IOVA, DmaAccess::Read).is_contained());
        let _ = smmu.detach(nic).expect("detach");
        model.revoke(nic);
        model.grant(nic, new.frame, 4096);
        smmu.attach(nic, &new.s2).expect("attach");
        assert_eq!(model.dma(nic, IOVA, DmaAccess::Read), Outcome::Translated(new.frame));
        model.assert_clean();
    }
}

#[test]
fn a_stream_has_one_owner() {
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let mut smmu = take_over(&model);
    let (a, b) = (vm(&model, 1), vm(&model, 2));
    let nic = StreamId(0x8);
    smmu.attach(nic, &a.s2).expect("attach");
    let entry = model.entry(nic);
    let owned = Error::StreamOwned { stream: nic, owner: a.s2.vmid };
    assert_eq!(smmu.attach(nic, &b.s2), Err(owned));
    assert_eq!(smmu.attach(nic, &a.s2), Err(owned));
    assert_eq!(model.entry(nic), entry, "nothing has changed");
    model.assert_clean();
}

#[test]
fn what_cannot_be_attached_changes_nothing() {
    let model =
        Model::new(ModelConfig::new(IdRegisters { idr0: ModelConfig::QEMU.idr0 & !(1 << 18), ..ModelConfig::QEMU }));
    let mut smmu = take_over(&model);
    let good = vm(&model, 1);
    let nic = StreamId(0x8);
    let before = model.executed(SYNC);
    let wide = S2Config { ipa_bits: 40, ..good.s2 };
    assert!(matches!(smmu.attach(nic, &wide), Err(Error::Entry(_))));
    let unaligned = S2Config { root: PhysAddr::new(0x4000_0800), ..good.s2 };
    assert!(matches!(smmu.attach(nic, &unaligned), Err(Error::Entry(_))));
    let far = S2Config { root: PhysAddr::new(1 << 44), ..good.s2 };
    assert!(matches!(smmu.attach(nic, &far), Err(Error::Entry(_))));
    let vmid = Vmid::new(256).expect("a vmid");
    let vmid16 = S2Config { vmid, ..good.s2 };
    assert!(matches!(smmu.attach(nic, &vmid16), Err(Error::Entry(_))), "8-bit vmids");
    let past = StreamId(0x400);
    assert_eq!(smmu.attach(past, &good.s2), Err(Error::StreamOutOfRange { stream: past, last: 0x3ff }));
    assert_eq!(model.executed(SYNC), before);
    smmu.attach(nic, &good.s2).expect("attach");
    let other = vm(&model, 1);
    let conflict = Error::VmidConflict { vmid: good.s2.vmid, root: good.s2.root };
    assert_eq!(smmu.attach(StreamId(0x10), &other.s2), Err(conflict));
    model.assert_clean();
}

#[test]
fn more_streams_than_there_is_room_for_are_refused() {
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let mut smmu = take_over(&model);
    let vm = vm(&model, 1);
    for stream in 0..64 {
        smmu.attach(StreamId(stream), &vm.s2).expect("attach");
    }
    let full = Error::Full { what: "attached stream", capacity: MAX_STREAMS };
    assert_eq!(smmu.attach(StreamId(64), &vm.s2), Err(full));
    let _ = smmu.detach(StreamId(5)).expect("detach");
    smmu.attach(StreamId(64), &vm.s2).expect("attach");
    model.assert_clean();
}

#[test]
fn pages_taken_out_of_the_table_are_unreachable_after_either_flush() {
    for config in every_config() {
        for pages in [1u64, 2, 3, 31, 33, 64, 100, 4000] {
            let model = Model::new(config);
            let mut smmu = take_over(&model);
            let mut vm = vm(&model, 1);
            let nic = StreamId(0x8);
            model.grant(nic, vm.frame, 4096);
            smmu.attach(nic, &vm.s2).expect("attach");
            let size = pages * 4096;
            let frames = model.alloc(2, 4096);
            model.grant(nic, frames, 8192);
            let base = 0x4010_0000;
            let last = base + size - 4096;
            vm.table.map_page(Ipa::new(base), frames, true);
            if pages > 1 {
                vm.table.map_page(Ipa::new(last), PhysAddr::new(frames.as_u64() + 4096), true);
            }
            assert!(!model.dma(nic, Iova::new(base), DmaAccess::Write).is_contained());
            assert!(!model.dma(nic, Iova::new(last), DmaAccess::Write).is_contained());
            vm.table.store(Ipa::new(base), 3, 0);
            vm.table.store(Ipa::new(last), 3, 0);
            let range = AddrRange::new(Iova::new(base), size).expect("a range");
            let _ = smmu.flush_range(vm.s2.vmid, range).expect("flush");
            model.revoke(nic);
            model.release(frames, 8192);
            assert!(model.dma(nic, Iova::new(base), DmaAccess::Write).is_contained());
            assert!(model.dma(nic, Iova::new(last), DmaAccess::Write).is_contained());
            let has_ranges = config.id.idr3 & 1 << 10 != 0;
            let is_by_page = model.executed(S2_IPA) != 0;
            assert_eq!(is_by_page, has_ranges || pages <= 16, "{pages} pages");
            model.assert_clean();
        }
    }
}

#[test]
fn a_quarantined_stream_without_an_owner_is_silent() {
    for config in every_config() {
        let model = Model::new(config);
        let mut smmu = take_over(&model);
        smmu.quarantine(StreamId(0x20)).expect("quarantine");
        assert_eq!(model.dma(StreamId(0x20), IOVA, DmaAccess::Write), Outcome::Aborted);
        assert_eq!(smmu.find_stream(StreamId(0x20)), None);
        let vm = vm(&model, 1);
        model.grant(StreamId(0x20), vm.frame, 4096);
        smmu.attach(StreamId(0x20), &vm.s2).expect("it can be given to a VM later");
        model.assert_clean();
    }
}

#[test]
fn translated_transactions_are_not_believed() {
    // MMU-600 has ATS; QEMU has not, and forgives.
    let model = Model::new(ModelConfig::new(ModelConfig::MMU600));
    let mut smmu = take_over(&model);
    let vm = vm(&model, 1);
    let nic = StreamId(0x8);
    model.grant(nic, vm.frame, 4096);
    smmu.attach(nic, &vm.s2).expect("attach");
    let outcome = model.dma_translated(nic, PhysAddr::new(0x4000_0000));
    assert_eq!(reason(outcome), Some(Reason::TranslatedForbidden));
    assert!(model.dma_translated(StreamId(9), PhysAddr::new(0)).is_contained());
    model.assert_clean();
}

#[test]
fn cache_maintenance_may_be_forced_on_any_smmu() {
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let forced = Config { is_forced_non_coherent: true, ..Config::new(40, 0x3ff) };
    let mut smmu = Smmu::take_over(model.clone(), SmmuId(0), forced).expect("take-over");
    assert!(!smmu.features().is_coherent);
    let vm = vm(&model, 1);
    model.grant(StreamId(8), vm.frame, 4096);
    smmu.attach(StreamId(8), &vm.s2).expect("attach");
    assert_eq!(model.dma(StreamId(8), IOVA, DmaAccess::Read), Outcome::Translated(vm.frame));
    model.assert_clean();
}

#[test]
fn a_table_taken_out_can_be_given_up_after_a_flush_of_its_range() {
    // Would miss a flush of leaves alone: the walk cache still holds the level-3 table.
    for config in every_config() {
        for pages in [1, 2, 512] {
            let model = Model::new(config);
            let mut smmu = take_over(&model);
            let mut vm = vm(&model, 1);
            let nic = StreamId(8);
            model.grant(nic, vm.frame, 4096);
            smmu.attach(nic, &vm.s2).expect("attach");
            let base = Ipa::new(0x4060_0000);
            let table = PhysAddr::new(model.alloc(1, 4096).as_u64());
            vm.table.store(base, 2, table.as_u64() | 3);
            vm.table.map_page(base, vm.frame, true);
            assert!(!model.dma(nic, Iova::identity(base), DmaAccess::Read).is_contained());
            vm.table.store(base, 2, 0);
            let range = AddrRange::new(Iova::identity(base), pages * 4096).expect("a range");
            let _ = smmu.flush_range(vm.s2.vmid, range).expect("flush");
            model.release(table, 4096);
            model.assert_clean();
        }
    }
}

#[test]
fn a_vmid_is_flushed_before_its_first_stream_alone() {
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let mut smmu = take_over(&model);
    let vm = vm(&model, 1);
    for (stream, flushes) in [(8, 1), (16, 1), (24, 1)] {
        smmu.attach(StreamId(stream), &vm.s2).expect("attach");
        assert_eq!(model.executed(S12_VMALL), flushes);
    }
    let _ = smmu.detach(StreamId(8)).expect("detach");
    assert_eq!(model.executed(S12_VMALL), 2);
    model.assert_clean();
}
