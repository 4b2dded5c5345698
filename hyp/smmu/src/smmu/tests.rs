//! The driver against the strict model: no violation, whatever the SMMU is like.

use std::{vec, vec::Vec};

use bulkhead_core::{
    addr::{AddrRange, Iova, Ipa, PhysAddr},
    ids::{SmmuId, StreamId, Vmid},
    stage2::S2Config,
};
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

use super::{Config, MAX_STREAMS, Smmu, StreamState, panic_abort};
use crate::{
    error::Error,
    event::Reason,
    features::{FeatureError, IdRegisters},
    model::{Caching, DmaAccess, Failure, Model, ModelConfig, Outcome, TestTable, Visibility},
    platform::Platform,
};

/// Opcodes, as IHI 0070 chapter 4 has them.
const S12_VMALL: u8 = 0x28;
const S2_IPA: u8 = 0x2a;
const SYNC: u8 = 0x46;

const IPA: Ipa = Ipa::new(0x4000_0000);
const IOVA: Iova = Iova::new(0x4000_0000);
const HOLE: Iova = Iova::new(0x5000_0000);

fn linear(id: IdRegisters) -> IdRegisters {
    IdRegisters { idr0: id.idr0 & !(3 << 27), ..id }
}

/// Every kind of SMMU that a test of a sequence has to be run on.
fn every_config() -> Vec<ModelConfig> {
    let no_ranges = IdRegisters { idr3: 0, ..ModelConfig::QEMU };
    let mut all = Vec::new();
    for id in
        [ModelConfig::QEMU, linear(ModelConfig::QEMU), no_ranges, ModelConfig::MMU600, linear(ModelConfig::MMU600)]
    {
        for visibility in [Visibility::Late, Visibility::Early] {
            for caching in [Caching::Whole, Caching::ByWord] {
                for lag in [0, 3] {
                    for is_left_on in [false, true] {
                        all.push(ModelConfig { id, visibility, caching, lag, is_left_on });
                    }
                }
            }
        }
    }
    all
}

/// Streams up to 0x3ff: four PCI buses, linear table of 64 KiB.
fn config() -> Config {
    Config::new(40, 0x3ff)
}

fn take_over(model: &Model) -> Smmu<Model> {
    Smmu::take_over(model.clone(), SmmuId(0), config()).expect("take-over")
}

/// A VM of one page of memory, mapped at `IPA`.
struct Vm {
    s2: S2Config,
    frame: PhysAddr,
    table: TestTable,
}

fn vm(model: &Model, vmid: u16) -> Vm {
    let frame = model.alloc(1, 4096);
    let mut table = TestTable::new(model);
    table.map_page(IPA, frame, true);
    let vmid = Vmid::new(vmid).expect("a vmid");
    Vm { s2: S2Config { vmid, root: table.root(), ipa_bits: 39, output_bits: 40 }, frame, table }
}

