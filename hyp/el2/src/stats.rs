//! Counters of one vCPU: exits by reason, time at EL2, and what its calls about DMA maps cost.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a guest came to EL2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Reason {
    /// A physical interrupt.
    Irq = 0,
    /// An access to the virtual GIC.
    Gic = 1,
    /// An access to the virtual UART.
    Uart = 2,
    /// An access to PCI configuration space.
    Pci = 3,
    /// A trapped system register.
    Sysreg = 4,
    /// HVC or SMC for power or firmware.
    Call = 5,
    /// HVC or SMC for DMA maps.
    Dma = 6,
    /// An access to the virtual SMMU, or to the virtio IOMMU.
    Smmu = 7,
    /// Anything else.
    Other = 8,
}

/// Names of the reasons, in order.
pub const NAMES: [&str; 9] = ["irq", "gic", "uart", "pci", "sysreg", "call", "dma", "smmu", "other"];

/// Counters that one CPU writes and any CPU reads.
pub struct Exits {
    counts: [AtomicU64; NAMES.len()],
    el2_ticks: AtomicU64,
    boot_ticks: AtomicU64,
}

impl Exits {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; NAMES.len()],
            el2_ticks: AtomicU64::new(0),
            boot_ticks: AtomicU64::new(0),
        }
    }

    /// Counts one exit. Only the owning CPU calls this, so a load and a store do: no exclusive access.
    pub fn count(&self, reason: Reason) {
        add(&self.counts[reason as usize], 1);
    }

    /// Adds time spent at EL2 on behalf of the guest, in ticks of the system counter.
    pub fn add_el2_ticks(&self, ticks: u64) {
        add(&self.el2_ticks, ticks);
    }

    /// Notes when the vCPU started, in ticks of the system counter.
    pub fn set_started(&self, ticks: u64) {
        self.boot_ticks.store(ticks, Relaxed);
    }

    /// When the vCPU last started, in ticks; 0 before that.
    pub fn started(&self) -> u64 {
        self.boot_ticks.load(Relaxed)
    }

    /// Exits for a reason.
    pub fn of(&self, reason: usize) -> u64 {
        self.counts.get(reason).map_or(0, |count| count.load(Relaxed))
    }

    /// All exits.
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// Time at EL2 on behalf of the guest, in ticks.
    pub fn el2_ticks(&self) -> u64 {
        self.el2_ticks.load(Relaxed)
    }
}

impl Default for Exits {
    fn default() -> Self {
        Self::new()
    }
}

/// What calls of one kind cost, from entry to exit: written by one CPU, read by any.
#[derive(Default)]
pub struct Calls {
    count: AtomicU64,
    ticks: AtomicU64,
    worst_ticks: AtomicU64,
    instructions: AtomicU64,
    worst_instructions: AtomicU64,
}

/// Sums over CPUs.
#[derive(Clone, Copy, Default)]
pub struct CallSums {
    /// Calls.
    pub count: u64,
    /// Their time, in ticks of the system counter.
    pub ticks: u64,
    /// The longest.
    pub worst_ticks: u64,
    /// Their instructions at EL2, where those are counted.
    pub instructions: u64,
    /// The most of one.
    pub worst_instructions: u64,
}

impl Calls {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            count: AtomicU64::new(0),
            ticks: AtomicU64::new(0),
            worst_ticks: AtomicU64::new(0),
            instructions: AtomicU64::new(0),
            worst_instructions: AtomicU64::new(0),
        }
    }

    /// Counts one call. Only the owning CPU does.
    pub fn note(&self, ticks: u64, instructions: u64) {
        add(&self.count, 1);
        add(&self.ticks, ticks);
        add(&self.instructions, instructions);
        raise(&self.worst_ticks, ticks);
        raise(&self.worst_instructions, instructions);
    }

    /// Forgets all.
    pub fn clear(&self) {
        for counter in [&self.count, &self.ticks, &self.worst_ticks, &self.instructions, &self.worst_instructions] {
            counter.store(0, Relaxed);
        }
    }

    /// Adds these to `sums`.
    pub fn add_to(&self, sums: &mut CallSums) {
        sums.count += self.count.load(Relaxed);
        sums.ticks += self.ticks.load(Relaxed);
        sums.instructions += self.instructions.load(Relaxed);
        sums.worst_ticks = sums.worst_ticks.max(self.worst_ticks.load(Relaxed));
        sums.worst_instructions = sums.worst_instructions.max(self.worst_instructions.load(Relaxed));
    }
}

fn raise(counter: &AtomicU64, value: u64) {
    if value > counter.load(Relaxed) {
        counter.store(value, Relaxed);
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(more), Relaxed);
}
