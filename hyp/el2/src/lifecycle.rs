//! A VM's life: boot, stop, reset, each on the VM's own CPUs, so that a neighbour does not notice.

use core::sync::atomic::Ordering::Relaxed;

use aarch64_cpu::registers::{VTTBR_EL2, Writeable};
use bulkhead_core::addr::{AddrRange, Ipa};
use log::{error, info, warn};

use crate::{
    dmamap::Maps,
    el1, faults, firmware, gic,
    guest_memory::GuestRam,
    idle,
    percpu::{PerCpu, Task},
    speculation, start, stats, sysreg, time, viommu, virtual_gic,
    vm::{self, Request, State, Vm},
    vsmmu,
};

/// Starts a stopped VM.
///
/// # Errors
/// It is not stopped; the state it is in.
pub fn start(vm: &'static Vm) -> Result<(), State> {
    if vm.state() == State::Stopped {
        // What was asked of it while it was on its way out is over.
        vm.take_request();
    }
    boot_again(vm)
}

/// The same, without forgetting what was asked meanwhile: an operator's stop outlives the guest's own reset.
fn boot_again(vm: &'static Vm) -> Result<(), State> {
    if !vm.change_state(State::Stopped, State::Starting) {
        return Err(vm.state());
    }
    if let Some(first) = vm.cpus().next() {
        first.post(Task::BootVm);
    }
    Ok(())
}

/// Boots the VM whose first vCPU is at home on this CPU: scrub, load, devices, then the guest. Returns only on failure.
pub fn boot_here(cpu: &'static PerCpu) {
    let Some(&(vm, vcpu)) = cpu.vcpu.get() else { return };
    let begin = time::ticks();
    let Some(ram) = vm.take_free_ram() else {
        error!("vm {} cannot start: its memory is not free", vm.name());
        vm.change_state(State::Starting, State::Quarantined);
        return;
    };
    let loads = vm.image.loads().iter();
    let loads = loads.filter_map(|load| Some((start::bundle().blob(load), vm.translate(Ipa::new(load.ipa))?)));
    vm.use_ram(GuestRam::prepare(ram, loads));
    if let Err(problem) = vm.bridge.lock().attach(vm) {
        error!("vm {} cannot start: {problem}", vm.name());
        let is_free = release_devices(vm);
        vm.change_state(State::Starting, if is_free { State::Stopped } else { State::Quarantined });
        after_stop();
        return;
    }
    reset_devices(vm);
    vm.cpus().for_each(|cpu| cpu.calls.clear());
    vm.boots.fetch_add(1, Relaxed);
    vm.counter_offset.store(time::ticks(), Relaxed);
    let ms = time::to_us(time::ticks() - begin) / 1000;
    info!(
        "vm {}: {} of RAM at {}, loaded in {ms} ms",
        vm.name(),
        crate::text::Bytes(vm.ram_phys.size_bytes()),
        vm.ram_phys.start()
    );
    vm.enter(vcpu);
    vm.change_state(State::Starting, State::Running);
    let context = vm.image.dtb().map_or(0, |dtb| dtb.as_u64());
    enter(cpu, vm, vcpu, vm.image.entry().as_u64(), context)
}

/// Starts this CPU's vCPU, which PSCI CPU_ON has promised.
pub fn start_here(cpu: &'static PerCpu, entry: u64, context: u64) {
    let Some(&(vm, vcpu)) = cpu.vcpu.get() else { return };
    vm.psci.lock().started(vcpu);
    enter(cpu, vm, vcpu, entry, context)
}

/// Enters the guest, or returns when the VM was asked to stop meanwhile: nothing of this CPU's stack is left behind either way.
fn enter(cpu: &'static PerCpu, vm: &'static Vm, vcpu: usize, entry: u64, context: u64) {
    if vm.request() != Request::None {
        quiesce(cpu, vm, vcpu);
        if vm.leave(vcpu) {
            tear_down(vm);
        }
        return;
    }
    el1::start_vcpu(&vm.cpu_config(), vcpu, vm.counter_offset.load(Relaxed), entry);
    // What became pending for it while it was off.
    virtual_gic::with(cpu, vm, vcpu, |_| ((), bulkhead_vdev::vgic::Effects::default()));
    speculation::start_vcpu();
    cpu.exits.set_started(time::ticks());
    el1::enter(cpu, context)
}

/// Takes this CPU out of its guest. The last one takes devices and memory back, if the VM was asked to stop.
pub fn leave(cpu: &'static PerCpu, vm: &'static Vm, vcpu: usize) -> ! {
    quiesce(cpu, vm, vcpu);
    let was_last = vm.leave(vcpu);
    gone(vm, was_last)
}

/// Silences the vCPU's timers, hands its list registers back and switches its translation off, while it still counts as
/// running: when it does not any more, nothing of this CPU walks the VM's tables, not even by speculation.
pub fn quiesce(cpu: &PerCpu, vm: &Vm, vcpu: usize) {
    sysreg::write!("cntv_ctl_el0", 0);
    sysreg::write!("cntp_ctl_el0", 0);
    sysreg::isb();
    virtual_gic::withdraw(cpu, vm, vcpu);
    el1::leave_vcpu();
}

/// What remains once the vCPU does not count as running any more.
pub fn gone(vm: &'static Vm, was_last: bool) -> ! {
    if was_last && vm.request() != Request::None {
        tear_down(vm);
    }
    idle::sleep()
}

/// The same, asked from outside when no vCPU runs.
pub fn tear_down_here(cpu: &'static PerCpu) {
    if let Some(&(vm, _)) = cpu.vcpu.get()
        && vm.is_empty()
        && vm.request() != Request::None
    {
        tear_down(vm);
    }
}

