//! Interrupts and global errors: wired edges, or messages to the guest's own RAM (IHI 0070 3.18, 7.5).

use core::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, Release},
};

use bitflags::bitflags;
use bulkhead_core::addr::Ipa;

use super::{
    Vsmmu,
    registers::{IRQ_CTRL, MESSAGE_ADDRESS, offset},
};
use crate::memory::{GuestMemory, Word};

bitflags! {
    /// Wired outputs, each an edge. Those of the event queue and of global errors are raised whether a message is sent or not.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Interrupts: u8 {
        /// The event queue is not empty any more.
        const EVENTQ = 1 << 0;
        /// A global error became active.
        const GERROR = 1 << 1;
        /// A CMD_SYNC with CS = SIG_IRQ and no message is complete.
        const CMD_SYNC = 1 << 2;
    }
}

bitflags! {
    /// Global errors: bits of GERROR and GERRORN.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Gerror: u32 {
        /// The command queue stopped at a command.
        const CMDQ_ERR = 1 << 0;
        /// An event could not be written.
        const EVENTQ_ABT_ERR = 1 << 2;
        /// The message of a CMD_SYNC could not be written.
        const MSI_CMDQ_ABT_ERR = 1 << 4;
        /// The message of the event queue could not be written.
        const MSI_EVENTQ_ABT_ERR = 1 << 5;
        /// The message of a global error could not be written.
        const MSI_GERROR_ABT_ERR = 1 << 7;
    }
}

impl Vsmmu {
    /// Whether `error` is active: GERROR and GERRORN differ in its bit.
    pub(super) fn is_active(&self, error: Gerror) -> bool {
        (self.registers.word(offset::GERROR) ^ self.registers.word(offset::GERRORN)) & error.bits() != 0
    }

    /// Makes `error` active, and says so unless it was.
    pub(super) fn raise(&mut self, error: Gerror, memory: &mut impl GuestMemory) {
        if self.activate(error) && self.is_irq_enabled(IRQ_CTRL::GERROR) {
            let message = self.message(offset::GERROR_IRQ_CFG0, offset::GERROR_IRQ_CFG1);
            if self.signal(Interrupts::GERROR, message, memory).is_none() {
                // Not told by another message: it would be lost as this one was.
                self.activate(Gerror::MSI_GERROR_ABT_ERR);
            }
        }
    }

    /// Says that there are events.
    pub(super) fn raise_eventq(&mut self, memory: &mut impl GuestMemory) {
        if self.is_irq_enabled(IRQ_CTRL::EVENTQ) {
            let message = self.message(offset::EVENTQ_IRQ_CFG0, offset::EVENTQ_IRQ_CFG1);
            if self.signal(Interrupts::EVENTQ, message, memory).is_none() {
                self.raise(Gerror::MSI_EVENTQ_ABT_ERR, memory);
            }
        }
    }

    /// Signals by wire, and by `message` (address, data) unless the address is 0; `None` if that store was aborted.
    fn signal(&mut self, wire: Interrupts, (at, data): (u64, u32), memory: &mut impl GuestMemory) -> Option<()> {
        self.interrupts |= wire;
        if at == 0 { Some(()) } else { store(memory, at, data) }
    }

    fn message(&self, cfg0: usize, cfg1: usize) -> (u64, u32) {
        (self.registers.double(cfg0) & MESSAGE_ADDRESS, self.registers.word(cfg1))
    }

    fn is_irq_enabled(&self, field: tock_registers::fields::Field<u32, IRQ_CTRL::Register>) -> bool {
        self.registers.fields::<IRQ_CTRL::Register>(offset::IRQ_CTRL).is_set(field)
    }

    fn activate(&mut self, error: Gerror) -> bool {
        let is_new = !self.is_active(error);
        if is_new {
            self.registers.set(offset::GERROR, self.registers.word(offset::GERROR) ^ error.bits());
        }
        is_new
    }
}

/// Attempts at a store of half a word before it is forced.
const ATTEMPTS: u32 = 64;

/// Stores 32 bits at `at`, a multiple of 4; `None` where no RAM is.
pub(super) fn store(memory: &mut impl GuestMemory, at: u64, data: u32) -> Option<()> {
    store_half(memory.words(Ipa::new(at & !7), 1)?.first()?, at, data);
    Some(())
}

/// Stores 32 bits at the address `at`, a multiple of 4, which `word` holds. The other half keeps what it holds, unless
/// another vCPU stores there all the time.
#[inline(always)]
pub(super) fn store_half(word: &AtomicU64, at: u64, data: u32) {
    let shift = (at & 4) * 8;
    let (kept, stored) = (!(0xffff_ffff << shift), u64::from(data) << shift);
    let mut old = word.get();
    for _ in 0..ATTEMPTS {
        match word.compare_exchange_weak(old, old & kept | stored, Release, Relaxed) {
            Ok(_) => return,
            Err(now) => old = now,
        }
    }
    word.set_release(old & kept | stored);
}
