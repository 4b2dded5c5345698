//! Power states of one VM's vCPUs.

use super::{Call, HostFacts, NOT_SUPPORTED, Outcome, smccc::sign_extend};
use arm_psci::{
    AffinityInfo, EntryPoint, ErrorCode, Function, FunctionId, MigrateInfoType, Mpidr, PowerState as SuspendState,
    PsciFeature, Version,
};
use bulkhead_core::vplat::{VCPUS_MAX, vcpu_mpidr};

/// SMCCC_VERSION's answer: 1.1.
const SMCCC_VERSION: u64 = 0x1_0001;

/// Power state of a vCPU (DEN 0022 6.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PowerState {
    /// Off.
    #[default]
    Off,
    /// CPU_ON was accepted; it has not run yet.
    OnPending,
    /// Running.
    On,
}

/// PSCI of one VM. Not locked: EL2 holds one lock around it.
#[derive(Clone, Debug)]
pub struct Psci {
    states: [PowerState; VCPUS_MAX],
    vcpu_count: usize,
    host: HostFacts,
}

impl Psci {
    /// A VM of `vcpu_count` vCPUs (taken as 1 to 8), vCPU 0 on and the others off.
    pub fn new(vcpu_count: usize, host: HostFacts) -> Self {
        let mut psci = Self { states: [PowerState::Off; VCPUS_MAX], vcpu_count: vcpu_count.clamp(1, VCPUS_MAX), host };
        psci.reset();
        psci
    }

    /// As after [`Psci::new`].
    pub fn reset(&mut self) {
        self.states = [PowerState::Off; VCPUS_MAX];
        if let Some(boot) = self.states.first_mut() {
            *boot = PowerState::On;
        }
    }

    /// A vCPU's state; `Off` for one that does not exist.
    pub fn state(&self, vcpu: usize) -> PowerState {
        self.states.get(vcpu).copied().unwrap_or_default()
    }

    /// A started vCPU is about to run: pending becomes on.
    pub fn started(&mut self, vcpu: usize) {
        if let Some(state) = self.states.get_mut(vcpu)
            && *state == PowerState::OnPending
        {
            *state = PowerState::On;
        }
    }

    /// Whether every vCPU is off.
    pub fn all_off(&self) -> bool {
        self.states.iter().all(|&state| state == PowerState::Off)
    }

    /// Does what `vcpu` calls for. `is_ram` says whether an IPA may be an entry point.
    pub fn handle(&mut self, vcpu: usize, call: Call, is_ram: impl FnOnce(u64) -> bool) -> Outcome {
        match call {
            Call::Psci(function) => self.function(vcpu, function, is_ram),
            Call::Malformed(code) => error(code),
            Call::SmcccVersion => Outcome::Return(SMCCC_VERSION),
            Call::ArchFeatures(id) => Outcome::Return(self.host.features(id)),
            Call::Workaround(workaround) => self.host.call(workaround),
            Call::Unknown(_) => Outcome::Return(NOT_SUPPORTED),
        }
    }

    fn function(&mut self, vcpu: usize, function: Function, is_ram: impl FnOnce(u64) -> bool) -> Outcome {
        match function {
            Function::Version => Outcome::Return(u64::from(u32::from(Version { major: 1, minor: 1 }))),
            Function::Features { psci_func_id } => Outcome::Return(features(psci_func_id)),
            Function::CpuOn { target_cpu, entry } => self.cpu_on(target_cpu, entry, is_ram),
            Function::CpuOff => {
                if let Some(state) = self.states.get_mut(vcpu) {
                    *state = PowerState::Off;
                }
                Outcome::StopThisVcpu
            }
            // A power-down request may be answered by standby (DEN 0022 5.4.1): nothing is lost, and nothing saved.
            Function::CpuSuspend {
                state: SuspendState::StandbyOrRetention(_) | SuspendState::PowerDown(_), ..
            } => Outcome::Standby,
            Function::AffinityInfo { mpidr, lowest_affinity_level } => self.affinity_info(mpidr, lowest_affinity_level),
            Function::MigrateInfoType => Outcome::Return(u64::from(u32::from(MigrateInfoType::MigrationNotRequired))),
            Function::SystemOff => Outcome::SystemOff,
            Function::SystemReset => Outcome::SystemReset,
            _ => error(ErrorCode::NotSupported),
        }
    }

    fn cpu_on(&mut self, target: Mpidr, entry: EntryPoint, is_ram: impl FnOnce(u64) -> bool) -> Outcome {
        let Some(vcpu) = self.find_vcpu(target) else { return error(ErrorCode::InvalidParameters) };
        let address = entry.entry_point_address();
        // A64 code is word-aligned.
        if address & 3 != 0 || !is_ram(address) {
            return error(ErrorCode::InvalidAddress);
        }
        let Some(state) = self.states.get_mut(vcpu) else { return error(ErrorCode::InvalidParameters) };
        match *state {
            PowerState::On => error(ErrorCode::AlreadyOn),
            PowerState::OnPending => error(ErrorCode::OnPending),
            PowerState::Off => {
                *state = PowerState::OnPending;
                Outcome::StartVcpu { vcpu, entry: address, context: entry.context_id() }
            }
        }
    }

    fn affinity_info(&self, mpidr: Mpidr, lowest_affinity_level: u32) -> Outcome {
        // From 1.0 on, levels above 0 need not be supported (DEN 0022 5.7.3).
        let Some(vcpu) = self.find_vcpu(mpidr).filter(|_| lowest_affinity_level == 0) else {
            return error(ErrorCode::InvalidParameters);
        };
        Outcome::Return(u64::from(u32::from(match self.state(vcpu) {
            PowerState::On => AffinityInfo::On,
            PowerState::Off => AffinityInfo::Off,
            PowerState::OnPending => AffinityInfo::OnPending,
        })))
    }

    fn find_vcpu(&self, mpidr: Mpidr) -> Option<usize> {
        let affinity = u64::from(mpidr);
        (0..self.vcpu_count).find(|&vcpu| vcpu_mpidr(vcpu) == affinity)
    }
}

/// PSCI_FEATURES: 0 for what [`Psci::handle`] implements (CPU_SUSPEND: original state format, platform-coordinated).
fn features(feature: PsciFeature) -> u64 {
    let PsciFeature::PsciFunction(id) = feature else { return 0 };
    match id {
        FunctionId::PsciVersion
        | FunctionId::CpuSuspend32
        | FunctionId::CpuSuspend64
        | FunctionId::CpuOff
        | FunctionId::CpuOn32
        | FunctionId::CpuOn64
        | FunctionId::AffinityInfo32
        | FunctionId::AffinityInfo64
        | FunctionId::MigrateInfoType
        | FunctionId::SystemOff
        | FunctionId::SystemReset
        | FunctionId::PsciFeatures => 0,
        _ => NOT_SUPPORTED,
    }
}

fn error(code: ErrorCode) -> Outcome {
    Outcome::Return(sign_extend(i32::from(code)))
}
