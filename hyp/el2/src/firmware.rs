//! Calls to the firmware: PSCI and SMCCC, by the conduit that the device tree names.

use bulkhead_core::{addr::PhysAddr, ids::Mpidr};
use smccc::{Hvc, Smc, arch, psci};
use spin::Once;

/// How the firmware is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// `smc #0`.
    Smc,
    /// `hvc #0`: an outer hypervisor is the firmware.
    Hvc,
}

static CONDUIT: Once<Conduit> = Once::new();

/// Settles the conduit. Without this call no firmware is called: an SMC without firmware never returns on some boards.
pub fn set_conduit(conduit: Conduit) {
    CONDUIT.call_once(|| conduit);
}

/// Starts a CPU (PSCI CPU_ON): `None` without firmware.
pub fn cpu_on(cpu: Mpidr, entry: PhysAddr, context: u64) -> Option<Result<(), psci::error::Error>> {
    Some(match CONDUIT.get()? {
        Conduit::Smc => psci::cpu_on::<Smc>(cpu.as_u64(), entry.as_u64(), context),
        Conduit::Hvc => psci::cpu_on::<Hvc>(cpu.as_u64(), entry.as_u64(), context),
    })
}

/// Powers the machine off. Returns only when it could not.
pub fn system_off() -> Option<()> {
    // A success does not return.
    let _ = match CONDUIT.get()? {
        Conduit::Smc => psci::system_off::<Smc>(),
        Conduit::Hvc => psci::system_off::<Hvc>(),
    };
    None
}

/// The firmware's PSCI version as major and minor.
pub fn psci_version() -> Option<(u16, u16)> {
    let version = match CONDUIT.get()? {
        Conduit::Smc => psci::version::<Smc>(),
        Conduit::Hvc => psci::version::<Hvc>(),
    };
    version.ok().map(|version| (version.major, version.minor))
}

/// SMCCC_ARCH_FEATURES for one function: `Some(value >= 0)` where the firmware has it.
pub fn arch_feature(function: u32) -> Option<u32> {
    // SMCCC_VERSION itself is there from PSCI 1.0 with PSCI_FEATURES on (DEN 0028 7.2).
    if psci_version()? < (1, 0) {
        return None;
    }
    match CONDUIT.get()? {
        Conduit::Smc => {
            psci::psci_features::<Smc>(arch::SMCCC_VERSION).ok()?;
            arch::features::<Smc>(function).ok()
        }
        Conduit::Hvc => {
            psci::psci_features::<Hvc>(arch::SMCCC_VERSION).ok()?;
            arch::features::<Hvc>(function).ok()
        }
    }
}

/// Forwards a guest's SMCCC_ARCH_WORKAROUND call.
pub fn workaround(function: u32, argument: u64) -> Option<()> {
    let argument = u32::try_from(argument & 0xffff_ffff).unwrap_or(0);
    let arguments = [argument, 0, 0, 0, 0, 0, 0];
    match CONDUIT.get()? {
        Conduit::Smc => smccc::smc32(function, arguments),
        Conduit::Hvc => smccc::hvc32(function, arguments),
    };
    Some(())
}
