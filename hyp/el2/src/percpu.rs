//! One block a CPU, reached through TPIDR_EL2.

use core::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{AcqRel, Relaxed},
};

use aarch64_cpu::registers::{Readable, TPIDR_EL2};
use bulkhead_core::ids::{CpuId, IntId, Mpidr};
use bulkhead_vdev::vgic::ListRegisters;
use spin::Once;

use crate::{
    lock::Mutex,
    mmu::WindowTable,
    stats::{Calls, Exits},
    vm::Vm,
};

/// CPUs that the hypervisor can run.
pub const CPUS_MAX: usize = 64;

/// Bytes of a CPU's stack, its guard page not counted.
pub const STACK_BYTES: u64 = 32 << 10;

/// What a sleeping CPU is asked to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task {
    /// Scrub and load the VM's memory, then start its first vCPU here.
    BootVm,
    /// Take devices and memory back from the VM whose first vCPU is at home here.
    TearDown,
    /// Start this CPU's vCPU (PSCI CPU_ON).
    StartVcpu {
        /// Entry, an IPA inside the VM's RAM.
        entry: u64,
        /// Value of x0.
        context: u64,
    },
}

/// A CPU's block. `vectors.s` reads the first word, `boot.s` passes the address.
#[repr(C)]
pub struct PerCpu {
    emergency_stack_top: u64,
    /// Top of the stack that trap frames grow from.
    pub stack_top: u64,
    /// This CPU.
    pub id: CpuId,
    /// Its affinity, as SGIs are addressed.
    pub mpidr: Mpidr,
    /// Set by the CPU itself once it runs.
    pub is_online: AtomicBool,
    /// The VM that this CPU belongs to and the number of its vCPU; none for a spare CPU.
    pub vcpu: Once<(&'static Vm, usize)>,
    /// What to do next, taken by the CPU itself.
    pub task: Mutex<Option<Task>>,
    /// Exits of the vCPU, written by this CPU alone.
    pub exits: Exits,
    /// Calls about DMA maps, likewise.
    pub calls: Calls,
    /// Index of the redistributor that belongs to this CPU.
    pub redistributor: AtomicU32,
    /// For the window onto guest memory.
    pub windows: WindowTable,
    /// Held while this CPU's window is open.
    pub window_in_use: AtomicBool,
    /// What the list registers hold; this CPU alone uses it.
    pub lrs: Mutex<ListRegisters>,
    /// PPIs that other CPUs want deactivated here, one bit each.
    ppis_to_deactivate: AtomicU32,
}

impl PerCpu {
    /// A block for the CPU, with its two stacks.
    pub const fn new(id: CpuId, mpidr: Mpidr, stack_top: u64, emergency_stack_top: u64, windows: WindowTable) -> Self {
        Self {
            emergency_stack_top,
            stack_top,
            id,
            mpidr,
            is_online: AtomicBool::new(false),
            vcpu: Once::new(),
            task: Mutex::new(None),
            exits: Exits::new(),
            calls: Calls::new(),
            redistributor: AtomicU32::new(0),
            windows,
            window_in_use: AtomicBool::new(false),
            lrs: Mutex::new(ListRegisters::new(1)),
            ppis_to_deactivate: AtomicU32::new(0),
        }
    }

    /// The block of the CPU that asks.
    pub fn current() -> &'static Self {
        let address = usize::try_from(TPIDR_EL2.get()).unwrap_or(0);
        // SAFETY: boot set TPIDR_EL2 to this CPU's block, which lives as long as the machine, before any caller ran.
        unsafe { &*core::ptr::with_exposed_provenance::<Self>(address) }
    }

    /// Asks this CPU to do `task` when it sleeps next, and wakes it.
    pub fn post(&self, task: Task) {
        *self.task.lock() = Some(task);
        self.kick();
    }

    /// The same, unless another task waits, which then does what is needed.
    pub fn post_if_idle(&self, task: Task) {
        self.task.lock().get_or_insert(task);
        self.kick();
    }

    /// Makes this CPU leave its guest and look around.
    pub fn kick(&self) {
        crate::gic::send_kick(self.mpidr);
    }

    /// Asks this CPU to deactivate one of its PPIs when it is kicked.
    pub fn ask_deactivation(&self, interrupt: IntId) {
        self.ppis_to_deactivate.fetch_or(1u32.checked_shl(interrupt.0).unwrap_or(0), AcqRel);
    }

    /// Does what other CPUs asked for.
    pub fn deactivate_asked(&self) {
        if self.ppis_to_deactivate.load(Relaxed) == 0 {
            return;
        }
        let asked = self.ppis_to_deactivate.swap(0, AcqRel);
        (16..32).filter(|bit| asked >> bit & 1 == 1).for_each(|bit| crate::gic::deactivate(IntId(bit)));
    }

    /// Marks the CPU as running.
    pub fn set_online(&self) {
        self.is_online.store(true, Relaxed);
    }
}

static CPUS: [Once<&'static PerCpu>; CPUS_MAX] = [const { Once::new() }; CPUS_MAX];

/// Makes a block known under its CPU's number.
pub fn register(cpu: &'static PerCpu) {
    if let Some(slot) = CPUS.get(cpu.id.index()) {
        slot.call_once(|| cpu);
    }
}

/// The block of a CPU that was found in the device tree.
pub fn of(id: CpuId) -> Option<&'static PerCpu> {
    CPUS.get(id.index())?.get().copied()
}

/// Every CPU that runs.
pub fn online() -> impl Iterator<Item = &'static PerCpu> {
    CPUS.iter().filter_map(|slot| slot.get().copied()).filter(|cpu| cpu.is_online.load(Relaxed))
}
