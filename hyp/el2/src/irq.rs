//! Physical interrupts: the guest's own go to its virtual GIC, the hypervisor's are handled here.

use bulkhead_core::{
    ids::{IntId, SmmuId},
    machine::Interrupt,
    vplat,
};
use bulkhead_vdev::vgic::Effects;
use spin::Once;

use crate::{
    boot, dmamap, faults, gic, keyboard, panic,
    percpu::PerCpu,
    pmcg, virtual_gic,
    vm::{State, Vm},
};

/// Interrupts handled in one exit; more raise the next exit at once.
const PER_EXIT: usize = 16;

/// Whose an interrupt of the hypervisor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The console's UART.
    Uart,
    /// EL2's own timer.
    Timer,
    /// The virtual GIC's maintenance interrupt.
    Maintenance,
    /// An SMMU's event queue.
    SmmuEvents(SmmuId),
    /// An SMMU's global error.
    SmmuError(SmmuId),
    /// An SMMU whose interrupts are one line.
    SmmuCombined(SmmuId),
}

/// The hypervisor's interrupts, found at boot.
static SOURCES: Once<heapless::Vec<(IntId, Source), 32>> = Once::new();

/// Settles which interrupt is whose.
pub fn set_sources(sources: heapless::Vec<(IntId, Source), 32>) {
    SOURCES.call_once(|| sources);
}

fn source_of(interrupt: IntId) -> Option<Source> {
    SOURCES.get()?.iter().find(|(id, _)| *id == interrupt).map(|(_, source)| *source)
}

/// Takes and handles what is pending on this CPU.
pub fn handle(cpu: &'static PerCpu) {
    let vcpu = cpu.vcpu.get().copied();
    for _ in 0..PER_EXIT {
        let Some(interrupt) = gic::acknowledge() else { return };
        if let Some((vm, vcpu)) = vcpu
            && deliver(cpu, vm, vcpu, interrupt)
        {
            continue;
        }
        own(cpu, interrupt);
        gic::deactivate(interrupt);
    }
}

/// Makes a guest's own interrupt pending in its virtual GIC. The physical one stays active until the guest ends it.
fn deliver(cpu: &PerCpu, vm: &Vm, vcpu: usize, interrupt: IntId) -> bool {
    let timers = &boot::machine().timers;
    let is = |timer: Option<Interrupt>| timer.is_some_and(|timer| timer.id == interrupt);
    let virtual_id = if is(timers.virtual_) {
        Some(vplat::VTIMER_INTID)
    } else if is(timers.physical) {
        Some(vplat::PTIMER_INTID)
    } else {
        vm.line_of(interrupt)
    };
    let Some(virtual_id) = virtual_id else { return false };
    if vm.is_inside(vcpu) {
        virtual_gic::with(cpu, vm, vcpu, |vgic| {
            let kick = vgic.inject(vcpu, virtual_id.0);
            ((), Effects { kick, ..Effects::default() })
        });
    } else if interrupt.is_spi() && vm.state() == State::Running {
        // This vCPU is off, its VM is not: another one takes it, and ends it from there.
        let kick = vm.vgic.lock().inject_spi(virtual_id.0);
        virtual_gic::kick(cpu, vm, kick);
    } else {
        // Nobody is there: the next boot turns it on again.
        if interrupt.is_spi() {
            gic::disable_shared(interrupt);
        }
        gic::deactivate(interrupt);
    }
    true
}

/// Apart, so that a guest's own interrupt does not pay for its registers and its stack.
#[inline(never)]
fn own(cpu: &'static PerCpu, interrupt: IntId) {
    if interrupt == gic::KICK {
        if panic::is_panicking() {
            panic::stop();
        }
        cpu.deactivate_asked();
        let Some(&(vm, vcpu)) = cpu.vcpu.get() else { return };
        faults::tell(cpu, vm);
        if vm.is_inside(vcpu) {
            virtual_gic::with(cpu, vm, vcpu, |_| ((), Effects::default()));
        }
        return;
    }
    match source_of(interrupt) {
        Some(Source::Uart) => keyboard::interrupt(),
        Some(Source::Timer) => {
            keyboard::tick();
            dmamap::tick(cpu);
            pmcg::tick();
            faults::tick();
        }
        Some(Source::SmmuEvents(id)) => faults::event_interrupt(id),
        Some(Source::SmmuError(id)) => faults::global_error_interrupt(id),
        Some(Source::SmmuCombined(id)) => faults::drain(id),
        Some(Source::Maintenance) => {
            if let Some(&(vm, vcpu)) = cpu.vcpu.get()
                && vm.is_inside(vcpu)
            {
                virtual_gic::with(cpu, vm, vcpu, |_| ((), Effects::default()));
            }
        }
        None => gic::disable_stray(cpu, interrupt),
    }
}