fn reason(outcome: Outcome) -> Option<Reason> {
    match outcome {
        Outcome::Faulted(event) => Some(event.reason),
        _ => None,
    }
}

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
    assert!(matches!(smmu.attach(nic, &wide), Err(Error::Stage2(_))));
    let unaligned = S2Config { root: PhysAddr::new(0x4000_0800), ..good.s2 };
    assert!(matches!(smmu.attach(nic, &unaligned), Err(Error::Stage2(_))));
    let far = S2Config { root: PhysAddr::new(1 << 44), ..good.s2 };
    assert!(matches!(smmu.attach(nic, &far), Err(Error::Stage2(_))));
    let vmid = Vmid::new(256).expect("a vmid");
    let vmid16 = S2Config { vmid, ..good.s2 };
    assert!(matches!(smmu.attach(nic, &vmid16), Err(Error::Stage2(_))), "8-bit vmids");
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
            Err(Error::CommandRefused {
                command: crate::command::Command::TlbiS12Vmall { .. },
                reason: crate::cmdq::CommandError::Illegal,
            })
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
    model.refuse(S12_VMALL, 2, 1000);
    assert!(matches!(smmu.flush_vmid(vmid), Err(Error::CommandRefused { .. })), "bounded");
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
        let other = self::vm(&model, 2);
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
    struct High(Model);
    impl Platform for High {
        fn read32(&mut self, offset: u32) -> u32 {
            self.0.read32(offset)
        }
        fn write32(&mut self, offset: u32, value: u32) {
            self.0.write32(offset, value);
        }
        fn read64(&mut self, offset: u32) -> u64 {
            self.0.read64(offset)
        }
        fn write64(&mut self, offset: u32, value: u64) {
            self.0.write64(offset, value);
        }
        fn read_memory(&mut self, at: PhysAddr) -> u64 {
            self.0.read_memory(at)
        }
        fn write_memory(&mut self, at: PhysAddr, value: u64) {
            self.0.write_memory(at, value);
        }
        fn clean(&mut self, at: PhysAddr, bytes: u64) {
            self.0.clean(at, bytes);
        }
        fn invalidate(&mut self, at: PhysAddr, bytes: u64) {
            self.0.invalidate(at, bytes);
        }
        fn barrier(&mut self) {
            self.0.barrier();
        }
        fn alloc(&mut self, _pages: u64, _alignment: u64) -> Option<PhysAddr> {
            Some(PhysAddr::new(0x1_4000_0000))
        }
        fn now_us(&mut self) -> u64 {
            self.0.now_us()
        }
        fn relax(&mut self) {
            self.0.relax();
        }
    }
    let taken = Smmu::take_over(High(model.clone()), SmmuId(0), config()).map(|_| ());
    assert_eq!(taken, Err(Error::NotKept { register: "STRTAB_BASE", written: 0x1_4000_0000, read: 0x4000_0000 }));
    assert!(model.is_global_abort() && !model.is_enabled());
}

#[test]
fn a_stream_over_its_budget_is_silenced_and_goes_on_working() {
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let mut smmu = take_over(&model);
    let vm = vm(&model, 1);
    let nic = StreamId(0x8);
    model.grant(nic, vm.frame, 4096);
    smmu.attach(nic, &vm.s2).expect("attach");
    for _ in 0..100 {
        let _ = model.dma(nic, HOLE, DmaAccess::Write);
    }
    let mut lines = vec![];
    let polled = smmu.poll_events(1000, |event, info| {
        lines.push((event.reason, event.iova, info.map(|info| info.vmid)));
    });
    assert_eq!((polled.seen, polled.reported), (100, 32));
    assert_eq!(polled.silenced.as_slice(), [nic]);
    assert!(lines.iter().all(|line| *line == (Reason::Translation, Some(HOLE), Some(vm.s2.vmid))));
    let info = smmu.find_stream(nic).expect("known");
    assert_eq!((info.state, info.faults, info.dropped), (StreamState::Silenced, 100, 68));
    // Silent, still contained, and its own memory still works.
    assert_eq!(model.dma(nic, HOLE, DmaAccess::Write), Outcome::Aborted);
    assert_eq!(model.dma(nic, IOVA, DmaAccess::Write), Outcome::Translated(vm.frame));
    assert_eq!(smmu.poll_events(1000, |_, _| {}).seen, 0);
    assert_eq!(smmu.unsilence(nic), Ok(StreamState::Attached));
    assert_eq!(reason(model.dma(nic, HOLE, DmaAccess::Write)), Some(Reason::Translation));
    assert_eq!(smmu.silence(nic), Ok(StreamState::Silenced));
    assert_eq!(smmu.silence(nic), Ok(StreamState::Aborted), "the second time for good");
    assert_eq!(model.dma(nic, IOVA, DmaAccess::Write), Outcome::Aborted);
    let _ = smmu.detach(nic).expect("detach");
    model.assert_clean();
}

#[test]
fn reading_events_is_bounded_and_resumes_across_the_queues_end() {
    for config in every_config() {
        let model = Model::new(config);
        let mut smmu = take_over(&model);
        let mut seen = 0;
        for round in 0..40u64 {
            for step in 0..20 {
                let stream = StreamId(u32::try_from(round * 20 + step).expect("small") & 0x3ff);
                let _ = model.dma(stream, Iova::new(0), DmaAccess::Read);
            }
            let polled = smmu.poll_events(15, |_, _| {});
            assert_eq!((polled.seen, polled.has_more), (15, true));
            let polled = smmu.poll_events(15, |event, info| {
                assert!(matches!(event.reason, Reason::BadSte | Reason::BadStreamId));
                assert_eq!(info, None);
            });
            assert_eq!((polled.seen, polled.has_more, polled.has_overflowed), (5, false, false));
            seen += 20;
            model.sleep(2_000_000);
        }
        assert_eq!(smmu.counters().events, seen);
        model.assert_clean();
    }
}

