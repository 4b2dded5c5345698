//! Physical interrupts: the guest's own go to its virtual GIC, the hypervisor's are handled here.

use bulkhead_core::{
    ids::{IntId, SmmuId},
    vplat,
};
use bulkhead_vdev::vgic::Effects;
use spin::Once;

use crate::{faults, gic, keyboard, panic, percpu::PerCpu, virtual_gic, vm::Vm};

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
    let is_timer = interrupt == vplat::VTIMER_INTID || interrupt == vplat::PTIMER_INTID;
    let virtual_id = if is_timer { Some(interrupt) } else { vm.line_of(interrupt) };
    let Some(virtual_id) = virtual_id else { return false };
    if !vm.is_inside(vcpu) {
        // Nobody is there to take it: the teardown will have turned it off.
        gic::deactivate(interrupt);
        return true;
    }
    virtual_gic::with(cpu, vm, vcpu, |vgic| {
        let kick = vgic.inject(vcpu, virtual_id.0);
        ((), Effects { kick, ..Effects::default() })
    });
    true
}

fn own(cpu: &'static PerCpu, interrupt: IntId) {
    if interrupt == gic::KICK {
        if panic::is_panicking() {
            panic::stop();
        }
        cpu.deactivate_asked();
        if let Some(&(vm, vcpu)) = cpu.vcpu.get()
            && vm.is_inside(vcpu)
        {
            virtual_gic::with(cpu, vm, vcpu, |_| ((), Effects::default()));
        }
        return;
    }
    match source_of(interrupt) {
        Some(Source::Uart) => keyboard::interrupt(),
        Some(Source::Timer) => keyboard::tick(),
        Some(Source::SmmuEvents(id)) => faults::event_interrupt(id),
        Some(Source::SmmuError(id)) => faults::global_error_interrupt(id),
        Some(Source::SmmuCombined(id)) => faults::drain(id),
        Some(Source::Maintenance) => {
            if let Some(&(vm, vcpu)) = cpu.vcpu.get() {
                virtual_gic::with(cpu, vm, vcpu, |_| ((), Effects::default()));
            }
        }
        None => gic::disable_stray(cpu, interrupt),
    }
}
