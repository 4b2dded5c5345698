//! Two VMs with a stage 1 each, under the same ASIDs and addresses: what they reach, and what they are told.

mod random;

use bulkhead_core::{
    addr::{Iova, Ipa},
    ids::{StreamId, Vmid},
    stage1::{ContextTable, Stage1Flush, Stage1Pages, StreamConfig},
    stage2::S2Config,
};

use super::{every_config, take_over};
use crate::{
    event::{Event, Reason},
    model::{DmaAccess, Guest, Model, ModelConfig, Outcome},
    smmu::{Smmu, StreamState},
};

const IPA: Ipa = Ipa::new(0x4000_0000);
/// An address that stage 2 alone has as well.
const VA: Iova = Iova::new(0x4000_7000);

/// A VM with two contexts, a table each: ASID 1 for the first, 2 for the second.
struct NestedVm {
    guest: Guest,
    s2: S2Config,
    contexts: [Ipa; 2],
    tables: [Ipa; 2],
    data: [Ipa; 4],
}

impl NestedVm {
    fn new(model: &Model, vmid: u16) -> Self {
        let mut guest = Guest::new(model, IPA, 24);
        let page = guest.take_page();
        let contexts = [page, Ipa::new(page.as_u64() + 64)];
        let tables = [guest.take_page(), guest.take_page()];
        let data = [guest.take_page(), guest.take_page(), guest.take_page(), guest.take_page()];
        for (asid, (context, table)) in (1..).zip(contexts.into_iter().zip(tables)) {
            guest.write_context(context, asid, table);
        }
        let vmid = Vmid::new(vmid).expect("not zero");
        let s2 = S2Config { vmid, root: guest.stage2.root(), ipa_bits: 39, output_bits: 40 };
        Self { guest, s2, contexts, tables, data }
    }

    /// The first page that nothing else is in.
    fn page(&mut self, va: Iova, table: usize, data: Option<usize>) {
        let leaf = data.map_or(0, |data| Guest::leaf(self.data[data], true, false));
        self.guest.store_leaf(self.tables[table], va.as_u64(), leaf);
    }

    fn config(&self, context: usize) -> StreamConfig {
        StreamConfig::Stage1(ContextTable { at: self.contexts[context], inner: 1, outer: 1, shareability: 3 })
    }

    fn reaches(&self, data: usize) -> Outcome {
        Outcome::Translated(self.guest.frame(self.data[data]))
    }

    fn attach(&self, model: &Model, smmu: &mut Smmu<Model>, stream: StreamId) {
        let (start, bytes) = self.guest.memory();
        model.grant(stream, start, bytes);
        smmu.attach(stream, &self.s2).expect("attach");
    }
}

fn flush_page(asid: Option<u16>, va: Iova) -> Stage1Flush {
    Stage1Flush::Pages(Stage1Pages { asid, first: va.as_u64(), pages: 1, is_leaf: true })
}

/// Would miss: a flush that names another VM's VMID, or a context that is found by another's ASID.
#[test]
fn the_same_asid_and_address_of_two_vms_are_two() {
    for config in every_config() {
        let model = Model::new(config);
        let mut smmu = take_over(&model);
        let mut vms = [NestedVm::new(&model, 1), NestedVm::new(&model, 2)];
        let streams = [StreamId(8), StreamId(0x108)];
        for (vm, stream) in vms.iter_mut().zip(streams) {
            vm.page(VA, 0, Some(1));
            model.attack_with(stream, VA);
            vm.attach(&model, &mut smmu, stream);
            smmu.configure(stream, &vm.config(0)).expect("configure");
        }
        for (vm, stream) in vms.iter().zip(streams) {
            assert_eq!(model.dma(stream, VA, DmaAccess::Write), vm.reaches(1), "{config:x?}");
        }
        for flush in [flush_page(Some(1), VA), flush_page(None, VA), Stage1Flush::Asid(1), Stage1Flush::All] {
            let cached = |vm: &NestedVm| model.cached_stage1(vm.s2.vmid, 1, VA);
            assert_eq!(vms.each_ref().map(cached), vms.each_ref().map(|vm| Some(vm.guest.frame(vm.data[1]))));
            model.end_attacks();
            let ticket = smmu.submit_stage1(vms[0].s2.vmid, [flush].into_iter()).expect("room");
            let _synced = smmu.wait(ticket).expect("done");
            assert_eq!(cached(&vms[0]), None);
            assert!(cached(&vms[1]).is_some());
            assert_eq!(model.dma(streams[0], VA, DmaAccess::Read), vms[0].reaches(1));
        }
        let _ = smmu.detach(streams[0]).expect("detach");
        model.revoke(streams[0]);
        let (start, bytes) = vms[0].guest.memory();
        model.release(start, bytes);
        assert_eq!(model.dma(streams[1], VA, DmaAccess::Write), vms[1].reaches(1));
        model.assert_clean();
    }
}

