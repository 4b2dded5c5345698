//! A guest's way into EL2 and out again.

mod call;
mod mmio;
mod sysreg;

use aarch64_cpu::registers::{ELR_EL2, ESR_EL2, FAR_EL2, HPFAR_EL2, Readable, SPSR_EL2, VBAR_EL1, Writeable};
use bulkhead_core::esr::{Abort, FaultKind, Trap};

use crate::{
    frame::TrapFrame,
    instructions, irq, lifecycle, panic,
    percpu::PerCpu,
    stats::Reason,
    time,
    vm::{Request, Vm},
};

/// Where the exception came from, as `vectors.s` numbers it.
const SYNCHRONOUS: u64 = 0;
const IRQ: u64 = 1;
const SERROR: u64 = 3;

/// The vCPU that trapped.
pub struct Trapped<'a> {
    /// Its CPU.
    pub cpu: &'static PerCpu,
    /// Its VM.
    pub vm: &'static Vm,
    /// Its number in the VM.
    pub vcpu: usize,
    /// Its general registers.
    pub frame: &'a mut TrapFrame,
}

impl Trapped<'_> {
    /// Goes on behind the instruction that trapped.
    #[inline(always)]
    pub fn skip(&self) {
        ELR_EL2.set(ELR_EL2.get().wrapping_add(4));
        // As if the instruction had run: no pending software step, no branch type.
        SPSR_EL2.set(SPSR_EL2.get() & !(1 << 21 | 3 << 10));
    }

    /// Ends the VM; this vCPU leaves on its way out.
    pub fn end(&self, why: core::fmt::Arguments<'_>) {
        self.vm.end(self.vcpu, format_args!("{why}, pc {:#x}", ELR_EL2.get()));
    }

    /// Gives the guest an undefined-instruction exception at EL1 (DDI 0487 D1.3.6).
    pub fn inject_undefined(&self) {
        const EC_UNKNOWN: u64 = 0;
        const IL: u64 = 1 << 25;
        self.inject(EC_UNKNOWN << 26 | IL);
    }

    fn inject(&self, esr: u64) {
        let (pc, state) = (ELR_EL2.get(), SPSR_EL2.get());
        // Vector offset: from EL0 in AArch64 0x400, from EL1 with SP_EL1 0x200, with SP_EL0 0.
        let offset = match state & 0xf {
            0b0000 => 0x400,
            0b0100 => 0x000,
            _ => 0x200,
        };
        crate::sysreg::write!("elr_el1", pc);
        crate::sysreg::write!("spsr_el1", state);
        crate::sysreg::write!("esr_el1", esr);
        // VBAR_EL1[10:0] are RES0, and may hold what the guest wrote all the same.
        ELR_EL2.set((VBAR_EL1.get() & !0x7ff).wrapping_add(offset));
        SPSR_EL2.set(exception_state(state));
    }
}

/// PSTATE as an exception to EL1 leaves it (DDI 0487 J1.1, AArch64.TakeException): EL1h, DAIF masked, flags and DIT kept,
/// PAN and SSBS as SCTLR_EL1 says, everything else clear.
fn exception_state(state: u64) -> u64 {
    const KEPT: u64 = 0xf << 28 | DIT | PAN;
    const DIT: u64 = 1 << 24;
    const PAN: u64 = 1 << 22;
    const SSBS: u64 = 1 << 12;
    let control = crate::sysreg::read!("sctlr_el1");
    let has_pan = crate::sysreg::read!("id_aa64mmfr1_el1") >> 20 & 0xf != 0;
    let has_ssbs = crate::sysreg::read!("id_aa64pfr1_el1") >> 4 & 0xf != 0;
    let pan = if has_pan && control >> 23 & 1 == 0 { PAN } else { 0 };
    let ssbs = if has_ssbs && control >> 44 & 1 == 1 { SSBS } else { 0 };
    state & KEPT | 0x3c5 | pan | ssbs
}

/// Every exception from a lower level, from `vectors.s`. Returning resumes the guest.
pub extern "C" fn guest_exit(frame: &mut TrapFrame, kind: u64) {
    let cpu = PerCpu::current();
    let (begin, instructions) = (time::ticks_relaxed(), instructions::now());
    let Some(&(vm, vcpu)) = cpu.vcpu.get() else { crate::idle::sleep() };
    let mut trapped = Trapped { cpu, vm, vcpu, frame };
    let reason = match kind {
        SYNCHRONOUS => synchronous(&mut trapped),
        IRQ => {
            irq::handle(cpu);
            Reason::Irq
        }
        SERROR => {
            trapped.end(format_args!("SError, syndrome {:#x}", ESR_EL2.get()));
            Reason::Other
        }
        _ => {
            trapped.end(format_args!("exception of kind {kind}: AArch32 and FIQ are not offered"));
            Reason::Other
        }
    };
    cpu.exits.count(reason);
    if panic::is_panicking() {
        panic::stop();
    }
    if vm.request() != Request::None {
        lifecycle::leave(cpu, vm, vcpu);
    }
    let ticks = time::ticks_relaxed().wrapping_sub(begin);
    cpu.exits.add_el2_ticks(ticks);
    if matches!(reason, Reason::Dma | Reason::Smmu) {
        cpu.calls.note(ticks, instructions::now().wrapping_sub(instructions).into());
    }
}

#[inline(never)]
fn synchronous(trapped: &mut Trapped<'_>) -> Reason {
    // By reference: an abort is not copied.
    match &Trap::decode(ESR_EL2.get(), FAR_EL2.get(), HPFAR_EL2.get()) {
        Trap::DataAbort(abort) => mmio::data_abort(trapped, abort),
        Trap::InstructionAbort(abort) => {
            trapped.end(format_args!("instruction fetch {}", Stray(abort)));
            Reason::Other
        }
        Trap::Sysreg(access) => sysreg::access(trapped, *access),
        Trap::Hvc(immediate) => call::hvc(trapped, *immediate),
        Trap::Smc(immediate) => call::smc(trapped, *immediate),
        Trap::FloatingPoint => {
            trapped.inject_undefined();
            Reason::Other
        }
        Trap::Wfx { .. } => {
            // Not trapped by HCR_EL2; WFIT and WFET may be where the CPU has them: as if the wait were over.
            trapped.skip();
            Reason::Other
        }
        Trap::Other { class, iss } => {
            trapped.end(format_args!("exception of class {class:#04x}, syndrome {iss:#x}"));
            Reason::Other
        }
    }
}

/// A stray access, for the line that ends a VM.
pub struct Stray<'a>(pub &'a Abort);

impl core::fmt::Display for Stray<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0.ipa {
            Some(ipa) => write!(f, "of {ipa}")?,
            None => f.write_str("of an unknown address")?,
        }
        f.write_str(match self.0.kind {
            FaultKind::Translation => ", where nothing is",
            FaultKind::AddressSize => ", past the guest's address space",
            FaultKind::Permission => ", which is not allowed there",
            FaultKind::External => ": the bus answered with an error",
            _ => "",
        })?;
        if self.0.is_table_walk {
            f.write_str(", by a walk of its own table")?;
        }
        write!(f, " (virtual address {:#x})", self.0.virtual_address)
    }
}
