//! HVC and SMC: PSCI and SMCCC.

use bulkhead_vdev::psci::{Call, Outcome};

use super::Trapped;
use crate::{dmamap, lifecycle, percpu, percpu::Task, stats::Reason, virtual_gic, vm::Request};

/// An HVC. The PC is behind it already.
pub fn hvc(trapped: &mut Trapped<'_>, immediate: u16) -> Reason {
    if immediate != 0 {
        // DEN 0028 2.9: any other immediate is not a call.
        trapped.frame.set(0, bulkhead_vdev::psci::NOT_SUPPORTED);
        return Reason::Call;
    }
    if let Some(arguments) = trapped.frame.x.first_chunk()
        && let Some(answer) = dmamap::call(trapped.cpu, trapped.vm, arguments)
    {
        let [x0, x1, x2, x3, ..] = &mut trapped.frame.x;
        [*x0, *x1, *x2, *x3] = answer;
        return Reason::Dma;
    }
    call(trapped);
    Reason::Call
}

/// An SMC, trapped before it ran: the same calls, then on behind it.
pub fn smc(trapped: &mut Trapped<'_>, immediate: u16) -> Reason {
    trapped.skip();
    hvc(trapped, immediate)
}

fn call(trapped: &mut Trapped<'_>) {
    let x = &trapped.frame.x;
    let call = Call::decode([x[0], x[1], x[2], x[3]]);
    let (vm, vcpu) = (trapped.vm, trapped.vcpu);
    // Power states and the count of running vCPUs change together, under this lock.
    let mut psci = vm.psci.lock();
    let outcome = psci.handle(vcpu, call, |ipa| lifecycle::is_ram(vm, ipa));
    match outcome {
        Outcome::Return(value) => trapped.frame.set(0, value),
        Outcome::StartVcpu { vcpu: other, entry, context } => {
            vm.enter(other);
            drop(psci);
            if let Some(home) = vm.cpu_of(other).and_then(percpu::of) {
                home.post(Task::StartVcpu { entry, context });
            }
            trapped.frame.set(0, 0);
        }
        Outcome::StopThisVcpu => {
            if psci.all_off() {
                // Nobody is left who could turn one on again.
                vm.ask(Request::Stop);
            }
            lifecycle::quiesce(trapped.cpu, vm, vcpu);
            let was_last = vm.leave(vcpu);
            drop(psci);
            lifecycle::gone(vm, was_last)
        }
        Outcome::Standby => {
            drop(psci);
            trapped.frame.set(0, 0);
            standby(trapped);
        }
        Outcome::SystemOff => vm.ask(Request::Stop),
        Outcome::SystemReset => vm.ask(Request::Reset),
        Outcome::Workaround(workaround) => {
            crate::firmware::workaround(workaround.function_id(), trapped.frame.get(1));
            trapped.frame.set(0, 0);
        }
    }
}

/// CPU_SUSPEND: waits at EL2 unless something waits for the vCPU already. A physical interrupt ends it.
fn standby(trapped: &Trapped<'_>) {
    let pending = virtual_gic::with(trapped.cpu, trapped.vm, trapped.vcpu, |vgic| {
        (vgic.has_pending(trapped.vcpu), bulkhead_vdev::vgic::Effects::default())
    });
    if !pending && !virtual_gic::is_pending_in_list_registers(trapped.cpu) {
        crate::sysreg::wfi();
    }
}
