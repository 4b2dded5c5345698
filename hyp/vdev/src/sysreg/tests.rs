//! ID registers of real CPUs through the filter, and the decisions on all encodings.

use super::{Action, IdRegister, access};
use crate::vgic::SgiRegister;
use bulkhead_core::esr::{Sysreg, Trap};
use proptest::prelude::{any, proptest};

/// The nine registers in the order of [`IdRegister::ALL`], as the CPU has them and as the guest must see them. The
/// expected values were put together by hand from DDI 0487 D24.2.
struct Cpu {
    name: &'static str,
    raw: [u64; 9],
    seen: [u64; 9],
}

const DFR0_SEEN: u64 = 0xf0_0010_1006;

const CPUS: [Cpu; 4] = [
    Cpu {
        name: "cortex-a72",
        raw: [0x0100_2222, 0, 0x1030_5106, 0x1_1120, 0, 0, 0x1124, 0, 0],
        seen: [0x0100_0011, 0, DFR0_SEEN, 0x1_1120, 0, 0, 0x22, 0, 0],
    },
    Cpu {
        name: "cortex-a76",
        raw: [0x1100_0000_1111_1112, 0x10, 0x1030_5408, 0x1000_1021_1120, 0x10_0001, 0, 0x10_1122, 0x1021_2122, 0x1011],
        seen: [0x1100_0000_0111_0011, 0x10, DFR0_SEEN, 0x1000_1021_1120, 0x10_0001, 0, 0x10_0022, 0x20_2002, 0x11],
    },
    Cpu {
        name: "neoverse-n1",
        raw: [
            0x1100_0000_1111_1112,
            0x20,
            0x1_1030_5408,
            0x1000_1021_1120,
            0x10_0001,
            0,
            0x10_1125,
            0x1021_2122,
            0x1011,
        ],
        seen: [0x1100_0000_0111_0011, 0x20, DFR0_SEEN, 0x1000_1021_1120, 0x10_0001, 0, 0x10_0022, 0x20_2002, 0x11],
    },
    Cpu {
        name: "max of QEMU 10",
        raw: [
            0x1301_0011_2111_1112,
            0x10_0100_0121,
            0x1000_0000_1030_560a,
            0x1221_1111_1021_2120,
            0x0111_2111_1021_1502,
            0x11_0012,
            0x2100_0323_1020_1126,
            0x0110_1120_1031_2122,
            0x1221_0111_1201_1011,
        ],
        seen: [
            0x1101_0000_0111_0011,
            0x21,
            DFR0_SEEN,
            0x1221_1111_1021_2120,
            0x0011_2111_1021_1502,
            0x10_0012,
            0x10_0022,
            0x1020_0030_2002,
            0x1021_0011_1001_0011,
        ],
    },
];

#[test]
fn guests_see_the_allowed_part_of_real_cpus() {
    for cpu in CPUS {
        for ((register, raw), seen) in IdRegister::ALL.into_iter().zip(cpu.raw).zip(cpu.seen) {
            let value = access(register.encoding(), None, |asked| {
                assert_eq!(asked, register);
                raw
            });
            assert_eq!(value, Action::Read(seen), "{} {register:?}", cpu.name);
        }
    }
}

/// A CPU without FP or SIMD, without the 4 KiB and 64 KiB granules: 0xf means absent and must stay.
#[test]
fn absent_stays_absent_where_that_is_not_zero() {
    assert_eq!(IdRegister::Pfr0.filter(0xff_0000) >> 16 & 0xff, 0xff);
    assert_eq!(IdRegister::Mmfr0.filter(0xff00_0000) >> 24 & 0xff, 0xff);
    assert_eq!(IdRegister::Mmfr0.filter(0x7700_0000) >> 24 & 0xff, 0);
}

proptest! {
    /// Whatever a future CPU has: what needs EL2's help, or would be trapped, is never shown.
    #[test]
    fn nothing_that_is_trapped_is_shown(raw in any::<u64>()) {
        let field = |register: IdRegister, shift: u32| register.filter(raw) >> shift & 15;
        // EL2, EL3, RAS, SVE, SEL2, MPAM, AMU, RME.
        for shift in [8, 12, 28, 32, 36, 40, 44, 52] {
            assert_eq!(field(IdRegister::Pfr0, shift), 0);
        }
        assert!(field(IdRegister::Pfr0, 56) <= 1, "SCXTNUM is trapped");
        assert_eq!(field(IdRegister::Pfr0, 24), 1);
        // MTE, RAS_frac, MPAM_frac, SME, RNDR_trap, CSV2_frac, NMI and up.
        assert_eq!(IdRegister::Pfr1.filter(raw) & !0xff, 0);
        assert_eq!(IdRegister::Dfr0.filter(raw), DFR0_SEEN);
        // XS, LS64, MOPS.
        assert_eq!(field(IdRegister::Isar1, 56) | field(IdRegister::Isar1, 60) | field(IdRegister::Isar2, 16), 0);
        assert!(field(IdRegister::Mmfr0, 0) <= 2);
        // BigEnd, FGT, ECV; VMIDBits, VH, XNX, HCX; IESB, NV, FWB, EVT.
        assert_eq!(field(IdRegister::Mmfr0, 8) | field(IdRegister::Mmfr0, 56) | field(IdRegister::Mmfr0, 60), 0);
        for shift in [4, 8, 28, 40] {
            assert_eq!(field(IdRegister::Mmfr1, shift), 0);
        }
        for shift in [12, 24, 40, 56] {
            assert_eq!(field(IdRegister::Mmfr2, shift), 0);
        }
    }
}

