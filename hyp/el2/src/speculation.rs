//! Branch predictor hardening at the guest boundary (DEN 0028, SMCCC_ARCH_WORKAROUND_1 to _3; rule 23).

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use aarch64_cpu::registers::{ID_AA64PFR0_EL1, Readable};
use smccc::arch::{SMCCC_ARCH_WORKAROUND_1, SMCCC_ARCH_WORKAROUND_2, SMCCC_ARCH_WORKAROUND_3};

use crate::firmware;

/// Function id of the SMC that `vectors.s` makes on every exit, or 0 where none is needed.
///
/// One word for the machine: a CPU that does not need the call gets a cheap return from firmware that offers it.
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
    // Branch history injection concerns CPUs with CSV2 too, so the third workaround is asked for first (DEN 0070).
    if firmware::arch_feature(SMCCC_ARCH_WORKAROUND_3) == Some(0) {
        SMC_ON_EXIT.store(SMCCC_ARCH_WORKAROUND_3, Relaxed);
        return BranchHardening::Firmware;
    }
    if ID_AA64PFR0_EL1.get() >> 56 & 0xf != 0 {
        return BranchHardening::Hardware;
    }
    if firmware::arch_feature(SMCCC_ARCH_WORKAROUND_1) == Some(0) {
        // Another kind of core may need the third, which does what the first does.
        let _ = SMC_ON_EXIT.compare_exchange(0, SMCCC_ARCH_WORKAROUND_1, Relaxed, Relaxed);
        return BranchHardening::Firmware;
    }
    BranchHardening::None
}

/// Turns the mitigation of speculative store bypass on again: the guest that was here may have turned it off.
pub fn start_vcpu() {
    if firmware::arch_feature(SMCCC_ARCH_WORKAROUND_2) == Some(0) {
        firmware::workaround(SMCCC_ARCH_WORKAROUND_2, 1);
    }
}
