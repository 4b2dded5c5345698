//! PSCI 1.1 and SMCCC 1.1 for guests: decoding, answers, vCPU power states.
//!
//! [`Call::decode`] reads the guest's x0-x3; [`Psci::handle`] keeps the states and returns an [`Outcome`] for EL2.
//! Source: DEN 0022 (PSCI), DEN 0028 (SMCCC), DEN 0070 (workarounds).

mod call;
mod power;
mod smccc;
#[cfg(test)]
mod tests;

pub use call::Call;
pub use power::{PowerState, Psci};
pub use smccc::{HostFacts, Workaround};

/// The error code that x0 carries for whatever is not implemented.
pub const NOT_SUPPORTED: u64 = u64::MAX;

/// What EL2 does after a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Return to the guest with this x0.
    Return(u64),
    /// Start `vcpu` at `entry` (IPA, EL1 with MMU off) with x0 = `context`; return 0 to the caller. When it runs, EL2
    /// calls [`Psci::started`].
    StartVcpu {
        /// The vCPU to start.
        vcpu: usize,
        /// Its first PC, an IPA.
        entry: u64,
        /// Its x0.
        context: u64,
    },
    /// The calling vCPU is off: it stops here until another starts it.
    StopThisVcpu,
    /// Wait for an interrupt, then return 0.
    Standby,
    /// End the VM.
    SystemOff,
    /// Boot the VM again.
    SystemReset,
    /// Apply the host's mitigation (forward the call with this function id to firmware), then return 0.
    Workaround(Workaround),
}