fn read(register: Sysreg) -> Action {
    access(register, None, |_| u64::MAX)
}

fn write(register: Sysreg, value: u64) -> Action {
    access(register, Some(value), |_| panic!("a write needs no value of the CPU"))
}

/// All 65,536 encodings, both ways: nothing of the CPU's shows but in the nine registers.
#[test]
fn every_encoding_has_an_answer() {
    for op0 in 0..4 {
        for op1 in 0..8 {
            for crn in 0..16 {
                for crm in 0..16 {
                    for op2 in 0..8 {
                        let register = Sysreg::new(op0, op1, crn, crm, op2);
                        assert_eq!(register.fields(), (op0, op1, crn, crm, op2));
                        let is_id = IdRegister::from_encoding(register).is_some();
                        match read(register) {
                            Action::Read(value) => assert!(is_id || value <= 8, "{register}"),
                            Action::Undefined => assert!(!is_id),
                            action => panic!("{register} read: {action:?}"),
                        }
                        assert!(!matches!(write(register, u64::MAX), Action::Read(_)), "{register}");
                        if op0 < 2 {
                            assert_eq!(read(register), Action::Undefined);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_space_of_id_registers_reads_zero_where_nothing_is_shown() {
    for crm in 1..8 {
        for op2 in 0..8 {
            let register = Sysreg::new(3, 0, 0, crm, op2);
            assert_eq!(write(register, 0), Action::Undefined);
            if IdRegister::from_encoding(register).is_none() {
                assert_eq!(read(register), Action::Read(0));
            }
        }
    }
}

/// What Linux touches while it boots must neither fault nor change anything.
#[test]
fn debug_and_pmu_registers_of_linux_boot_are_harmless() {
    for (op0, op1, crn, crm, op2) in [
        (2, 0, 0, 2, 2),   // MDSCR_EL1
        (2, 0, 1, 3, 4),   // OSDLR_EL1
        (2, 0, 0, 0, 4),   // DBGBVR0_EL1
        (2, 0, 0, 15, 7),  // DBGWCR15_EL1
        (3, 3, 9, 14, 0),  // PMUSERENR_EL0
        (3, 3, 9, 12, 0),  // PMCR_EL0
        (3, 3, 14, 15, 7), // PMCCFILTR_EL0
        (3, 0, 9, 14, 2),  // PMINTENCLR_EL1
        (3, 0, 1, 0, 1),   // ACTLR_EL1
    ] {
        let register = Sysreg::new(op0, op1, crn, crm, op2);
        assert_eq!((read(register), write(register, u64::MAX)), (Action::Read(0), Action::Ignore), "{register}");
    }
    assert_eq!(write(Sysreg::new(2, 0, 1, 0, 4), 0), Action::Ignore, "OSLAR_EL1");
    assert_eq!(read(Sysreg::new(2, 0, 1, 0, 4)), Action::Undefined);
    assert_eq!(read(Sysreg::new(2, 0, 1, 1, 4)), Action::Read(8), "OSLSR_EL1: not locked");
    assert_eq!(read(Sysreg::new(3, 0, 12, 12, 5)), Action::Read(7), "ICC_SRE_EL1");
}

#[test]
fn interrupt_registers_are_handed_on_and_write_only() {
    for (op2, register) in [(5, SgiRegister::Sgi1), (6, SgiRegister::Asgi1), (7, SgiRegister::Sgi0)] {
        let encoding = Sysreg::new(3, 0, 12, 11, op2);
        assert_eq!(write(encoding, 0x1234), Action::SgiWrite(register, 0x1234));
        assert_eq!(read(encoding), Action::Undefined);
    }
    assert_eq!(write(Sysreg::new(3, 0, 12, 11, 1), 0xff00_0028), Action::Deactivate(0x28));
}

#[test]
fn hidden_features_are_undefined() {
    for (op0, op1, crn, crm, op2) in [
        (3, 0, 1, 2, 0),  // ZCR_EL1
        (3, 0, 5, 3, 0),  // ERRIDR_EL1
        (3, 0, 9, 9, 0),  // PMSCR_EL1
        (3, 0, 9, 11, 0), // TRBLIMITR_EL1
        (3, 3, 13, 2, 0), // AMCR_EL0
        (3, 1, 15, 2, 0), // implementation-defined
        (2, 1, 0, 1, 0),  // TRCPRGCTLR
        (3, 4, 1, 1, 0),  // HCR_EL2
    ] {
        let register = Sysreg::new(op0, op1, crn, crm, op2);
        assert_eq!((read(register), write(register, 0)), (Action::Undefined, Action::Undefined), "{register}");
    }
}

/// ISS of `mrs x3, id_aa64mmfr1_el1` (S3_0_C0_C7_1), by hand: Op0 3, Op2 1, CRm 7, Rt 3, read.
#[test]
fn syndrome_names_the_register() {
    let iss = 3 << 20 | 1 << 17 | 3 << 5 | 7 << 1 | 1;
    let named_by = |iss: u64| match Trap::decode(0x18 << 26 | iss, 0, 0) {
        Trap::Sysreg(access) => access.register,
        other => panic!("{other:?}"),
    };
    assert_eq!(named_by(iss), IdRegister::Mmfr1.encoding());
    assert_eq!(std::format!("{}", named_by(iss)), "S3_0_C0_C7_1");
    let sgi = 3 << 20 | 5 << 17 | 12 << 10 | 11 << 1;
    assert_eq!(named_by(sgi), Sysreg::new(3, 0, 12, 11, 5));
}
