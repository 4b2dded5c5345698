//! Branch predictor hardening at the guest boundary (DEN 0028 7.4; rule 23).

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use aarch64_cpu::registers::{ID_AA64PFR0_EL1, Readable};
use smccc::arch::{SMCCC_ARCH_WORKAROUND_1, SMCCC_ARCH_WORKAROUND_3};

use crate::firmware;

/// Function id of the SMC that `vectors.s` makes on every exit, or 0 where none is needed.
///
/// One word for the machine: a CPU that does not need the call gets a cheap return from firmware that offers it.
#[unsafe(no_mangle)]
pub static SMC_ON_EXIT: AtomicU32 = AtomicU32::new(0);

/// What stands between a guest's branch history and EL2 on this CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BranchHardening {
    /// The CPU keeps contexts apart (ID_AA64PFR0_EL1.CSV2).
    Hardware,
    /// Firmware clears the predictor on each exit.
    Firmware,
    /// Neither: the boot log says so.
    None,
}

/// Finds this CPU's protection and turns the firmware's on where it is needed.
pub fn init_cpu() -> BranchHardening {
    if ID_AA64PFR0_EL1.get() >> 56 & 0xf != 0 {
        return BranchHardening::Hardware;
    }
    for function in [SMCCC_ARCH_WORKAROUND_3, SMCCC_ARCH_WORKAROUND_1] {
        if firmware::arch_feature(function) == Some(0) {
            SMC_ON_EXIT.store(function, Relaxed);
            return BranchHardening::Firmware;
        }
    }
    BranchHardening::None
}
