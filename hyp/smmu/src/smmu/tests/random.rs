//! A random life of an SMMU against a naive model of who owns what.

use std::vec::Vec;

use bulkhead_core::{addr::AddrRange, ids::StreamId};
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

use super::{HOLE, IOVA, S12_VMALL, Vm, every_config, take_over, vm};
use crate::{
    error::Error,
    model::{DmaAccess, Model, ModelConfig, Outcome},
    smmu::StreamState,
};

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
