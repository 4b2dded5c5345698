//! Tests with damaged device trees: an error or a machine, never a panic, never a hang.

use std::{vec, vec::Vec};

use proptest::prelude::{ProptestConfig, any, prop_assert, prop_oneof, proptest};

use super::{Machine, MachineError, sample::virt};
use crate::ids::PciFunction;

#[test]
fn refuses_what_is_no_tree() {
    assert!(matches!(Machine::from_dtb(&[]), Err(MachineError::Truncated { .. })));
    assert_eq!(Machine::from_dtb(b"\x7fELF....").expect_err("ELF"), MachineError::BadMagic(0x7f45_4c46));
    let dtb = virt().to_dtb();
    for length in 0..dtb.len() {
        assert!(Machine::from_dtb(&dtb[..length]).is_err(), "{length} bytes");
    }
    let field = |offset: usize, value: u32| {
        let mut dtb = dtb.clone();
        dtb[offset..offset + 4].copy_from_slice(&value.to_be_bytes());
        Machine::from_dtb(&dtb).expect_err("a bad header")
    };
    assert_eq!(field(4, 39), MachineError::BadHeader { field: "totalsize", value: 39 });
    assert_eq!(field(4, (2 << 20) + 1), MachineError::TooLarge((2 << 20) + 1));
    assert_eq!(field(20, 3), MachineError::BadVersion(3, 16));
    assert_eq!(field(24, 18), MachineError::BadVersion(17, 18));
    assert!(matches!(field(8, 0xffff_ffff), MachineError::BadHeader { field: "size_dt_struct", .. }));
    assert!(matches!(field(12, 0xffff_fff0), MachineError::BadHeader { field: "size_dt_strings", .. }));
    assert!(matches!(field(16, 0xffff_fff0), MachineError::BadHeader { field: "off_mem_rsvmap", .. }));
}

/// A tree nested too deep, one of its nodes never closed, a second root: each ends with an error.
#[test]
fn refuses_malformed_structures() {
    let build = |tokens: &[u32]| {
        let structure: Vec<u8> = tokens.iter().flat_map(|token| token.to_be_bytes()).collect();
        let size = u32::try_from(structure.len()).expect("small");
        let header = [0xd00d_feed, 60 + size, 56, 56 + size, 40, 17, 16, 0, 4, size, 0, 0, 0, 0];
        let mut dtb: Vec<u8> = header.iter().flat_map(|word: &u32| word.to_be_bytes()).collect();
        dtb.extend(structure);
        dtb.extend(b"a\0\0\0");
        Machine::from_dtb(&dtb).map(|_| ())
    };
    assert_eq!(build(&[1, 0, 2, 9]), Ok(()));
    let deep: Vec<u32> = [1, 0].repeat(17).into_iter().chain([2; 17]).chain([9]).collect();
    let as_deep_as_can_be: Vec<u32> = [1, 0].repeat(16).into_iter().chain([2; 16]).chain([9]).collect();
    assert_eq!(build(&as_deep_as_can_be), Ok(()));
    let wide = |nodes| [1, 0].into_iter().chain([1, 0, 2].repeat(nodes)).chain([2, 9]).collect::<Vec<u32>>();
    assert_eq!(build(&wide(16_383)), Ok(()));
    let too_many = MachineError::TooMany { what: "nodes", limit: 16_384 };
    assert_eq!(build(&wide(16_384)), Err(too_many));
    let wrong: [&[u32]; 12] = [
        &deep,
        &[],
        &[9],
        &[1],
        &[1, 0],
        &[1, 0, 2],
        &[1, 0, 9],
        &[1, 0, 2, 1, 0, 2, 9],
        &[1, 0, 2, 9, 9],
        &[1, 0, 3, 5, 0, 2, 9],
        &[1, 0, 3, 0, 9, 2, 9],
        &[1, 0, 1, 0, 2, 3, 0, 0, 2, 9],
    ];
    for tokens in wrong {
        let error = build(tokens).expect_err("malformed");
        assert!(matches!(error, MachineError::Malformed { .. }), "{tokens:?}: {error}");
    }
}

/// QEMU's tree, built once.
fn good() -> &'static [u8] {
    static DTB: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    DTB.get_or_init(|| virt().to_dtb())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Any bytes, and any damage to a good tree, end with a machine or an error.
    #[test]
    fn never_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..256),
        edits in proptest::collection::vec((any::<u16>(), prop_oneof![any::<u8>(), 0_u8..10]), 1..8),
        length in any::<u16>(),
    ) {
        let _ = Machine::from_dtb(&bytes);
        let mut dtb = good().to_vec();
        let total = dtb.len();
        for (place, value) in &edits {
            dtb[usize::from(*place) % total] = *value;
        }
        let _ = Machine::from_dtb(&dtb);
        let _ = Machine::console_of(&dtb);
        let _ = Machine::from_dtb(&dtb[..usize::from(length) % total]);
    }

    /// Cells of the tree changed at random, its structure intact: the readers themselves are reached.
    #[test]
    fn never_panics_on_odd_properties(
        edits in proptest::collection::vec((any::<u16>(), prop_oneof![any::<u32>(), 0_u32..6, 0x8000_u32..0x8009]), 1..6),
    ) {
        let mut dtb = good().to_vec();
        let word = |dtb: &[u8], place: usize| {
            let bytes = dtb[place..].first_chunk().expect("four bytes");
            usize::try_from(u32::from_be_bytes(*bytes)).expect("64-bit host")
        };
        let mut values = vec![];
        let mut at = word(&dtb, 8);
        loop {
            match word(&dtb, at) {
                1 => at += 4 + (dtb[at + 4..].iter().position(|&b| b == 0).expect("a name") + 1).next_multiple_of(4),
                3 => {
                    let length = word(&dtb, at + 4);
                    values.extend((at + 12..at + 12 + length).step_by(4).filter(|place| place + 4 <= at + 12 + length));
                    at += 12 + length.next_multiple_of(4);
                }
                9 => break,
                _ => at += 4,
            }
        }
        for (place, value) in edits {
            let place = values[usize::from(place) % values.len()];
            dtb[place..place + 4].copy_from_slice(&value.to_be_bytes());
        }
        if let Ok(machine) = Machine::from_dtb(&dtb) {
            for id in [0, 8, 0x10, 0x100, 0xffff] {
                let function = PciFunction::from_routing_id(0, id);
                let _ = (machine.stream_of(function), machine.intx_of(function, 1));
                prop_assert!(machine.pci_hosts.iter().all(|host| host.config_space(function).is_none_or(|c| c.size_bytes() == 4096)));
            }
        }
    }
}
