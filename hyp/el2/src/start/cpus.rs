//! CPUs: blocks, stacks, interfaces, and the hypervisor's interrupts.

use core::sync::atomic::{
    AtomicUsize,
    Ordering::{Acquire, Relaxed},
};

use aarch64_cpu::registers::{TPIDR_EL2, Writeable};
use bulkhead_core::{
    addr::PAGE_SIZE,
    ids::{CpuId, IntId, Mpidr},
    machine::{GicV3, Interrupt, Machine, Trigger},
};
use log::{error, info, warn};

use super::is_startable;
use crate::{
    boot, boot_text, console, firmware,
    frames::Use,
    gic, image,
    irq::Source,
    memory, mmu,
    percpu::{self, PerCpu, STACK_BYTES},
    speculation::{self, BranchHardening},
    time,
};

/// How long a CPU may take from CPU_ON to its first sign of life.
const ONLINE_TIMEOUT_US: u64 = 1_000_000;
/// Bytes of the stack that a fault of the hypervisor is reported on.
const EMERGENCY_STACK_BYTES: u64 = 8 << 10;

/// CPUs without protection of their branch predictor.
static NOT_HARDENED: AtomicUsize = AtomicUsize::new(0);

/// Why a CPU cannot be used.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[repr(u64)]
pub enum StartError {
    /// The pool is exhausted.
    #[error("no frame is left in the hypervisor's pool for its stack")]
    NoMemory,
    /// The GIC does not know it.
    #[error(transparent)]
    Gic(#[from] gic::GicError),
}

/// What `secondary_start` in boot.s reads, in its order.
#[repr(C)]
struct SecondaryBoot {
    registers: mmu::Registers,
    stack_top: u64,
    cpu: u64,
}

fn new_cpu(id: CpuId, mpidr: Mpidr) -> Result<&'static PerCpu, StartError> {
    let stack_top = memory::take_stack(STACK_BYTES).ok_or(StartError::NoMemory)?;
    let emergency_top = memory::take_stack(EMERGENCY_STACK_BYTES).ok_or(StartError::NoMemory)?;
    let windows = memory::window_table().ok_or(StartError::NoMemory)?;
    let frames = (size_of::<PerCpu>() as u64).div_ceil(PAGE_SIZE);
    let frames = usize::try_from(frames).map_err(|_| StartError::NoMemory)?;
    let block = memory::take(frames, PAGE_SIZE, Use::Hypervisor as usize).ok_or(StartError::NoMemory)?;
    let block: *mut PerCpu = crate::pointer::to(block.as_u64());
    // SAFETY: fresh frames of the pool, large enough and page-aligned, that nobody else knows.
    unsafe { block.write(PerCpu::new(id, mpidr, stack_top, emergency_top, windows)) };
    // SAFETY: written above, never freed, and only shared references to it are made from here on.
    let cpu = unsafe { &*block };
    percpu::register(cpu);
    Ok(cpu)
}

/// Gives the boot CPU its block.
#[inline(never)]
pub fn boot_cpu(machine: &Machine) {
    let own = boot::own_mpidr();
    let Some(index) = machine.cpus.iter().position(|cpu| cpu.mpidr == own) else {
        boot::fail(format_args!("the boot CPU's affinity {:#x} is not in the device tree", own.as_u64()))
    };
    let id = CpuId(u8::try_from(index).unwrap_or(u8::MAX));
    let started = new_cpu(id, own).and_then(|block| {
        TPIDR_EL2.set(core::ptr::from_ref(block).addr() as u64);
        cpu(block).map(|()| block)
    });
    match started {
        Ok(block) => block.set_online(),
        Err(problem) => boot::fail(format_args!("{id}: {problem}")),
    }
}

/// What every CPU does for itself once it has its block.
///
/// # Errors
/// The GIC has no redistributor for it.
pub fn cpu(cpu: &'static PerCpu) -> Result<(), StartError> {
    let cpus = boot::machine().cpus.len();
    let index = gic::init_cpu(cpu.mpidr, cpus)?;
    cpu.redistributor.store(u32::try_from(index).unwrap_or(0), Relaxed);
    crate::virtual_gic::reset_interface();
    let timers = &boot::machine().timers;
    let maintenance = match &boot::machine().gic {
        Some(bulkhead_core::machine::Gic::V3(gic)) => gic.maintenance,
        _ => None,
    };
    for interrupt in [timers.virtual_, timers.physical, timers.hypervisor, maintenance].into_iter().flatten() {
        gic::enable_private(index, interrupt.id, true)?;
    }
    if speculation::init_cpu() == BranchHardening::None {
        NOT_HARDENED.fetch_add(1, Relaxed);
    }
    Ok(())
}

