//! The virtual GIC's hardware half: list registers of this CPU, kicks and deactivations.

use aarch64_cpu::registers::{ICH_HCR_EL2, ICH_VTR_EL2, Readable, Writeable};
use bulkhead_core::ids::IntId;
use bulkhead_vdev::vgic::{Deactivation, Effects, ListRegisters, Vgic, hcr, numbers};

use crate::{gic, lock::MutexGuard, percpu, percpu::PerCpu, sysreg, vm::Vm};

macro_rules! list_registers {
    ($($n:literal $register:ident)*) => {
        fn read_list_register(index: usize) -> u64 {
            match index {
                $($n => aarch64_cpu::registers::$register.get(),)*
                _ => 0,
            }
        }

        fn write_list_register(index: usize, value: u64) {
            match index {
                $($n => aarch64_cpu::registers::$register.set(value),)*
                _ => (),
            }
        }
    };
}

list_registers! {
    0 ICH_LR0_EL2 1 ICH_LR1_EL2 2 ICH_LR2_EL2 3 ICH_LR3_EL2 4 ICH_LR4_EL2 5 ICH_LR5_EL2 6 ICH_LR6_EL2 7 ICH_LR7_EL2
    8 ICH_LR8_EL2 9 ICH_LR9_EL2 10 ICH_LR10_EL2 11 ICH_LR11_EL2 12 ICH_LR12_EL2 13 ICH_LR13_EL2 14 ICH_LR14_EL2 15 ICH_LR15_EL2
}

fn implemented() -> u8 {
    // ICH_VTR_EL2.ListRegs is the number less one (IHI 0069 12.4.11).
    (ICH_VTR_EL2.get() & 0x1f) as u8 + 1
}

/// No list register in use, for this CPU's number of them.
pub fn empty() -> ListRegisters {
    ListRegisters::new(implemented())
}

/// The virtual CPU interface in its reset state: nothing pending, nothing active, all masked.
pub fn reset_interface() {
    *PerCpu::current().lrs.lock() = empty();
    for index in 0..usize::from(implemented()) {
        write_list_register(index, 0);
    }
    sysreg::write!("ich_vmcr_el2", 0);
    // Active priorities: how many registers exist depends on the priority bits (ICH_VTR_EL2.PREbits, less one).
    let preemption_bits = (ICH_VTR_EL2.get() >> 26 & 7) + 1;
    sysreg::write!("ich_ap0r0_el2", 0);
    sysreg::write!("ich_ap1r0_el2", 0);
    if preemption_bits >= 6 {
        sysreg::write!("ich_ap0r1_el2", 0);
        sysreg::write!("ich_ap1r1_el2", 0);
    }
    if preemption_bits >= 7 {
        sysreg::write!("ich_ap0r2_el2", 0);
        sysreg::write!("ich_ap1r2_el2", 0);
        sysreg::write!("ich_ap0r3_el2", 0);
        sysreg::write!("ich_ap1r3_el2", 0);
    }
    ICH_HCR_EL2.set(hcr::EN);
    sysreg::isb();
}

/// Runs `f` on the VM's GIC with this CPU's list registers taken in before and put back after, then does what follows.
pub fn with<R>(cpu: &PerCpu, vm: &Vm, vcpu: usize, f: impl FnOnce(&mut Vgic) -> (R, Effects)) -> R {
    let mut open = Open::new(cpu, vm, vcpu);
    let (result, effects) = f(&mut open.vgic);
    open.close(cpu, vm, vcpu, effects);
    result
}

/// The VM's GIC, locked, and knowing what this CPU's list registers held. One copy for all that is done in between.
struct Open<'a> {
    vgic: MutexGuard<'a, Vgic>,
    lrs: MutexGuard<'a, ListRegisters>,
    synced: Effects,
}

impl<'a> Open<'a> {
    #[inline(never)]
    fn new(cpu: &'a PerCpu, vm: &'a Vm, vcpu: usize) -> Self {
        let mut lrs = cpu.lrs.lock();
        let mut vgic = vm.vgic.lock();
        pull(&mut lrs);
        let synced = vgic.sync(vcpu, &lrs);
        Self { vgic, lrs, synced }
    }

