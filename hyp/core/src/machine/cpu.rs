//! CPUs and how they are started.

use super::{
    Machine,
    error::MachineError,
    read::push,
    tree::{Node, Path},
};
use crate::{addr::PhysAddr, ids::Mpidr};

/// How PSCI is called (binding arm,psci).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PsciConduit {
    /// By SMC, to EL3.
    Smc,
    /// By HVC: another hypervisor is below, or QEMU without `virtualization=on`.
    Hvc,
}

/// How a CPU is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CpuEnable {
    /// PSCI CPU_ON.
    Psci,
    /// By writing an entry point to `release`, where it polls.
    SpinTable {
        /// Address of the 64-bit entry point.
        release: PhysAddr,
    },
    /// Not said, or a method that is not known; the boot CPU alone can be used so.
    Unknown,
}

/// An enabled CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// Affinity.
    pub mpidr: Mpidr,
    /// How it is started.
    pub enable: CpuEnable,
}

/// Takes the CPU or the PSCI node at `path`.
pub fn read(path: &Path<'_>, machine: &mut Machine) -> Result<(), MachineError> {
    let node = path.node();
    if node.is_compatible(&["arm,psci-1.0", "arm,psci-0.2", "arm,psci"]) {
        machine.psci = match node.property("method").and_then(|method| method.text()) {
            Some("smc") => Some(PsciConduit::Smc),
            Some("hvc") => Some(PsciConduit::Hvc),
            _ => return Err(node.bad("method")),
        };
    }
    let is_cpu = path.depth() == 2 && path.parent().is_some_and(|parent| parent.base_name() == "cpus");
    if !is_cpu || node.property("device_type").and_then(|kind| kind.text()) != Some("cpu") {
        return Ok(());
    }
    // The binding puts MPIDR_EL1[23:0] in one cell, or [39:32] in a first and [23:0] in a second one.
    let mpidr = node.property("reg").and_then(|reg| reg.number()).ok_or(node.bad("reg"))?;
    let mpidr = Mpidr::new(mpidr);
    if mpidr.as_u64() != node.property("reg").and_then(|reg| reg.number()).unwrap_or(0)
        || machine.cpus.iter().any(|cpu| cpu.mpidr == mpidr)
    {
        return Err(node.bad("reg"));
    }
    push(&mut machine.cpus, Cpu { mpidr, enable: enable_method(node)? }, "cpus")
}

fn enable_method(node: Node<'_>) -> Result<CpuEnable, MachineError> {
    match node.property("enable-method").and_then(|method| method.text()) {
        Some("psci") => Ok(CpuEnable::Psci),
        Some("spin-table") => {
            let release = node.property("cpu-release-addr").and_then(|release| release.number());
            let release = PhysAddr::new(release.ok_or(node.bad("cpu-release-addr"))?);
            Ok(CpuEnable::SpinTable { release })
        }
        _ => Ok(CpuEnable::Unknown),
    }
}
