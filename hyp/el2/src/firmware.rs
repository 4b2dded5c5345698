//! Calls to the firmware: PSCI and SMCCC, by the conduit that the device tree names.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bulkhead_core::{addr::PhysAddr, ids::Mpidr};
use smccc::{Smc, arch, psci};

static HAS_FIRMWARE: AtomicBool = AtomicBool::new(false);

/// Firmware answers to `smc #0`. Without this call no firmware is called: an SMC without firmware never returns on some boards.
pub fn announce() {
    HAS_FIRMWARE.store(true, Relaxed);
}

fn smc() -> Option<()> {
    HAS_FIRMWARE.load(Relaxed).then_some(())
}

/// Starts a CPU (PSCI CPU_ON): `None` without firmware.
pub fn cpu_on(cpu: Mpidr, entry: PhysAddr, context: u64) -> Option<Result<(), psci::error::Error>> {
    smc()?;
    Some(psci::cpu_on::<Smc>(cpu.as_u64(), entry.as_u64(), context))
}

/// Powers the machine off. Returns only when it could not.
pub fn system_off() -> Option<()> {
    // A success does not return.
    smc()?;
    let _ = psci::system_off::<Smc>();
    None
}

/// The firmware's PSCI version as major and minor.
pub fn psci_version() -> Option<(u16, u16)> {
    smc()?;
    let version = psci::version::<Smc>();
    version.ok().map(|version| (version.major, version.minor))
}

/// SMCCC_ARCH_FEATURES for one function: `Some(value >= 0)` where the firmware has it.
pub fn arch_feature(function: u32) -> Option<u32> {
    // SMCCC_VERSION itself is there from PSCI 1.0 with PSCI_FEATURES on (DEN 0028, SMCCC_VERSION).
    if psci_version()? < (1, 0) {
        return None;
    }
    psci::psci_features::<Smc>(arch::SMCCC_VERSION).ok()?;
    arch::features::<Smc>(function).ok()
}

/// Forwards a guest's SMCCC_ARCH_WORKAROUND call.
pub fn workaround(function: u32, argument: u64) -> Option<()> {
    let argument = u32::try_from(argument & 0xffff_ffff).unwrap_or(0);
    let arguments = [argument, 0, 0, 0, 0, 0, 0];
    smc()?;
    smccc::smc32(function, arguments);
    Some(())
}