#[test]
fn an_overflow_is_told_once_and_acknowledged() {
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let mut smmu = take_over(&model);
    for round in 0..3 {
        for _ in 0..300 {
            let _ = model.dma(StreamId(1), IOVA, DmaAccess::Read);
        }
        let polled = smmu.poll_events(1000, |_, _| {});
        assert_eq!((polled.seen, polled.has_overflowed), (256, true), "round {round}");
        let polled = smmu.poll_events(1000, |_, _| {});
        assert_eq!((polled.seen, polled.has_overflowed), (0, false));
    }
    assert_eq!(smmu.counters().overflows, 3);
    model.assert_clean();
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
fn global_errors_are_told_and_acknowledged_once() {
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let mut smmu = take_over(&model);
    assert_eq!(smmu.handle_gerror(), None, "firmware's errors are not ours");
    model.raise(1 << 2 | 1 << 8);
    let report = smmu.handle_gerror().expect("a report");
    assert!(report.is_dead && report.has_lost_events);
    assert_eq!(std::format!("{report}"), "EVENTQ_ABT_ERR | SFM_ERR: service failure, every transaction is aborted");
    assert_eq!(smmu.handle_gerror(), None);
    model.assert_clean();
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

/// A step of a random life of an SMMU.
#[derive(Clone, Copy, Debug)]
enum Step {
    Attach {
        stream: u8,
        vm: u8,
    },
    Detach {
        stream: u8,
    },
    Flush {
        vm: u8,
    },
    FlushRange {
        vm: u8,
        pages: u16,
    },
    Silence {
        stream: u8,
    },
    Unsilence {
        stream: u8,
    },
    Quarantine {
        stream: u8,
    },
    Dma {
        stream: u8,
        is_hole: bool,
    },
    Poll,
    /// The next command of a kind is refused.
    Refuse {
        is_tlb: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let stream = 0u8..6;
    let vm = 0u8..3;
    let step = proptest::prop_oneof![
        4 => (stream.clone(), vm.clone()).prop_map(|(stream, vm)| Step::Attach { stream, vm }),
        3 => stream.clone().prop_map(|stream| Step::Detach { stream }),
        1 => vm.clone().prop_map(|vm| Step::Flush { vm }),
        1 => (vm, 1u16..300).prop_map(|(vm, pages)| Step::FlushRange { vm, pages }),
        1 => stream.clone().prop_map(|stream| Step::Silence { stream }),
        1 => stream.clone().prop_map(|stream| Step::Unsilence { stream }),
        1 => stream.clone().prop_map(|stream| Step::Quarantine { stream }),
        4 => (stream, any::<bool>()).prop_map(|(stream, is_hole)| Step::Dma { stream, is_hole }),
        1 => proptest::strategy::Just(Step::Poll),
        1 => any::<bool>().prop_map(|is_tlb| Step::Refuse { is_tlb }),
    ];
    proptest::collection::vec(step, 1..40)
}

/// Streams on three buses, so that level-2 tables come and are shared.
const STREAMS: [StreamId; 6] =
    [StreamId(0), StreamId(8), StreamId(0xff), StreamId(0x100), StreamId(0x1ff), StreamId(0x3ff)];

fn live(config: ModelConfig, steps: &[Step]) -> Result<(), proptest::test_runner::TestCaseError> {
    let model = Model::new(config);
    for stream in STREAMS {
        model.attack_with(stream, IOVA);
    }
    let mut smmu = take_over(&model);
    let vms: Vec<Vm> = (1..=3).map(|vmid| vm(&model, vmid)).collect();
    // Whose each stream is, by a naive model: Some((vm, translating)).
    let mut owners: [Option<(usize, StreamState)>; 6] = [None; 6];
    for step in steps {
        match *step {
            Step::Attach { stream, vm } => {
                let (index, vm) = (usize::from(stream), usize::from(vm));
                let id = STREAMS[index];
                let is_free = owners[index].is_none();
                let is_vm_quarantined = owners.iter().flatten().any(|owner| *owner == (vm, StreamState::Quarantined));
                if is_free {
                    model.grant(id, vms[vm].frame, 4096);
                }
                match smmu.attach(id, &vms[vm].s2) {
                    Ok(()) => {
                        prop_assert!(is_free && !is_vm_quarantined);
                        owners[index] = Some((vm, StreamState::Attached));
                    }
                    Err(Error::CommandRefused { .. }) => {
                        if smmu.find_stream(id).is_some() {
                            owners[index] = Some((vm, StreamState::Quarantined));
                        } else {
                            model.revoke(id);
                        }
                    }
                    Err(error) => {
                        prop_assert!(!is_free || is_vm_quarantined, "{error}");
                        if is_free {
                            model.revoke(id);
                        }
                    }
                }
            }
            Step::Detach { stream } => {
                let index = usize::from(stream);
                let id = STREAMS[index];
                match smmu.detach(id) {
                    Ok(flushed) => {
                        let (vm, _) = owners[index].take().expect("owned");
                        prop_assert_eq!(flushed.vmid(), vms[vm].s2.vmid);
                        model.revoke(id);
                        if owners.iter().flatten().all(|owner| owner.0 != vm) {
                            model.release(vms[vm].table.root(), 4096);
                            model.release(vms[vm].frame, 4096);
                        }
                    }
                    Err(Error::NotAttached { .. }) => prop_assert_eq!(owners[index], None),
                    Err(_) => owners[index] = owners[index].map(|(vm, _)| (vm, StreamState::Quarantined)),
                }
            }
            Step::Flush { vm } => {
                if smmu.flush_vmid(vms[usize::from(vm)].s2.vmid).is_err() {
                    for owner in owners.iter_mut().flatten().filter(|owner| owner.0 == usize::from(vm)) {
                        owner.1 = StreamState::Quarantined;
                    }
                }
            }
            Step::FlushRange { vm, pages } => {
                let range = AddrRange::new(IOVA, u64::from(pages) * 4096).expect("a range");
                if smmu.flush_range(vms[usize::from(vm)].s2.vmid, range).is_err() {
                    for owner in owners.iter_mut().flatten().filter(|owner| owner.0 == usize::from(vm)) {
                        owner.1 = StreamState::Quarantined;
                    }
                }
            }
            Step::Silence { stream } => {
                let _ = smmu.silence(STREAMS[usize::from(stream)]);
            }
            Step::Unsilence { stream } => {
                let _ = smmu.unsilence(STREAMS[usize::from(stream)]);
            }
            Step::Quarantine { stream } => {
                let _ = smmu.quarantine(STREAMS[usize::from(stream)]);
            }
            Step::Dma { stream, is_hole } => {
                let iova = if is_hole { HOLE } else { IOVA };
                let index = usize::from(stream);
                let outcome = model.dma(STREAMS[index], iova, DmaAccess::Write);
                let state = smmu.find_stream(STREAMS[index]).map(|info| info.state);
                let does_translate = matches!(state, Some(StreamState::Attached | StreamState::Silenced));
                if does_translate && !is_hole {
                    let (vm, _) = owners[index].expect("owned");
                    prop_assert_eq!(outcome, Outcome::Translated(vms[vm].frame));
                } else if state != Some(StreamState::Quarantined) {
                    prop_assert!(outcome.is_contained());
                }
            }
            Step::Poll => {
                let polled = smmu.poll_events(64, |event, _| assert!(event.iova != Some(IOVA)));
                prop_assert!(!polled.has_more || polled.seen == 64);
            }
            Step::Refuse { is_tlb } => model.refuse(if is_tlb { S12_VMALL } else { 0x03 }, 1, 1),
        }
        for (index, owner) in owners.iter_mut().enumerate() {
            let found = smmu.find_stream(STREAMS[index]);
            prop_assert_eq!(found.map(|info| info.vmid), owner.map(|(vm, _)| vms[vm].s2.vmid));
            if let (Some(owner), Some(info)) = (owner, found) {
                owner.1 = info.state;
            }
        }
    }
    let violations = model.violations();
    prop_assert!(violations.is_empty(), "{violations:#x?}");
    Ok(())
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    /// Attacks after every step of the driver, refused commands, every kind of SMMU: never a violation.
    #[test]
    fn a_random_life_has_no_violation(
        steps in steps(),
        kind in 0..every_config().len(),
    ) {
        live(every_config()[kind], &steps)?;
    }
}