    #[inline(never)]
    fn close(mut self, cpu: &PerCpu, vm: &Vm, vcpu: usize, effects: Effects) {
        let vgic = &mut self.vgic;
        let flushed = if vgic.needs_flush(vcpu) { push(vgic, vcpu, &mut self.lrs) } else { Effects::default() };
        let all = [self.synced, effects, flushed];
        for effect in all.iter().filter(|effect| effect.deactivate != 0) {
            for deactivation in vgic.deactivations(*effect) {
                deactivate(vm, vcpu, deactivation);
            }
        }
        drop(self);
        kick(cpu, vm, all.iter().fold(0, |mask, effect| mask | effect.kick));
    }
}

/// Takes the list registers' state back for good: this vCPU leaves, others may wait for what it holds.
pub fn withdraw(cpu: &PerCpu, vm: &Vm, vcpu: usize) {
    let mut lrs = cpu.lrs.lock();
    let mut vgic = vm.vgic.lock();
    pull(&mut lrs);
    let effects = vgic.sync(vcpu, &lrs);
    for deactivation in vgic.deactivations(effects) {
        deactivate(vm, vcpu, deactivation);
    }
    drop(vgic);
    for index in numbers(lrs.used) {
        write_list_register(index, 0);
    }
    // Off: nothing that the guest left behind raises a maintenance interrupt.
    ICH_HCR_EL2.set(0);
    sysreg::isb();
    *lrs = empty();
    drop(lrs);
    kick(cpu, vm, effects.kick);
}

fn pull(lrs: &mut ListRegisters) {
    for index in numbers(lrs.used) {
        if let Some(slot) = lrs.lr.get_mut(index) {
            *slot = read_list_register(index);
        }
    }
    lrs.eoi_count = (ICH_HCR_EL2.get() >> hcr::EOI_COUNT_SHIFT & 0x1f) as u8;
}

fn push(vgic: &mut Vgic, vcpu: usize, lrs: &mut ListRegisters) -> Effects {
    let flush = vgic.flush(vcpu, lrs);
    for index in numbers(flush.write) {
        write_list_register(index, lrs.lr.get(index).copied().unwrap_or(0));
    }
    // Writing the register whole zeroes EOIcount, which `sync` has consumed. The eret synchronises both.
    ICH_HCR_EL2.set(flush.hcr);
    flush.effects
}

/// Deactivates a physical interrupt; a PPI of another CPU is that CPU's to deactivate.
fn deactivate(vm: &Vm, own: usize, what: Deactivation) {
    let interrupt = IntId(u32::from(what.physical));
    if interrupt.is_spi() || what.vcpu == own {
        gic::deactivate(interrupt);
    } else if let Some(other) = vm.cpu_of(what.vcpu).and_then(percpu::of) {
        other.ask_deactivation(interrupt);
        other.kick();
    }
}

/// Makes the vCPUs in `mask` leave their guest and look at the virtual GIC; the calling one does so anyway.
pub fn kick(cpu: &PerCpu, vm: &Vm, mask: u8) {
    for vcpu in (0..vm.vcpu_count()).filter(|vcpu| mask >> vcpu & 1 == 1) {
        let target = vm.cpu_of(vcpu).and_then(percpu::of);
        if let Some(target) = target.filter(|target| target.id != cpu.id) {
            target.kick();
        }
    }
}

/// Drives an SPI's line from any CPU, also one outside the VM.
pub fn set_level(vm: &Vm, intid: IntId, is_high: bool) {
    let mask = vm.vgic.lock().set_level(intid.0, is_high);
    tell(vm, mask);
}

/// A pulse on an SPI's line, from any CPU.
pub fn pulse(vm: &Vm, intid: IntId) {
    let mask = vm.vgic.lock().pulse(intid.0);
    tell(vm, mask);
}

/// Has the vCPUs of `mask` look at what became pending.
fn tell(vm: &Vm, mask: u8) {
    if mask == 0 {
        return;
    }
    let cpu = PerCpu::current();
    if let Some(&(own, vcpu)) = cpu.vcpu.get()
        && own.id == vm.id
        && vm.is_inside(vcpu)
        && mask >> vcpu & 1 == 1
    {
        // The calling CPU is one of the VM's: it flushes on its way out.
        with(cpu, vm, vcpu, |_| ((), Effects::default()));
    }
    kick(cpu, vm, mask);
}

/// Whether this CPU's list registers hold a pending interrupt.
pub fn is_pending_in_list_registers(cpu: &PerCpu) -> bool {
    const PENDING: u64 = 1 << 62;
    let lrs = cpu.lrs.lock();
    numbers(lrs.used).any(|index| read_list_register(index) & PENDING != 0)
}