/// Rule 4: registers revoked, bus-master off, streams in abort, flushed, then the function reset; memory stays the VM's own.
fn tear_down(vm: &'static Vm) {
    if !vm.change_state(State::Running, State::Stopping) {
        return;
    }
    for interrupt in vm.devices().filter_map(|device| device.interrupt) {
        gic::disable_shared(interrupt);
    }
    // This CPU names the VM while its translations are dropped; EL1 is off, so nothing is walked.
    VTTBR_EL2.set(vm.cpu_config().vttbr_el2());
    sysreg::isb();
    let is_flushed = release_devices(vm);
    for &id in vm.smmus() {
        faults::drain(id);
    }
    sysreg::dsb_ishst();
    sysreg::instruction!("tlbi vmalls12e1is");
    sysreg::dsb_ish();
    sysreg::isb();
    VTTBR_EL2.set(0);
    sysreg::isb();
    reset_gic(vm);
    if let Err(problem) = vm.tables.lock().rebuild(vm.ram, vm.ram_phys.start()) {
        error!("vm {}: {problem}", vm.name());
    }
    report_exits(vm);
    vsmmu::report(vm);
    if !is_flushed {
        error!("vm {}: a flush timed out: it is quarantined, its memory is not used again", vm.name());
        vm.change_state(State::Stopping, State::Quarantined);
        after_stop();
        return;
    }
    let request = vm.take_request();
    vm.change_state(State::Stopping, State::Stopped);
    if request == Request::Reset {
        info!("vm {} boots again", vm.name());
        if boot_again(vm).is_err() {
            warn!("vm {} was started by somebody else meanwhile", vm.name());
        }
    } else {
        info!("vm {} stopped", vm.name());
        after_stop();
    }
}

/// The virtual GIC as after power-on, and nothing of the VM active in the physical one.
fn reset_gic(vm: &Vm) {
    let mut vgic = vm.vgic.lock();
    let effects = vgic.reset();
    for vcpu in 0..vm.vcpu_count() {
        for deactivation in vgic.reset_deactivations(&effects, vcpu) {
            let interrupt = bulkhead_core::ids::IntId(u32::from(deactivation.physical));
            match vm.cpu_of(vcpu).and_then(crate::percpu::of) {
                Some(home) if !interrupt.is_spi() => {
                    home.ask_deactivation(interrupt);
                    home.kick();
                }
                _ => gic::deactivate(interrupt),
            }
        }
    }
}

/// Takes the devices back, and with them the RAM. False when a flush did not complete: the RAM is quarantined.
fn release_devices(vm: &Vm) -> bool {
    // First: an event that is still to be delivered finds no queue of the guest's, whatever its RAM is by then.
    if let Some(vsmmu) = &vm.vsmmu {
        vsmmu.lock().reset();
    }
    let Some(mut ram) = vm.retire_ram() else { return false };
    let mut space = vm.dma.maps().map(Maps::retire);
    vm.bridge.lock().detach(vm, &mut ram, &mut space);
    // Nothing walks its domains any more.
    let are_domains_free = vm.viommu.as_ref().is_none_or(|viommu| viommu::gate::take_down(viommu, vm));
    // Both, whatever becomes of the first.
    let is_space_free = match (vm.dma.maps(), space) {
        (Some(maps), Some(space)) => maps.settle(space),
        (maps, _) => maps.is_none(),
    };
    vm.settle_ram(ram) && is_space_free && are_domains_free
}

/// Everything that a reset machine would find in its reset state.
fn reset_devices(vm: &Vm) {
    reset_gic(vm);
    vm.psci.lock().reset();
    let mut serial = vm.serial.lock();
    serial.uart.reset();
    drop(serial);
    for device in vm.devices() {
        let Some(home) = vm.cpus().next() else { return };
        if let Some(interrupt) = device.interrupt
            && let Err(problem) = gic::enable_shared(interrupt, false, home.mpidr)
        {
            warn!("vm {}: device {}: {problem}", vm.name(), device.function);
        }
    }
}

/// One line with the exits of all vCPUs, for people and for the benchmark.
fn report_exits(vm: &Vm) {
    let of = |reason: usize| vm.cpus().map(|cpu| cpu.exits.of(reason)).sum::<u64>();
    let total: u64 = vm.cpus().map(|cpu| cpu.exits.total()).sum();
    let mut line = heapless::String::<160>::new();
    for (reason, name) in stats::NAMES.iter().enumerate() {
        let _ = core::fmt::write(&mut line, format_args!(" {name}={}", of(reason)));
    }
    let el2_us = time::to_us(vm.cpus().map(|cpu| cpu.exits.el2_ticks()).sum());
    info!("exits {} total={total}{line}", vm.name());
    info!("vm {}: {el2_us} us in EL2", vm.name());
}

/// Powers the machine off when nothing runs any more and the manifest wants it.
pub fn after_stop() {
    let is_over =
        vm::all().all(|vm| matches!(vm.state(), State::Stopped | State::Quarantined) && vm.request() == Request::None);
    if is_over && start::bundle().is_poweroff_when_all_stopped() {
        info!("all VMs have stopped: power off");
        firmware::system_off();
        warn!("the firmware did not power the machine off");
    }
}

/// Whether a range of guest addresses is RAM that may hold code.
pub fn is_ram(vm: &Vm, ipa: u64) -> bool {
    AddrRange::new(Ipa::new(ipa), 4).is_some_and(|word| vm.ram.contains_range(word))
}