/// Would miss: a fault of the guest's own that it is not told of, or one of stage 2 that says more than its own SMMU.
#[test]
fn a_guest_is_told_of_its_own_faults() {
    const VIRTUAL: StreamId = StreamId(3);
    const STREAM: StreamId = StreamId(8);
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let mut smmu = take_over(&model);
    let mut vm = NestedVm::new(&model, 1);
    let far = Ipa::new(0x70_0000_0000);
    let hole = Iova::new(0x1000);
    vm.page(VA, 0, Some(0));
    vm.guest.store_leaf(vm.tables[0], VA.as_u64() + 0x1000, Guest::leaf(vm.data[0], false, false));
    vm.guest.store_leaf(vm.tables[0], VA.as_u64() + 0x2000, Guest::leaf(far, true, false));
    // A level-1 descriptor that leads nowhere.
    vm.guest.write(Ipa::new(vm.tables[0].as_u64() + 8 * 8), far.as_u64() | 3);
    vm.attach(&model, &mut smmu, STREAM);
    let told = |smmu: &mut Smmu<Model>, va: Iova| {
        let outcome = model.dma(STREAM, va, DmaAccess::Write);
        assert!(outcome.is_contained());
        let mut records = Vec::new();
        smmu.poll_events(10, |event, info| {
            records.push((info.map(|info| info.config), event.for_guest(VIRTUAL).map(Event::decode)));
        });
        assert_eq!(records.len(), 1, "{outcome:?}");
        let (config, shown) = records.pop().expect("one");
        assert!(config.is_some_and(|config| config != StreamConfig::Bypass));
        shown.map(|event| (event.reason, event.stream, event.iova, event.stage, event.fetch_addr))
    };
    let at = |offset| Iova::new(VA.as_u64() + offset);
    let stage1 = |reason, va| Some((reason, VIRTUAL, Some(va), Some(1), None));
    smmu.configure(STREAM, &vm.config(0)).expect("configure");
    assert_eq!(told(&mut smmu, hole), stage1(Reason::Translation, hole));
    assert_eq!(told(&mut smmu, at(0x1000)), stage1(Reason::Permission, at(0x1000)));
    // Its device writes where it has no memory: an abort, and nothing in the queue of an SMMU of its own.
    assert_eq!(told(&mut smmu, at(0x2000)), None);
    let nowhere = Iova::new(8 << 30);
    let walk = Some((Reason::WalkAbort, VIRTUAL, Some(nowhere), Some(1), Some(far.as_u64())));
    assert_eq!(told(&mut smmu, nowhere), walk);
    smmu.configure(STREAM, &StreamConfig::Invalid).expect("configure");
    assert_eq!(told(&mut smmu, VA), Some((Reason::BadSte, VIRTUAL, None, None, None)));
    let empty = ContextTable { at: vm.data[3], inner: 0, outer: 0, shareability: 0 };
    smmu.configure(STREAM, &StreamConfig::Stage1(empty)).expect("configure");
    assert_eq!(told(&mut smmu, VA), Some((Reason::BadCd, VIRTUAL, None, None, None)));
    smmu.configure(STREAM, &StreamConfig::Stage1(ContextTable { at: far, ..empty })).expect("configure");
    assert_eq!(told(&mut smmu, VA), Some((Reason::CdFetch, VIRTUAL, None, None, Some(far.as_u64()))));
    model.assert_clean();
}

/// Would miss: a guest whose stage 1 floods the event queue, which S2R does not stop.
#[test]
fn a_flood_of_stage_1_ends_in_abort() {
    const STREAM: StreamId = StreamId(8);
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let mut smmu = take_over(&model);
    let vm = NestedVm::new(&model, 1);
    vm.attach(&model, &mut smmu, STREAM);
    let flood = |smmu: &mut Smmu<Model>| {
        for _ in 0..100 {
            let _ = model.dma(STREAM, VA, DmaAccess::Write);
        }
        let polled = smmu.poll_events(1000, |_, _| {});
        (polled.seen, polled.reported, smmu.find_stream(STREAM).map(|info| info.state))
    };
    smmu.configure(STREAM, &vm.config(0)).expect("configure");
    assert_eq!(flood(&mut smmu), (100, 32, Some(StreamState::Aborted)));
    smmu.configure(STREAM, &vm.config(1)).expect("configure");
    assert_eq!(flood(&mut smmu), (0, 0, Some(StreamState::Aborted)));
    // What a stream did before its stage 1 costs it its quiet, and one more budget.
    let _ = smmu.detach(STREAM).expect("detach");
    smmu.attach(STREAM, &vm.s2).expect("attach");
    smmu.configure(STREAM, &StreamConfig::Invalid).expect("configure");
    assert_eq!(flood(&mut smmu), (100, 32, Some(StreamState::Silenced)));
    assert_eq!(flood(&mut smmu).0, 0);
    smmu.configure(STREAM, &vm.config(0)).expect("configure");
    assert_eq!(flood(&mut smmu), (100, 32, Some(StreamState::Aborted)));
    assert_eq!(model.dma(STREAM, VA, DmaAccess::Write), Outcome::Aborted);
    model.assert_clean();
}
