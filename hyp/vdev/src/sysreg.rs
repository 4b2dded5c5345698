//! Trapped system registers: filtered ID registers, and what of the rest is emulated.
//!
//! [`access`] decides; EL2 carries out the [`Action`]. The traps that lead here: HCR_EL2.{TID3, TACR, TIDCP, TERR, IMO,
//! FMO}, MDCR_EL2.{TDA, TDOSA, TDRA, TPM, TPMCR, TPMS}, CPTR_EL2.{TTA, TAM, TZ, TSM}, ICH_HCR_EL2.TDIR.

mod id;
#[cfg(test)]
mod tests;

pub use id::IdRegister;

use bulkhead_core::esr::Sysreg;

use crate::vgic::SgiRegister;

/// What EL2 does with a trapped access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// A read: this is its value.
    Read(u64),
    /// A write that changes nothing.
    Ignore,
    /// Inject an Undefined Instruction exception (EC 0) into EL1.
    Undefined,
    /// A write that generates an SGI: hand it to [`Vgic::sgi`](crate::vgic::Vgic::sgi).
    SgiWrite(SgiRegister, u64),
    /// A write that deactivates an interrupt: hand it to [`Vgic::deactivate`](crate::vgic::Vgic::deactivate).
    Deactivate(u32),
}

/// OSLSR_EL1: the OS lock is implemented (OSLM) and not locked.
const OSLSR_UNLOCKED: u64 = 1 << 3;
/// ICC_SRE_EL1: system registers on, no bypass (DIB, DFB, SRE); RAO/WI.
const SRE: u64 = 7;

/// Decides on an access to `register`: a write of `write`, or a read.
///
/// `raw` gives the physical CPU's value of an ID register; it is called at most once.
pub fn access(register: Sysreg, write: Option<u64>, raw: impl FnOnce(IdRegister) -> u64) -> Action {
    if is_id(register) {
        return match write {
            Some(_) => Action::Undefined,
            None => Action::Read(IdRegister::from_encoding(register).map_or(0, |id| id.filter(raw(id)))),
        };
    }
    match (policy(register), write) {
        (Policy::Zero, None) => Action::Read(0),
        (Policy::Constant(value), None) => Action::Read(value),
        (Policy::Zero | Policy::Constant(_) | Policy::WriteIgnored, Some(_)) => Action::Ignore,
        (Policy::Sgi(register), Some(value)) => Action::SgiWrite(register, value),
        (Policy::Deactivate, Some(value)) => Action::Deactivate((value & 0xff_ffff) as u32),
        (Policy::Undefined | Policy::WriteIgnored | Policy::Sgi(_) | Policy::Deactivate, _) => Action::Undefined,
    }
}

/// The space that HCR_EL2.TID3 traps: AArch32 ID registers (CRm 1 to 3), AArch64 ID registers (CRm 4 to 7). What is not
/// allocated in it reads 0; so do the AArch32 ones, as no guest runs AArch32.
fn is_id(register: Sysreg) -> bool {
    matches!(register.fields(), (3, 0, 0, 1..=7, _))
}

enum Policy {
    /// Reads 0, writes are ignored.
    Zero,
    /// Reads this, writes are ignored.
    Constant(u64),
    /// Write-only, without effect.
    WriteIgnored,
    /// Write-only.
    Sgi(SgiRegister),
    /// Write-only.
    Deactivate,
    Undefined,
}

fn policy(register: Sysreg) -> Policy {
    match register.fields() {
        // OSLAR_EL1, OSLSR_EL1, OSDLR_EL1, DBGPRCR_EL1.
        (2, 0, 1, 0, 4) => Policy::WriteIgnored,
        (2, 0, 1, 1, 4) => Policy::Constant(OSLSR_UNLOCKED),
        (2, 0, 1, 3 | 4, 4) => Policy::Zero,
        // MDRAR_EL1: no debug ROM.
        (2, 0, 1, 0, 0) => Policy::Zero,
        // DBGBVRn, DBGBCRn, DBGWVRn, DBGWCRn _EL1.
        (2, 0, 0, _, 4..=7) => Policy::Zero,
        // MDCCINT_EL1, MDSCR_EL1, OSDTRRX_EL1, OSDTRTX_EL1, OSECCR_EL1.
        (2, 0, 0, 2, 0 | 2) | (2, 0, 0, 0 | 3 | 6, 2) => Policy::Zero,
        // DBGCLAIMSET_EL1, DBGCLAIMCLR_EL1, DBGAUTHSTATUS_EL1.
        (2, 0, 7, 8 | 9 | 14, 6) => Policy::Zero,
        // MDCCSR_EL0, DBGDTR_EL0, DBGDTRRX_EL0 and DBGDTRTX_EL0.
        (2, 3, 0, 1 | 4 | 5, 0) => Policy::Zero,
        // PMU: PMCR_EL0 … PMOVSSET_EL0, PMEVCNTRn, PMEVTYPERn, PMCCFILTR; PMINTENSET_EL1, PMINTENCLR_EL1, PMMIR_EL1.
        (3, 3, 9, 12..=14, _) | (3, 3, 14, 8..=15, _) | (3, 0, 9, 14, 1 | 2 | 6) => Policy::Zero,
        // ACTLR_EL1.
        (3, 0, 1, 0, 1) => Policy::Zero,
        // ICC_SGI1R_EL1, ICC_ASGI1R_EL1, ICC_SGI0R_EL1.
        (3, 0, 12, 11, 5) => Policy::Sgi(SgiRegister::Sgi1),
        (3, 0, 12, 11, 6) => Policy::Sgi(SgiRegister::Asgi1),
        (3, 0, 12, 11, 7) => Policy::Sgi(SgiRegister::Sgi0),
        // ICC_DIR_EL1, ICC_SRE_EL1.
        (3, 0, 12, 11, 1) => Policy::Deactivate,
        (3, 0, 12, 12, 5) => Policy::Constant(SRE),
        // All else is absent: trace, SPE, TRBE, BRBE, AMU, RAS records, SVE, SME, implementation-defined registers.
        _ => Policy::Undefined,
    }
}
