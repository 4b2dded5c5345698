//! A VM's SMMUv3: stage 1 alone, with no more in its registers than that (IHI 0070).
//!
//! The guest's driver writes registers, queues and tables in its own memory; each of its stores to a register is one
//! [`Vsmmu::write`]. What it wants becomes calls of a [`Host`]: what a stream's transactions meet, and which translations
//! are to be forgotten. Nothing of a command or an entry reaches the hardware as it was written (rules 14 to 18):
//!
//! - A command is copied once, decoded into an enum, and acted on from there. VMIDs are not looked at, a stream that is not
//!   the VM's is left alone, and a CMD_SYNC is completed here: its message is a store to the VM's own RAM, or nothing.
//! - An entry gives its Config, the address of its context descriptor and that fetch's attributes; nothing else is read.
//! - Queues and tables are found through the VM's own memory at each use; outside of RAM they are an aborted access.
//! - A call takes a bounded number of steps and then says [`Next::More`].
//!
//! Where the architecture leaves a choice (CONSTRAINED UNPREDICTABLE), the guest's access is ignored.

mod access;
mod command;
mod drain;
mod event;
mod host;
mod interrupt;
mod queue;
mod registers;
mod stream;
#[cfg(test)]
mod tests;

pub use host::{Host, HostFailed};
pub use interrupt::Interrupts;

use registers::{Registers, reset_values};

/// Bytes of the register frame: two pages of 64 KiB (6.1).
pub const FRAME_BYTES: u64 = 0x2_0000;
/// Bits of a virtual StreamID (IDR1.SIDSIZE): bus 0 alone.
pub const STREAM_BITS: u32 = 8;
/// Commands that one call carries out at most.
pub const COMMANDS_MAX: u32 = 64;

/// What the virtual SMMU is to say that it can do. The rest is the same for all: see `registers`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ability {
    /// IDR0.ASID16 of the physical SMMU: ASIDs have 16 bits, else 8.
    pub has_asid16: bool,
    /// IDR0.TERM_MODEL of the physical SMMU: faulting transactions are aborted whatever CD.A says.
    pub is_terminate_only: bool,
    /// IDR3.RIL: TLBI commands may carry a range.
    pub has_range_invalidation: bool,
    /// Bits of the VM's physical addresses: stage 1 puts out no more, and IDR5.OAS says the nearest size at or above.
    pub oas_bits: u8,
}

impl Ability {
    /// What an SMMU in front of both can say: what both can do, and the limits that either has.
    #[must_use]
    pub fn of_both(self, other: Self) -> Self {
        Self {
            has_asid16: self.has_asid16 && other.has_asid16,
            is_terminate_only: self.is_terminate_only || other.is_terminate_only,
            has_range_invalidation: self.has_range_invalidation && other.has_range_invalidation,
            oas_bits: self.oas_bits.min(other.oas_bits),
        }
    }
}

/// What is left to do after a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Next {
    /// Nothing.
    Done,
    /// Commands are left in the queue. The caller has the guest repeat its store, after letting in what waits: a repeated
    /// store changes nothing, and goes on with the queue.
    More,
}

/// One virtual SMMU. EL2 puts one lock around it.
#[derive(Clone, Debug)]
pub struct Vsmmu {
    ability: Ability,
    registers: Registers,
    interrupts: Interrupts,
}

impl Vsmmu {
    /// An SMMU after reset: off, and transactions of its streams bypass it (GBPA.ABORT = 0), i.e. meet our stage 2 alone.
    /// The caller has attached the streams so.
    pub fn new(ability: Ability) -> Self {
        Self { ability, registers: reset_values(&ability), interrupts: Interrupts::empty() }
    }

    /// As after [`new`](Self::new), when the VM starts again. The caller attaches the streams anew, without stage 1.
    pub fn reset(&mut self) {
        *self = Self::new(self.ability);
    }

    /// Interrupts that were raised since the last call: edges of the three wired outputs.
    pub fn take_interrupts(&mut self) -> Interrupts {
        core::mem::take(&mut self.interrupts)
    }
}
