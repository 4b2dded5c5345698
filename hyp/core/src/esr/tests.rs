//! Syndromes: golden words, and no value without a meaning.

use proptest::prelude::{any, prop_assert_eq, proptest};

use super::{Abort, FaultKind, Sysreg, SysregAccess, Transfer, Trap};
use crate::addr::Ipa;

#[test]
fn a_word_store_to_an_unmapped_page_is_told_whole() {
    // EC 0x24, IL, ISV, SAS = 2, SRT = 3, WnR, DFSC = translation at level 3.
    let esr = 0x24 << 26 | 1 << 25 | 1 << 24 | 2 << 22 | 3 << 16 | 1 << 6 | 7;
    let trap = Trap::decode(esr, 0xffff_8000_0900_0018, 0x9_0000);
    assert_eq!(
        trap,
        Trap::DataAbort(Abort {
            kind: FaultKind::Translation,
            ipa: Some(Ipa::new(0x0900_0018)),
            virtual_address: 0xffff_8000_0900_0018,
            is_write: true,
            is_table_walk: false,
            is_cache_maintenance: false,
            transfer: Some(Transfer { size_bytes: 4, register: 3, is_signed: false, is_64_bit: false }),
        })
    );
}

#[test]
fn a_pair_has_no_transfer_and_an_external_abort_no_address() {
    let Trap::DataAbort(abort) = Trap::decode(0x24 << 26 | 5, 0x1000, 0x10) else { panic!("a data abort") };
    assert_eq!((abort.transfer, abort.ipa), (None, Some(Ipa::new(0x1000))));
    let Trap::DataAbort(abort) = Trap::decode(0x24 << 26 | 0x10, 0x1000, 0x10) else { panic!("a data abort") };
    assert_eq!((abort.kind, abort.ipa), (FaultKind::External, None));
}

/// HPFAR_EL2 is unknown after a permission fault of stage 2 itself: a stale page must not be shown.
#[test]
fn a_permission_fault_has_an_address_on_a_walk_alone() {
    let decode = |esr| match Trap::decode(esr, 0x321, 0x80_0000) {
        Trap::InstructionAbort(abort) => (abort.kind, abort.ipa),
        trap => panic!("an instruction abort, not {trap:?}"),
    };
    assert_eq!(decode(0x20 << 26 | 0x0f), (FaultKind::Permission, None));
    assert_eq!(decode(0x20 << 26 | 1 << 7 | 0x0d), (FaultKind::Permission, Some(Ipa::new(0x8000_0000))));
}

#[test]
fn each_fault_code_has_its_kind() {
    for code in 0..64_u8 {
        let kind = match code {
            0..=3 => FaultKind::AddressSize,
            4..=7 => FaultKind::Translation,
            8..=11 => FaultKind::AccessFlag,
            12..=15 => FaultKind::Permission,
            0x10 | 0x14..=0x17 => FaultKind::External,
            0x21 => FaultKind::Alignment,
            0x35 => FaultKind::UnsupportedExclusive,
            other => FaultKind::Other(other),
        };
        let Trap::DataAbort(abort) = Trap::decode(0x24 << 26 | u64::from(code), 0, 0) else { panic!("a data abort") };
        assert_eq!(abort.kind, kind);
    }
}

#[test]
fn a_walk_tells_the_page_alone() {
    let Trap::InstructionAbort(abort) = Trap::decode(0x20 << 26 | 1 << 7 | 6, 0x4321, 0x80_0000) else {
        panic!("an instruction abort")
    };
    assert_eq!((abort.is_table_walk, abort.ipa), (true, Some(Ipa::new(0x8000_0000))));
}

#[test]
fn reading_id_aa64pfr0_el1_into_x7_decodes_to_its_encoding() {
    // S3_0_C0_C4_0: op0 21:20, op2 19:17, op1 16:14, CRn 13:10, Rt 9:5, CRm 4:1, read 0.
    let trap = Trap::decode(0x18 << 26 | 3 << 20 | 7 << 5 | 4 << 1 | 1, 0, 0);
    let register = Sysreg::new(3, 0, 0, 4, 0);
    assert_eq!(trap, Trap::Sysreg(SysregAccess { register, rt: 7, is_read: true }));
    assert_eq!(std::format!("{register}"), "S3_0_C0_C4_0");
}

#[test]
fn each_of_the_64_classes_decodes_and_unknown_ones_keep_their_number() {
    for class in 0..64_u8 {
        let trap = Trap::decode(u64::from(class) << 26 | 0x1234, 0, 0);
        match class {
            0x01 => assert_eq!(trap, Trap::Wfx { is_event: false }),
            0x16 => assert_eq!(trap, Trap::Hvc(0x1234)),
            0x17 => assert_eq!(trap, Trap::Smc(0x1234)),
            0x07 | 0x19 | 0x1d => assert_eq!(trap, Trap::FloatingPoint),
            0x18 => assert!(matches!(trap, Trap::Sysreg(_))),
            0x20 => assert!(matches!(trap, Trap::InstructionAbort(_))),
            0x24 => assert!(matches!(trap, Trap::DataAbort(_))),
            _ => assert_eq!(trap, Trap::Other { class, iss: 0x1234 }),
        }
    }
}

proptest! {
    /// Would miss nothing that panics: any three registers.
    #[test]
    fn nothing_panics(esr in any::<u64>(), far in any::<u64>(), hpfar in any::<u64>()) {
        let trap = Trap::decode(esr, far, hpfar);
        prop_assert_eq!(trap, Trap::decode(esr & 0xffff_ffff, far, hpfar & 0x0fff_ffff_fff0));
    }
}
