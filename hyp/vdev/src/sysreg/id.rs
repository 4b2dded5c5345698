//! The AArch64 ID registers, field by field: an allow-list.
//!
//! A field that no table names reads 0. In most fields 0 means "absent"; those where it does not, or where something
//! else is wanted than what the CPU says, have a rule of their own and the reason beside it. Field places: DDI 0487
//! D24.2 (ID_AA64*_EL1).

use bulkhead_core::esr::Sysreg;

/// What becomes of one 4-bit field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rule {
    /// As the CPU has it.
    Keep,
    /// This value, whatever the CPU has.
    Fixed(u64),
    /// At most this, compared as unsigned.
    AtMost(u64),
    /// At most this, where 8 to 15 stand for negative numbers: 0xf means "absent".
    SignedAtMost(u64),
}

/// A field by its lowest bit.
type Field = (u32, Rule);

/// An ID register that a guest sees something of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum IdRegister {
    /// ID_AA64PFR0_EL1.
    Pfr0,
    /// ID_AA64PFR1_EL1.
    Pfr1,
    /// ID_AA64DFR0_EL1.
    Dfr0,
    /// ID_AA64ISAR0_EL1.
    Isar0,
    /// ID_AA64ISAR1_EL1.
    Isar1,
    /// ID_AA64ISAR2_EL1.
    Isar2,
    /// ID_AA64MMFR0_EL1.
    Mmfr0,
    /// ID_AA64MMFR1_EL1.
    Mmfr1,
    /// ID_AA64MMFR2_EL1.
    Mmfr2,
}

impl IdRegister {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Pfr0,
        Self::Pfr1,
        Self::Dfr0,
        Self::Isar0,
        Self::Isar1,
        Self::Isar2,
        Self::Mmfr0,
        Self::Mmfr1,
        Self::Mmfr2,
    ];

    /// Its encoding.
    pub const fn encoding(self) -> Sysreg {
        let (crm, op2) = match self {
            Self::Pfr0 => (4, 0),
            Self::Pfr1 => (4, 1),
            Self::Dfr0 => (5, 0),
            Self::Isar0 => (6, 0),
            Self::Isar1 => (6, 1),
            Self::Isar2 => (6, 2),
            Self::Mmfr0 => (7, 0),
            Self::Mmfr1 => (7, 1),
            Self::Mmfr2 => (7, 2),
        };
        Sysreg::new(3, 0, 0, crm, op2)
    }

    /// The register with this encoding.
    pub fn from_encoding(encoding: Sysreg) -> Option<Self> {
        Self::ALL.into_iter().find(|register| register.encoding() == encoding)
    }

    /// What the guest sees where the CPU has `raw`.
    pub fn filter(self, raw: u64) -> u64 {
        self.fields().iter().fold(0, |value, &(shift, rule)| {
            let field = raw >> shift & 15;
            let seen = match rule {
                Rule::Keep => field,
                Rule::Fixed(fixed) => fixed,
                Rule::AtMost(limit) => field.min(limit),
                Rule::SignedAtMost(limit) if field < 8 => field.min(limit),
                Rule::SignedAtMost(_) => field,
            };
            value | seen << shift
        })
    }

    const fn fields(self) -> &'static [Field] {
        match self {
            Self::Pfr0 => PFR0,
            Self::Pfr1 => PFR1,
            Self::Dfr0 => DFR0,
            Self::Isar0 => ISAR0,
            Self::Isar1 => ISAR1,
            Self::Isar2 => ISAR2,
            Self::Mmfr0 => MMFR0,
            Self::Mmfr1 => MMFR1,
            Self::Mmfr2 => MMFR2,
        }
    }
}

/// Absent: EL2, EL3, RAS, SVE, SEL2, MPAM, AMU, RME.
const PFR0: &[Field] = &[
    (0, Rule::Fixed(1)),   // EL0: AArch64 only
    (4, Rule::Fixed(1)),   // EL1: AArch64 only
    (16, Rule::Keep),      // FP: 0xf is absent
    (20, Rule::Keep),      // AdvSIMD: 0xf is absent
    (24, Rule::Fixed(1)),  // GIC: system registers of GICv3
    (48, Rule::AtMost(1)), // DIT
    (56, Rule::AtMost(1)), // CSV2; from 2 on there is SCXTNUM, which is trapped (HCR_EL2.EnSCXT is 0)
    (60, Rule::AtMost(1)), // CSV3
];

/// Absent: MTE, RAS_frac, MPAM_frac, SME, RNDR_trap, CSV2_frac (SCXTNUM again), NMI, GCS, THE, DF2, PFAR.
const PFR1: &[Field] = &[
    (0, Rule::AtMost(1)), // BT: branch targets
    (4, Rule::AtMost(2)), // SSBS
];

