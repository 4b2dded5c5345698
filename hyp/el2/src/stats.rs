//! Counters of one vCPU: exits by reason, and time at EL2.

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
    /// Anything else.
    Other = 7,
}

/// Names of the reasons, in order.
pub const NAMES: [&str; 8] = ["irq", "gic", "uart", "pci", "sysreg", "call", "dma", "other"];

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

fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(more), Relaxed);
}
