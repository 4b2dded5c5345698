//! Every reason to refuse an SMMU, and what the two known ones offer.

use std::string::ToString;

use super::{FeatureError, Features, IdRegisters};
use crate::model::ModelConfig;

const QEMU: IdRegisters = ModelConfig::QEMU;

#[test]
fn qemu_is_read_as_measured() {
    let features = Features::from_idr(&QEMU, 44).expect("features");
    assert_eq!(
        features,
        Features {
            has_stage1: true,
            has_asid16: true,
            has_two_level_table: true,
            sid_bits: 16,
            has_vmid16: true,
            is_coherent: true,
            has_range_invalidation: true,
            bbm_level: 2,
            has_access_flag_update: false,
            has_broadcast_tlb: false,
            has_hyp: false,
            has_ats: false,
            has_pri: false,
            has_msi: false,
            has_type_override: false,
            stall_model: 1,
            is_terminate_only: true,
            cmdq_log2: 19,
            eventq_log2: 19,
            oas_bits: 44,
            minor_version: 0,
        }
    );
    assert_eq!(
        features.to_string(),
        "SMMUv3.0: stage 1+2, 44 address bits, 16 stream bits in a 2-level table, VMID 16, coherent, range invalidation"
    );
}

#[test]
fn mmu600_is_read_as_linux_logs_it() {
    let features = Features::from_idr(&ModelConfig::MMU600, 48).expect("features");
    assert!(!features.is_coherent && !features.has_range_invalidation);
    assert!(features.has_ats && features.has_msi && features.has_hyp && features.has_type_override);
    assert_eq!((features.cmdq_log2, features.eventq_log2, features.oas_bits), (16, 15, 48));
}

/// Would miss: access flags asked of an SMMU whose walks do not snoop, or that has none.
#[test]
fn access_flags_need_httu_and_coherent_walks() {
    let has = |id: IdRegisters| Features::from_idr(&id, 40).expect("features");
    assert!(!has(QEMU).has_access_flag_update);
    for httu in 1..=3 {
        let id = IdRegisters { idr0: QEMU.idr0 | httu << 6, ..QEMU };
        assert!(has(id).has_access_flag_update);
        assert!(!has(id).forced_non_coherent().has_access_flag_update);
        assert!(!has(IdRegisters { idr0: id.idr0 & !(1 << 4), ..id }).has_access_flag_update);
    }
}

#[test]
fn a_stage_2_only_smmu_is_fine() {
    let id = IdRegisters { idr0: 0x0d44_1019, ..QEMU };
    assert!(!Features::from_idr(&id, 40).expect("features").has_stage1);
}

#[test]
fn every_reason_to_refuse() {
    let with0 = |idr0| IdRegisters { idr0, ..QEMU };
    let with1 = |idr1| IdRegisters { idr1, ..QEMU };
    let with5 = |idr5| IdRegisters { idr5, ..QEMU };
    let aarch32_only = QEMU.idr0 & !(3 << 2) | 1 << 2;
    let no_tables = QEMU.idr0 & !(3 << 2);
    let big = QEMU.idr0 | 3 << 21;
    let reserved_endian = QEMU.idr0 & !(3 << 21) | 1 << 21;
    let forced_stall = QEMU.idr0 & !(3 << 24) | 2 << 24;
    let small_cmdq = QEMU.idr1 & !(31 << 21) | 3 << 21;
    let small_eventq = QEMU.idr1 & !(31 << 16) | 3 << 16;
    for (id, needed, expected) in [
        (with0(0x0d44_101a), 40, FeatureError::NoStage2 { idr0: 0x0d44_101a }),
        (with0(aarch32_only), 40, FeatureError::NoAarch64Tables { idr0: aarch32_only }),
        (with0(no_tables), 40, FeatureError::NoAarch64Tables { idr0: no_tables }),
        (with0(big), 40, FeatureError::NoLittleEndian { idr0: big }),
        (with0(reserved_endian), 40, FeatureError::NoLittleEndian { idr0: reserved_endian }),
        (with0(forced_stall), 40, FeatureError::ForcedStall { idr0: forced_stall }),
        (with5(0x64), 40, FeatureError::NoGranule4K { idr5: 0x64 }),
        (with5(0x77), 40, FeatureError::UnknownOas { idr5: 0x77 }),
        (QEMU, 45, FeatureError::OasTooSmall { oas_bits: 44, needed_bits: 45 }),
        (with5(0x70), 33, FeatureError::OasTooSmall { oas_bits: 32, needed_bits: 33 }),
        (with1(small_cmdq), 40, FeatureError::QueueTooSmall { queue: "command", log2: 3, needed_log2: 4 }),
        (with1(small_eventq), 40, FeatureError::QueueTooSmall { queue: "event", log2: 3, needed_log2: 4 }),
        (with1(QEMU.idr1 | 1 << 30), 40, FeatureError::Preset { idr1: QEMU.idr1 | 1 << 30 }),
        (with1(QEMU.idr1 | 1 << 29), 40, FeatureError::Preset { idr1: QEMU.idr1 | 1 << 29 }),
        (IdRegisters { aidr: 0x10, ..QEMU }, 40, FeatureError::NotV3 { aidr: 0x10 }),
    ] {
        assert_eq!(Features::from_idr(&id, needed), Err(expected));
        let message = expected.to_string();
        assert!(!message.ends_with('.') && message.len() > 10, "{message}");
    }
}

#[test]
fn both_or_either_endianness_that_has_little_is_fine() {
    for endian in [0, 2] {
        let idr0 = QEMU.idr0 & !(3 << 21) | endian << 21;
        assert!(Features::from_idr(&IdRegisters { idr0, ..QEMU }, 40).is_ok());
    }
}

#[test]
fn vmids_have_8_or_16_bits() {
    let features = Features::from_idr(&QEMU, 40).expect("features");
    assert_eq!(features.max_vmid(), 0xffff);
    let id = IdRegisters { idr0: QEMU.idr0 & !(1 << 18), ..QEMU };
    assert_eq!(Features::from_idr(&id, 40).expect("features").max_vmid(), 0xff);
}