/// Absent: trace, PMU (PMUVer 0), SPE, trace filter and buffer, multi-threaded PMU, BRBE.
const DFR0: &[Field] = &[
    (0, Rule::Fixed(6)), // DebugVer: ARMv8.0, the least that there is; its registers read 0 and ignore writes
    (12, Rule::Fixed(1)), // BRPs: 2 breakpoints, the least
    (20, Rule::Fixed(1)), // WRPs: 2 watchpoints, the least
    (28, Rule::Fixed(0)), // CTX_CMPs: 1, the least
    (36, Rule::Fixed(15)), // DoubleLock: 0 is present, 0xf is absent
];

/// Absent: TME (bit 24).
const ISAR0: &[Field] = &[
    (4, Rule::AtMost(2)),  // AES, PMULL
    (8, Rule::AtMost(1)),  // SHA1
    (12, Rule::AtMost(2)), // SHA2
    (16, Rule::AtMost(1)), // CRC32
    (20, Rule::AtMost(2)), // Atomic (LSE)
    (28, Rule::AtMost(1)), // RDM
    (32, Rule::AtMost(1)), // SHA3
    (36, Rule::AtMost(1)), // SM3
    (40, Rule::AtMost(1)), // SM4
    (44, Rule::AtMost(1)), // DP
    (48, Rule::AtMost(1)), // FHM
    (52, Rule::AtMost(2)), // TS: flag manipulation
    (56, Rule::AtMost(2)), // TLB: outer shareable, range; not trapped (HCR_EL2.TTLBOS is 0)
    (60, Rule::AtMost(1)), // RNDR
];

/// Absent: XS and LS64, which HCRX_EL2 would have to enable. PAuth needs HCR_EL2.API and APK, which EL2 sets.
const ISAR1: &[Field] = &[
    (0, Rule::AtMost(2)),  // DPB: DC CVAP, CVADP
    (4, Rule::AtMost(5)),  // APA
    (8, Rule::AtMost(5)),  // API
    (12, Rule::AtMost(1)), // JSCVT
    (16, Rule::AtMost(1)), // FCMA
    (20, Rule::AtMost(3)), // LRCPC
    (24, Rule::AtMost(1)), // GPA
    (28, Rule::AtMost(1)), // GPI
    (32, Rule::AtMost(1)), // FRINTTS
    (36, Rule::AtMost(1)), // SB
    (40, Rule::AtMost(1)), // SPECRES
    (44, Rule::AtMost(2)), // BF16
    (48, Rule::AtMost(1)), // DGH
    (52, Rule::AtMost(1)), // I8MM
];

/// Absent: MOPS (HCRX_EL2.MSCEn), 128-bit registers, RPRFM, PRFMSLC, LUT, ATS1A.
const ISAR2: &[Field] = &[
    (0, Rule::AtMost(2)),  // WFxT
    (4, Rule::AtMost(1)),  // RPRES
    (8, Rule::AtMost(1)),  // GPA3
    (12, Rule::AtMost(5)), // APA3
    (20, Rule::AtMost(1)), // BC
    (24, Rule::AtMost(1)), // PAC_frac
    (28, Rule::AtMost(1)), // CLRBHB
    (52, Rule::AtMost(1)), // CSSC
];

/// Absent: big-endian (what traps is emulated little-endian), secure memory, ExS, FGT, ECV. The granules of stage 2 read
/// 0, "as stage 1".
const MMFR0: &[Field] = &[
    (0, Rule::AtMost(2)),        // PARange: 40 bits; the IPA space has 39
    (4, Rule::Keep),             // ASIDBits
    (20, Rule::AtMost(1)),       // TGran16, without 52-bit addresses
    (24, Rule::SignedAtMost(0)), // TGran64: 0 is present, 0xf is absent
    (28, Rule::SignedAtMost(0)), // TGran4: 0 is present, 0xf is absent
];

/// Absent: VMIDBits, VH, LO, SpecSEI, XNX, TWED, HCX, TIDCP1, CMOW.
const MMFR1: &[Field] = &[
    (0, Rule::AtMost(2)),  // HAFDBS
    (12, Rule::AtMost(2)), // HPDS
    (20, Rule::AtMost(3)), // PAN
    (36, Rule::AtMost(2)), // ETS
    (44, Rule::AtMost(1)), // AFP
    (48, Rule::AtMost(1)), // nTLBPA
    (60, Rule::AtMost(1)), // ECBHB
];

/// Absent: IESB (RAS), NV, FWB, EVT.
const MMFR2: &[Field] = &[
    (0, Rule::AtMost(1)),  // CnP
    (4, Rule::AtMost(1)),  // UAO
    (8, Rule::AtMost(1)),  // LSM
    (16, Rule::AtMost(1)), // VARange
    (20, Rule::AtMost(1)), // CCIDX: must be the CPU's, CCSIDR_EL1 is not trapped
    (28, Rule::AtMost(1)), // ST
    (32, Rule::AtMost(1)), // AT
    (36, Rule::AtMost(1)), // IDS
    (48, Rule::AtMost(1)), // TTL
    (52, Rule::AtMost(2)), // BBM
    (60, Rule::AtMost(1)), // E0PD
];
