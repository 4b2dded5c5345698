//! Golden words, re-derived from IHI 0070 5.2 by hand; and no bypass, ever.

use bulkhead_core::{
    addr::{Ipa, PhysAddr},
    ids::Vmid,
    stage1::ContextTable,
    stage2::S2Config,
};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::{Recording, Ste, SteError};
use crate::{features::Features, model::ModelConfig};

fn features() -> Features {
    Features::from_idr(&ModelConfig::QEMU, 40).expect("features")
}

fn config() -> S2Config {
    S2Config {
        vmid: Vmid::new(0x1234).expect("a vmid"),
        root: PhysAddr::new(0xab_cdef_f000),
        ipa_bits: 39,
        output_bits: 40,
    }
}

#[test]
fn golden_abort() {
    assert_eq!(Ste::abort().words(), &[1, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn golden_stage_2() {
    let ste = Ste::stage2(&config(), &features(), Recording::On).expect("an entry");
    // V, Config 0b110 at bit 1.
    let word0 = 1 | 0b110 << 1;
    // MEV is bit 83.
    let word1 = 1 << (83 - 64);
    let word2 = 0x1234 // S2VMID, 143:128
        | 25 << (160 - 128) // S2T0SZ
        | 1 << (166 - 128) // S2SL0: level 1
        | 1 << (168 - 128) // S2IR0: write-back
        | 1 << (170 - 128) // S2OR0: write-back
        | 3 << (172 - 128) // S2SH0: inner
        | 2 << (176 - 128) // S2PS: 40 bits
        | 1 << (179 - 128) // S2AA64
        | 1 << (182 - 128) // S2PTW
        | 1 << (186 - 128); // S2R
    // S2TTB, 247:196: the address in place.
    let word3 = 0xab_cdef_f000;
    assert_eq!(ste.words(), &[word0, word1, word2, word3, 0, 0, 0, 0]);
    assert_eq!(ste.words()[2], 0x044a_3559_0000_1234);
}

#[test]
fn silence_differs_in_s2r_alone() {
    let loud = Ste::stage2(&config(), &features(), Recording::On).expect("an entry");
    let quiet = Ste::stage2(&config(), &features(), Recording::Off).expect("an entry");
    let differing: [u64; 8] = core::array::from_fn(|at| loud.words()[at] ^ quiet.words()[at]);
    assert_eq!(differing, [0, 0, 1 << (186 - 128), 0, 0, 0, 0, 0]);
}

#[test]
fn walks_are_not_cached_where_the_smmu_is_not_coherent() {
    let features = features().forced_non_coherent();
    let ste = Ste::stage2(&config(), &features, Recording::On).expect("an entry");
    // S2IR0, S2OR0 0, S2SH0 outer.
    assert_eq!(ste.words()[2] >> (168 - 128) & 0x3f, 0b10_00_00);
}

#[test]
fn shareability_is_incoming_only_where_it_can_be_said() {
    let features = Features::from_idr(&ModelConfig::MMU600, 40).expect("features");
    let ste = Ste::stage2(&config(), &features, Recording::On).expect("an entry");
    assert_eq!(ste.words()[1], 1 << (83 - 64) | 1 << (108 - 64));
}

/// Would miss: S2HD, which lets the SMMU make pages writable, and S2HA where it is ILLEGAL (HTTU = 0).
#[test]
fn access_flags_are_updated_where_the_smmu_can() {
    let able = Features::from_idr(&ModelConfig::HTTU, 40).expect("features");
    let plain = Ste::stage2(&config(), &features(), Recording::On).expect("an entry");
    let updating = Ste::stage2(&config(), &able, Recording::On).expect("an entry");
    let differing: [u64; 8] = core::array::from_fn(|at| plain.words()[at] ^ updating.words()[at]);
    assert_eq!(differing, [0, 0, 1 << (184 - 128), 0, 0, 0, 0, 0]);
}

/// Would miss: concatenated tables of which the SMMU walks others, since it takes the low bits of their address as 0.
#[test]
fn concatenated_tables_are_aligned_to_their_size() {
    let at = |root, ipa_bits| {
        Ste::stage2(&S2Config { root: PhysAddr::new(root), ipa_bits, ..config() }, &features(), Recording::On)
    };
    assert!(at(0x8000, 33).is_ok() && at(0x9000, 39).is_ok());
    assert!(matches!(at(0x9000, 33), Err(SteError::Root { .. })));
    assert!(matches!(at(0x1_8000, 34), Err(SteError::Root { .. })));
}

#[test]
fn every_size_and_vmid_makes_stage_2_or_nothing() {
    for ipa_bits in 0..=64 {
        for output_bits in [32, 36, 39, 40, 42, 44, 48] {
            for vmid in [1, 0xff, 0x100, 0xffff] {
                let vmid = Vmid::new(vmid).expect("a vmid");
                let root = PhysAddr::new(0x1_0000);
                let config = S2Config { vmid, ipa_bits, output_bits, root };
                let made = Ste::stage2(&config, &features(), Recording::On);
                if (31..=39).contains(&ipa_bits) {
                    let words = *made.expect("an entry").words();
                    assert_eq!(words[0] & 0xf, 0b1101);
                    assert_eq!(words[2] >> 32 & 63, 64 - u64::from(ipa_bits));
                    assert_eq!(words[2] >> 38 & 3, u64::from(ipa_bits > 34));
                    assert_eq!(words[2] & 0xffff, u64::from(vmid.as_u16()));
                    let ps = [32, 36, 40, 42, 44, 48][(words[2] >> 48 & 7) as usize];
                    assert!(ps <= output_bits.min(44));
                } else {
                    assert_eq!(made, Err(SteError::IpaBits { ipa_bits, min: 31, max: 39 }));
                }
            }
        }
    }
}

#[test]
fn roots_that_no_register_holds_are_refused() {
    for root in [0, 0x4000_0001, 0x4000_0800, 1 << 44, 1 << 48, 1 << 52, u64::MAX] {
        let root = PhysAddr::new(root);
        let made = Ste::stage2(&S2Config { root, ..config() }, &features(), Recording::On);
        assert_eq!(made, Err(SteError::Root { root, oas_bits: 44 }));
    }
}

#[test]
fn wide_vmids_need_vmid16() {
    let mut id = ModelConfig::QEMU;
    id.idr0 &= !(1 << 18);
    let features = Features::from_idr(&id, 40).expect("features");
    let made = Ste::stage2(&config(), &features, Recording::On);
    assert_eq!(made, Err(SteError::Vmid { vmid: config().vmid, max: 255 }));
}

const CONTEXT: ContextTable = ContextTable { at: Ipa::new(0x12_3456_7840), inner: 1, outer: 3, shareability: 2 };

#[test]
fn golden_nested() {
    let ste = Ste::nested(&config(), &CONTEXT, &features()).expect("an entry");
    let stage2 = Ste::stage2(&config(), &features(), Recording::On).expect("an entry");
    // V, Config 0b111 at bit 1, S1Fmt 5:4 zero, S1ContextPtr 55:6 in place, S1CDMax 63:59 zero.
    assert_eq!(ste.words()[0], 1 | 0b111 << 1 | 0x12_3456_7840);
    // S1DSS 65:64, S1CIR 67:66, S1COR 69:68, S1CSH 71:70, MEV 83.
    assert_eq!(ste.words()[1], 0b10 | 1 << 2 | 3 << 4 | 2 << 6 | 1 << (83 - 64));
    assert_eq!(ste.words()[2..], stage2.words()[2..], "the stage-2 half is ours, whole");
    // S1STALLD 91 where stalls can be configured: ILLEGAL elsewhere (5.5).
    let stalling = Features::from_idr(&ModelConfig::MMU600, 40).expect("features");
    let ste = Ste::nested(&config(), &CONTEXT, &stalling).expect("an entry");
    let stage2 = Ste::stage2(&config(), &stalling, Recording::On).expect("an entry");
    assert_eq!(ste.words()[1] ^ stage2.words()[1], 0b10 | 1 << 2 | 3 << 4 | 2 << 6 | 1 << (91 - 64));
}

#[test]
fn invalid_is_zero() {
    assert_eq!(Ste::invalid().words(), &[0; 8]);
}

/// Would miss: a nested entry where the SMMU has no stage 1, and one that fetches past what stage 2 takes in.
#[test]
fn what_cannot_be_nested_is_refused() {
    let id = crate::features::IdRegisters { idr0: ModelConfig::QEMU.idr0 & !(1 << 1), ..ModelConfig::QEMU };
    let plain = Features::from_idr(&id, 40).expect("features");
    assert_eq!(Ste::nested(&config(), &CONTEXT, &plain), Err(SteError::NoStage1));
    for at in [0x4000_0020, 0x4000_0001, 1 << 39, 1 << 52, !63] {
        let at = Ipa::new(at);
        let made = Ste::nested(&config(), &ContextTable { at, ..CONTEXT }, &features());
        assert_eq!(made, Err(SteError::Context { at, ipa_bits: 39 }));
    }
    let roots = S2Config { root: PhysAddr::new(0), ..config() };
    assert!(matches!(Ste::nested(&roots, &CONTEXT, &features()), Err(SteError::Root { .. })));
}

proptest! {
    /// Would miss: a guest's value that reaches a field which is not its own.
    #[test]
    fn a_guest_decides_the_pointer_and_its_attributes_alone(
        at in any::<u64>(), inner in any::<u8>(), outer in any::<u8>(), shareability in any::<u8>(),
    ) {
        let at = if at & 1 == 0 { at & 0x7f_ffff_ffc0 } else { at };
        let context = ContextTable { at: Ipa::new(at), inner, outer, shareability };
        let base = Ste::nested(&config(), &CONTEXT, &features()).expect("an entry");
        if let Ok(ste) = Ste::nested(&config(), &context, &features()) {
            let differing: [u64; 8] = core::array::from_fn(|word| ste.words()[word] ^ base.words()[word]);
            prop_assert_eq!(differing[0] & !0x7f_ffff_ffc0, 0);
            prop_assert_eq!(differing[1] & !0xfc, 0);
            prop_assert_eq!(&differing[2..], &[0; 6]);
        } else {
            prop_assert!(at & 63 != 0 || at >> 39 != 0);
        }
    }
}
