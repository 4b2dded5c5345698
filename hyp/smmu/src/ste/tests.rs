//! Golden words, re-derived from IHI 0070 5.2 by hand; and no bypass, ever.

use bulkhead_core::{addr::PhysAddr, ids::Vmid, stage2::S2Config};

use super::{Recording, S2Error, Ste};
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
    assert!(matches!(at(0x9000, 33), Err(S2Error::Root { .. })));
    assert!(matches!(at(0x1_8000, 34), Err(S2Error::Root { .. })));
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
                    assert_eq!(made, Err(S2Error::IpaBits { ipa_bits, min: 31, max: 39 }));
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
        assert_eq!(made, Err(S2Error::Root { root, oas_bits: 44 }));
    }
}

#[test]
fn wide_vmids_need_vmid16() {
    let mut id = ModelConfig::QEMU;
    id.idr0 &= !(1 << 18);
    let features = Features::from_idr(&id, 40).expect("features");
    let made = Ste::stage2(&config(), &features, Recording::On);
    assert_eq!(made, Err(S2Error::Vmid { vmid: config().vmid, max: 255 }));
}
