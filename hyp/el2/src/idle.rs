//! A CPU without a guest: it sleeps until there is something to do.

use crate::{
    boot_text, irq, lifecycle, panic,
    percpu::{PerCpu, Task},
    sysreg,
};

/// Where every CPU goes from its boot, for good: nothing that is reached from here may be boot code.
#[inline(never)]
pub fn after_boot() -> ! {
    boot_text::leave();
    sleep()
}

/// Waits for a task, handling the hypervisor's interrupts meanwhile. Never returns: a task ends in a guest or here again.
pub fn sleep() -> ! {
    let cpu = PerCpu::current();
    loop {
        if panic::is_panicking() {
            panic::stop();
        }
        let task = cpu.task.lock().take();
        match task {
            Some(Task::BootVm) => lifecycle::boot_here(cpu),
            Some(Task::StartVcpu { entry, context }) => lifecycle::start_here(cpu, entry, context),
            Some(Task::TearDown) => lifecycle::tear_down_here(cpu),
            None => {
                // An interrupt that came since the look above is pending, and ends this at once.
                sysreg::wfi();
                irq::handle(cpu);
            }
        }
    }
}
