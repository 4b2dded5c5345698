//! Every transition between two entries, with transactions tried after every single step.

use bulkhead_core::{
    addr::{Iova, Ipa, PhysAddr},
    ids::{SmmuId, StreamId, Vmid},
    stage2::S2Config,
};

use crate::{
    model::{Caching, Model, ModelConfig, TestTable, Visibility},
    smmu::{Config, Smmu},
    ste::{Recording, Ste},
};

const IOVA: Iova = Iova::new(0x4000_0000);
const STREAM: StreamId = StreamId(0x108);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Invalid,
    Abort,
    A(Recording),
    B(Recording),
}

const KINDS: [Kind; 6] = [
    Kind::Invalid,
    Kind::Abort,
    Kind::A(Recording::On),
    Kind::A(Recording::Off),
    Kind::B(Recording::On),
    Kind::B(Recording::Off),
];

struct Vm {
    frame: PhysAddr,
    s2: S2Config,
}

fn vm(model: &Model, vmid: u16) -> Vm {
    let frame = model.alloc(1, 4096);
    let mut table = TestTable::new(model);
    table.map_page(Ipa::new(0x4000_0000), frame, true);
    let vmid = Vmid::new(vmid).expect("a vmid");
    Vm { frame, s2: S2Config { vmid, root: table.root(), ipa_bits: 39, output_bits: 40 } }
}

fn entry(kind: Kind, smmu: &Smmu<Model>, a: &Vm, b: &Vm) -> Option<Ste> {
    let stage2 = |vm: &Vm, recording| Ste::stage2(&vm.s2, smmu.features(), recording).ok();
    match kind {
        Kind::Invalid => None,
        Kind::Abort => Some(Ste::abort()),
        Kind::A(recording) => stage2(a, recording),
        Kind::B(recording) => stage2(b, recording),
    }
}

fn grant(model: &Model, kinds: [Kind; 2], a: &Vm, b: &Vm) {
    model.revoke(STREAM);
    for kind in kinds {
        match kind {
            Kind::A(_) => model.grant(STREAM, a.frame, 4096),
            Kind::B(_) => model.grant(STREAM, b.frame, 4096),
            Kind::Invalid | Kind::Abort => {}
        }
    }
}

/// Would miss nothing but what the model does not model: a mixture of two entries would put one VM's frame under the
/// other's VMID, or one VM's frame before a stream that may not reach it.
fn transition(config: ModelConfig, from: Kind, to: Kind) {
    let model = Model::new(config);
    let mut smmu = Smmu::take_over(model.clone(), SmmuId(0), Config::new(40, 0x3ff)).expect("take-over");
    let (a, b) = (vm(&model, 1), vm(&model, 2));
    grant(&model, [from, from], &a, &b);
    model.attack_with(STREAM, IOVA);
    if let Some(ste) = entry(from, &smmu, &a, &b) {
        smmu.write_entry(STREAM, &ste).expect("the first");
    }
    let (cfgi, syncs) = (model.executed(0x03), model.executed(0x46));
    grant(&model, [from, to], &a, &b);
    let Some(ste) = entry(to, &smmu, &a, &b) else { return };
    smmu.write_entry(STREAM, &ste).expect("the second");
    grant(&model, [to, to], &a, &b);
    let outcome = model.dma(STREAM, IOVA, crate::model::DmaAccess::Write);
    assert_eq!(outcome.is_contained(), to == Kind::Abort, "{from:?} to {to:?}");
    assert_eq!(model.entry(STREAM), Some(*ste.words()), "{from:?} to {to:?}");
    for vm in [&a, &b] {
        let cached = model.cached_translation(vm.s2.vmid, IOVA);
        assert!(cached.is_none_or(|output| output == vm.frame), "{from:?} to {to:?}: {cached:?}");
    }
    // Three CFGI_STE, each with its SYNC; one more for a level-1 descriptor that is new.
    let is_two_level = config.id.idr0 >> 27 & 3 == 1;
    let expected = 3 + u64::from(from == Kind::Invalid && is_two_level);
    assert_eq!(model.executed(0x03) - cfgi, expected, "{from:?} to {to:?}");
    assert_eq!(model.executed(0x46) - syncs, expected, "{from:?} to {to:?}");
    model.assert_clean();
}

#[test]
fn every_transition_is_safe_at_every_step() {
    let linear = crate::features::IdRegisters { idr0: ModelConfig::QEMU.idr0 & !(3 << 27), ..ModelConfig::QEMU };
    for id in [ModelConfig::QEMU, linear, ModelConfig::MMU600] {
        for visibility in [Visibility::Late, Visibility::Early] {
            for caching in [Caching::Whole, Caching::ByWord] {
                // The TLB starts empty, so that what is in it came from these entries.
                let config = ModelConfig { id, visibility, caching, lag: 1, is_left_on: false };
                for from in KINDS {
                    for to in KINDS {
                        transition(config, from, to);
                    }
                }
            }
        }
    }
}
