//! A platform that breaks one of the driver's habits: shows that the model, or the driver, notices.

use bulkhead_core::addr::PhysAddr;

use crate::{platform::Platform, registers::offset};

/// What is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutation {
    /// Nothing.
    None,
    /// Barriers do nothing.
    DropBarriers,
    /// Cleans do nothing.
    DropCleans,
    /// Invalidates do nothing.
    DropInvalidates,
    /// Commands with this opcode become hints that do nothing.
    DropCommand(u8),
    /// The store that makes an entry invalid is left out.
    KeepValid,
    /// Allocations are aligned to half of what was asked for.
    HalfAlignment,
    /// GBPA is never written.
    KeepGlobalBypass,
    /// CR0 is cleared before GBPA is written.
    DisableFirst,
    /// The store of a valid word 0 says bypass.
    BypassForAbort,
    /// The root table in an entry is the one at this address.
    OtherRoot(PhysAddr),
    /// The first words of flushes of stage 1 are changed by these bits: another VMID, another ASID.
    RetagFlushes(u64),
    /// The store of a valid word 0 leaves stage 2 out.
    Stage1Alone,
    /// CMD_SYNC asks for an MSI, as a guest's does.
    SyncWithMsi,
    /// GERRORN is never written.
    IgnoreErrors,
    /// ATSCHK is never set.
    TrustTranslated,
    /// Every allocation is at this address.
    AllocAt(PhysAddr),
}

/// Opcode of CMD_PREFETCH_CONFIG: a hint.
const HINT: u64 = 0x01;

/// A platform with one mutation.
pub struct Mutant<P> {
    inner: P,
    mutation: Mutation,
    queue: core::ops::Range<u64>,
    /// Writes of CMDQ_PROD.
    pub prod_writes: u32,
    /// Whether the mutation is in force.
    pub is_active: bool,
}

impl<P: Platform> Mutant<P> {
    /// `inner` with `mutation`.
    pub fn new(inner: P, mutation: Mutation) -> Self {
        Self { inner, mutation, queue: 0..0, prod_writes: 0, is_active: true }
    }

    /// Breaks another habit from now on.
    pub const fn set(&mut self, mutation: Mutation) {
        self.mutation = mutation;
    }

    fn has(&self, mutation: Mutation) -> bool {
        self.is_active && self.mutation == mutation
    }

    fn is_command(&self, at: PhysAddr) -> bool {
        self.queue.contains(&at.as_u64())
    }
}

impl<P: Platform> Platform for Mutant<P> {
    fn read32(&mut self, at: u32) -> u32 {
        let value = self.inner.read32(at);
        match at {
            offset::GBPA if self.has(Mutation::KeepGlobalBypass) => value | 1 << 20,
            _ => value,
        }
    }

    fn write32(&mut self, at: u32, value: u32) {
        match at {
            offset::GBPA if self.has(Mutation::KeepGlobalBypass) => return,
            offset::GBPA if self.has(Mutation::DisableFirst) => {
                self.inner.write32(offset::CR0, 0);
                for _ in 0..16 {
                    let _ = self.inner.read32(offset::CR0ACK);
                }
            }
            offset::GERRORN if self.has(Mutation::IgnoreErrors) => return,
            offset::CR0 if self.has(Mutation::TrustTranslated) => {
                return self.inner.write32(at, value & !(1 << 4));
            }
            _ => {}
        }
        self.prod_writes += u32::from(at == offset::CMDQ_PROD);
        self.inner.write32(at, value);
    }

    fn read64(&mut self, at: u32) -> u64 {
        self.inner.read64(at)
    }

    fn write64(&mut self, at: u32, value: u64) {
        if at == offset::CMDQ_BASE {
            let start = value & 0x000f_ffff_ffff_ffe0;
            self.queue = start..start + (16 << (value & 31));
        }
        self.inner.write64(at, value);
    }

    fn read_memory(&mut self, at: PhysAddr) -> u64 {
        self.inner.read_memory(at)
    }

    fn write_memory(&mut self, at: PhysAddr, value: u64) {
        let is_command = self.is_command(at);
        let is_first_word = at.as_u64().is_multiple_of(64) && !is_command;
        let value = match self.mutation {
            Mutation::DropCommand(opcode)
                if self.is_active
                    && is_command
                    && at.as_u64().is_multiple_of(16)
                    && value & 0xff == u64::from(opcode) =>
            {
                HINT
            }
            Mutation::RetagFlushes(bits)
                if self.is_active
                    && is_command
                    && at.as_u64().is_multiple_of(16)
                    && (0x10..=0x13).contains(&(value & 0xff)) =>
            {
                value ^ bits
            }
            Mutation::SyncWithMsi
                if self.is_active && is_command && at.as_u64().is_multiple_of(16) && value == 0x46 =>
            {
                value | 1 << 12
            }
            Mutation::Stage1Alone if self.is_active && is_first_word && value & 0xf == 0b1111 => value & !0b100,
            // The upper word of a dropped command is harmless: hints ignore it here.
            Mutation::KeepValid if self.is_active && is_first_word && value == 0 => return,
            Mutation::BypassForAbort if self.is_active && is_first_word && value == 1 => 0b1001,
            Mutation::OtherRoot(root) if self.is_active && !is_command && at.as_u64() % 64 == 24 && value != 0 => {
                root.as_u64()
            }
            _ => value,
        };
        self.inner.write_memory(at, value);
    }

    fn clean(&mut self, at: PhysAddr, bytes: u64) {
        if !self.has(Mutation::DropCleans) {
            self.inner.clean(at, bytes);
        }
    }

    fn invalidate(&mut self, at: PhysAddr, bytes: u64) {
        if !self.has(Mutation::DropInvalidates) {
            self.inner.invalidate(at, bytes);
        }
    }

    fn barrier(&mut self) {
        if !self.has(Mutation::DropBarriers) {
            self.inner.barrier();
        }
    }

    fn alloc(&mut self, pages: u64, alignment: u64) -> Option<PhysAddr> {
        if self.has(Mutation::HalfAlignment) {
            let at = self.inner.alloc(pages + alignment / 4096, alignment)?;
            return at.checked_add(alignment / 2);
        }
        if let Mutation::AllocAt(at) = self.mutation {
            return Some(at);
        }
        self.inner.alloc(pages, alignment)
    }

    fn now_us(&mut self) -> u64 {
        self.inner.now_us()
    }

    fn relax(&mut self) {
        self.inner.relax();
    }
}
