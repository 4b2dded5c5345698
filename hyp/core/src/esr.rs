//! Why a guest came to EL2: ESR_EL2, FAR_EL2 and HPFAR_EL2 as one value.
//!
//! Source: DDI 0487, ESR_ELx and HPFAR_EL2. Every value of the registers decodes to something.

mod fault;
#[cfg(test)]
mod tests;

pub use self::fault::{Abort, FaultKind, Transfer};

/// The register and direction of a trapped MSR, MRS or system instruction (ISS of class 0x18).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SysregAccess {
    /// The register.
    pub register: Sysreg,
    /// General register, 31 for xzr.
    pub rt: u8,
    /// A read (MRS), else a write (MSR).
    pub is_read: bool,
}

/// A system register by its encoding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Sysreg {
    /// op0, 2 or 3 for registers.
    pub op0: u8,
    /// op1.
    pub op1: u8,
    /// CRn.
    pub crn: u8,
    /// CRm.
    pub crm: u8,
    /// op2.
    pub op2: u8,
}

impl Sysreg {
    /// The register `S<op0>_<op1>_C<crn>_C<crm>_<op2>`.
    pub const fn new(op0: u8, op1: u8, crn: u8, crm: u8, op2: u8) -> Self {
        Self { op0, op1, crn, crm, op2 }
    }

    /// op0, op1, CRn, CRm, op2.
    pub const fn fields(self) -> (u8, u8, u8, u8, u8) {
        (self.op0, self.op1, self.crn, self.crm, self.op2)
    }
}

impl core::fmt::Display for Sysreg {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "S{}_{}_C{}_C{}_{}", self.op0, self.op1, self.crn, self.crm, self.op2)
    }
}

/// A synchronous exception from a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trap {
    /// WFI, WFE, WFIT or WFET.
    Wfx {
        /// An event wait, else an interrupt wait.
        is_event: bool,
    },
    /// HVC from AArch64, with its immediate.
    Hvc(u16),
    /// SMC from AArch64, with its immediate. The PC is at the SMC itself.
    Smc(u16),
    /// MSR, MRS or a system instruction.
    Sysreg(SysregAccess),
    /// FP, SIMD, SVE or SME: something that EL2 keeps from the guest.
    FloatingPoint,
    /// An instruction fetch that stage 2 refused.
    InstructionAbort(Abort),
    /// A load or store that stage 2 refused.
    DataAbort(Abort),
    /// Any other class.
    Other {
        /// ESR_EL2.EC.
        class: u8,
        /// ESR_EL2.ISS.
        iss: u32,
    },
}

impl Trap {
    /// Decodes the three registers as they were after the exception.
    pub fn decode(esr: u64, far: u64, hpfar: u64) -> Self {
        let class = field(esr, 26, 6);
        let [a, b, c, d, ..] = esr.to_le_bytes();
        // ISS is bits 24:0; IL and EC are above.
        let iss = u32::from_le_bytes([a, b, c, d & 1]);
        let immediate = u16::from_le_bytes([a, b]);
        match class {
            0x01 => Self::Wfx { is_event: iss & 1 == 1 },
            0x07 | 0x19 | 0x1d => Self::FloatingPoint,
            0x16 => Self::Hvc(immediate),
            0x17 => Self::Smc(immediate),
            0x18 => Self::Sysreg(SysregAccess {
                register: Sysreg::new(
                    field(esr, 20, 2),
                    field(esr, 14, 3),
                    field(esr, 10, 4),
                    field(esr, 1, 4),
                    field(esr, 17, 3),
                ),
                rt: field(esr, 5, 5),
                is_read: iss & 1 == 1,
            }),
            0x20 => Self::InstructionAbort(Abort::decode(iss, far, hpfar)),
            0x24 => Self::DataAbort(Abort::decode(iss, far, hpfar)),
            _ => Self::Other { class, iss },
        }
    }
}

/// `count` bits, at most 8, of `value` from bit `first`.
const fn field(value: u64, first: u32, count: u32) -> u8 {
    (value >> first).to_le_bytes()[0] & (0xff >> (8 - count))
}
