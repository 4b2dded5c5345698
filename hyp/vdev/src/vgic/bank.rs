//! The bitmaps: one bit an interrupt.

/// State of the VM's SPIs (bits 32-63) or of one vCPU's own interrupts (bits 0-31), as far as it is in no list register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Bank {
    pub(super) group1: u64,
    pub(super) enabled: u64,
    /// ICFGR: edge-triggered, not level-sensitive.
    pub(super) edge: u64,
    /// Pending by an edge, an SGI, an acknowledged physical interrupt or a write to ISPENDR.
    pub(super) latch: u64,
    /// Input line of a software-driven interrupt.
    pub(super) level: u64,
    /// The physical twin is active and waits for its deactivation.
    pub(super) hw_live: u64,
}

impl Bank {
    /// Pending, whatever the reason.
    pub(super) const fn pending(&self) -> u64 {
        self.latch | (self.level & !self.edge)
    }
}

/// An access that waits for other vCPUs to sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Wait {
    /// Which register: unique over distributor and redistributors.
    pub(super) register: u64,
    pub(super) asked: u8,
    pub(super) done: u8,
}

/// One vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cpu {
    /// Its own interrupts.
    pub(super) bank: Bank,
    pub(super) priority: [u8; 32],
    /// Active on this vCPU, SPIs included, and in no list register.
    pub(super) active: u64,
    /// In this vCPU's list registers. What follows describes them as they were flushed.
    pub(super) resident: u64,
    pub(super) lr_pending: u64,
    pub(super) lr_active: u64,
    /// Of `lr_pending`: taken out of a latch, to be put back if it was not acknowledged.
    pub(super) lr_soft: u64,
    /// Linked by the HW bit.
    pub(super) lr_hw: u64,
    /// Active when flushed, and left out for want of a list register.
    pub(super) lr_spilled: u64,
    /// Writes to ICPENDR and ICACTIVER that reached an interrupt in a list register.
    pub(super) cancel_pending: u64,
    pub(super) cancel_active: u64,
    pub(super) wait: Wait,
    /// The list registers do not say what they should.
    pub(super) is_dirty: bool,
    /// Some access waits for this vCPU's sync.
    pub(super) is_recalled: bool,
    /// GICR_WAKER.ProcessorSleep.
    pub(super) is_asleep: bool,
    /// GICR_CTLR.RWP.
    pub(super) rwp: bool,
}

impl Default for Cpu {
    fn default() -> Self {
        Self {
            // SGIs are always edge-triggered.
            bank: Bank { edge: 0xffff, ..Bank::default() },
            priority: [0; 32],
            active: 0,
            resident: 0,
            lr_pending: 0,
            lr_active: 0,
            lr_soft: 0,
            lr_hw: 0,
            lr_spilled: 0,
            cancel_pending: 0,
            cancel_active: 0,
            wait: Wait::default(),
            is_dirty: false,
            is_recalled: false,
            is_asleep: true,
            rwp: false,
        }
    }
}