/// Starts every other CPU by PSCI, one after the other. One that does not come is left out, and said.
#[inline(never)]
pub fn start_others(machine: &Machine) {
    for (index, described) in machine.cpus.iter().enumerate() {
        let id = CpuId(u8::try_from(index).unwrap_or(u8::MAX));
        if described.mpidr == boot::own_mpidr() {
            continue;
        }
        if !is_startable(described.enable) {
            error!("{id}: its enable-method is not psci: it stays off");
            continue;
        }
        if let Err(problem) = start_other(id, described.mpidr) {
            error!("{id}: {problem}");
        }
    }
    info!("{} of {} CPUs online", percpu::online().count(), machine.cpus.len());
    match NOT_HARDENED.load(Relaxed) {
        0 => (),
        count => {
            warn!("{count} CPUs have no branch predictor hardening: neither CSV2 nor SMCCC_ARCH_WORKAROUND_1 or _3")
        }
    }
}

#[inline(never)]
fn start_other(id: CpuId, mpidr: Mpidr) -> Result<(), StartError> {
    let cpu = new_cpu(id, mpidr)?;
    let registers = memory::registers().ok_or(StartError::NoMemory)?;
    let record = memory::take(1, PAGE_SIZE, Use::Hypervisor as usize).ok_or(StartError::NoMemory)?;
    let pointer: *mut SecondaryBoot = crate::pointer::to(record.as_u64());
    let boot_record =
        SecondaryBoot { registers, stack_top: cpu.stack_top, cpu: core::ptr::from_ref(cpu).addr() as u64 };
    // SAFETY: a fresh frame that nobody else knows.
    unsafe { pointer.write(boot_record) };
    // The CPU reads it with its caches off.
    crate::cache::clean(record, PAGE_SIZE);
    boot_text::expect_cpu();
    match firmware::cpu_on(mpidr, image::secondary_start(), record.as_u64()) {
        Some(Ok(())) => (),
        Some(Err(problem)) => {
            boot_text::expect_no_cpu();
            error!("{id}: PSCI CPU_ON: {problem}");
            return Ok(());
        }
        None => {
            boot_text::expect_no_cpu();
            error!("{id}: the device tree has no psci node: it cannot be started");
            return Ok(());
        }
    }
    let start = time::now_us();
    while !cpu.is_online.load(Acquire) {
        if time::now_us() - start > ONLINE_TIMEOUT_US {
            error!("{id}: no sign of life {ONLINE_TIMEOUT_US} us after PSCI CPU_ON");
            return Ok(());
        }
        core::hint::spin_loop();
    }
    memory::give_back(record, 1, Use::Hypervisor as usize);
    Ok(())
}

/// The hypervisor's interrupts.
#[inline(never)]
pub fn sources(machine: &Machine, gic: &GicV3) -> heapless::Vec<(IntId, Source), 32> {
    let mut sources = heapless::Vec::new();
    let mut add = |interrupt: Option<Interrupt>, source| {
        if let Some(interrupt) = interrupt
            && sources.push((interrupt.id, source)).is_err()
        {
            warn!("interrupt {}: more than 32 interrupts of the hypervisor", interrupt.id.0);
        }
    };
    add(gic.maintenance, Source::Maintenance);
    add(machine.timers.hypervisor, Source::Timer);
    add(machine.console.as_ref().and_then(|console| console.interrupt), Source::Uart);
    for (id, smmu) in machine.numbered_smmus() {
        add(smmu.interrupts.event_queue, Source::SmmuEvents(id));
        add(smmu.interrupts.global_error, Source::SmmuError(id));
        add(smmu.interrupts.combined, Source::SmmuCombined(id));
    }
    sources
}

/// Routes the SMMUs' interrupts to this CPU.
pub fn enable_sources(machine: &Machine) {
    for smmu in &machine.smmus {
        let lines = &smmu.interrupts;
        for interrupt in [lines.event_queue, lines.global_error, lines.combined].into_iter().flatten() {
            enable(interrupt);
        }
    }
}

/// Lets the keyboard interrupt this CPU.
pub fn listen() {
    if let Some(interrupt) = boot::machine().console.as_ref().and_then(|console| console.interrupt) {
        let _ = console::with_uart(|uart| uart.enable_receive_interrupt());
        enable(interrupt);
    }
}

fn enable(interrupt: Interrupt) {
    let is_edge = interrupt.trigger == Trigger::Edge;
    let enabled =
        gic::prefer(0, interrupt.id).and_then(|()| gic::enable_shared(interrupt.id, is_edge, boot::own_mpidr()));
    if let Err(problem) = enabled {
        warn!("{problem}");
    }
}
