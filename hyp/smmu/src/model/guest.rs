//! A guest of tests: its memory behind stage 2, and a stage 1 in it that it builds by plain stores.

use bulkhead_core::addr::{Ipa, PAGE_SIZE, PhysAddr};

use super::{Model, TestTable};
use crate::platform::Platform;

/// Memory of a guest, contiguous, mapped by pages.
pub struct Guest {
    model: Model,
    /// Its stage 2.
    pub stage2: TestTable,
    ipa: Ipa,
    frames: PhysAddr,
    pages: u64,
    used: u64,
}

/// Descriptor bits of a stage-1 leaf: valid page, AF, inner shareable, EL0 may, not global.
const LEAF: u64 = 3 | 1 << 10 | 3 << 8 | 1 << 6 | NOT_GLOBAL;
/// nG of a stage-1 leaf.
const NOT_GLOBAL: u64 = 1 << 11;
/// AP[2] of a stage-1 leaf: nobody may write.
const READ_ONLY: u64 = 1 << 7;

impl Guest {
    /// T0SZ of the guest's contexts: 39 bits, tables from level 1.
    pub const VA_BITS: u64 = 39;

    /// A guest with `pages` pages of memory at `ipa`.
    pub fn new(model: &Model, ipa: Ipa, pages: u64) -> Self {
        let frames = model.alloc(pages, PAGE_SIZE);
        let mut port = model.clone();
        port.clean(frames, pages * PAGE_SIZE);
        port.barrier();
        let mut stage2 = TestTable::new(model);
        for page in 0..pages {
            let at = |base: u64| base + page * PAGE_SIZE;
            stage2.map_page(Ipa::new(at(ipa.as_u64())), PhysAddr::new(at(frames.as_u64())), true);
        }
        Self { model: model.clone(), stage2, ipa, frames, pages, used: 0 }
    }

    /// Its memory: first frame and bytes.
    pub fn memory(&self) -> (PhysAddr, u64) {
        (self.frames, self.pages * PAGE_SIZE)
    }

    /// The frame behind an IPA of its memory.
    pub fn frame(&self, ipa: Ipa) -> PhysAddr {
        PhysAddr::new(self.frames.as_u64() + (ipa.as_u64() - self.ipa.as_u64()))
    }

    fn has(&self, ipa: Ipa) -> bool {
        ipa.as_u64().checked_sub(self.ipa.as_u64()).is_some_and(|offset| offset / PAGE_SIZE < self.pages)
    }

    /// A page of its memory that was not taken before: zeroes.
    ///
    /// # Panics
    /// When there is none.
    pub fn take_page(&mut self) -> Ipa {
        assert!(self.used < self.pages, "the guest's memory is used up");
        self.used += 1;
        Ipa::new(self.ipa.as_u64() + (self.used - 1) * PAGE_SIZE)
    }

    /// Stores a word in its memory, and sees to it that the SMMU finds it.
    pub fn write(&mut self, at: Ipa, value: u64) {
        let at = self.frame(at);
        self.model.write_memory(at, value);
        self.model.clean(at, 8);
        self.model.barrier();
    }

    /// Reads a word of its memory.
    pub fn read(&mut self, at: Ipa) -> u64 {
        self.model.read_memory(self.frame(at))
    }

    /// A leaf of a page: writable or not, of its ASID or global.
    pub fn leaf(page: Ipa, is_writable: bool, is_global: bool) -> u64 {
        let write = if is_writable { 0 } else { READ_ONLY };
        let global = if is_global { NOT_GLOBAL } else { 0 };
        (page.as_u64() | LEAF | write) & !global
    }

    /// Stores the leaf of `va`'s page in the table at `root`; tables in between are made. Where one of those that are there
    /// leads out of the guest's memory, nothing is stored.
    pub fn store_leaf(&mut self, root: Ipa, va: u64, leaf: u64) {
        let mut table = root;
        for level in 1..3 {
            let slot = Self::slot(table, va, level);
            let next = self.read(slot);
            table = if next & 3 == 3 {
                let next = Ipa::new(next & 0x0000_ffff_ffff_f000);
                if !self.has(next) {
                    return;
                }
                next
            } else {
                let fresh = self.take_page();
                self.write(slot, fresh.as_u64() | 3);
                fresh
            };
        }
        self.write(Self::slot(table, va, 3), leaf);
    }

    fn slot(table: Ipa, va: u64, level: u64) -> Ipa {
        Ipa::new(table.as_u64() + (va >> (39 - 9 * level) & 511) * 8)
    }

    /// Writes a context descriptor as Linux has it: TTB1 off, 40-bit output, faults abort and are recorded, ASET.
    pub fn write_context(&mut self, at: Ipa, asid: u16, root: Ipa) {
        let word0 = (64 - Self::VA_BITS)
            | 1 << 8 // IR0
            | 1 << 10 // OR0
            | 3 << 12 // SH0
            | 1 << 30 // EPD1
            | 1 << 31 // V
            | 2 << 32 // IPS
            | 1 << 41 // AA64
            | 1 << 45 // R
            | 1 << 46 // A
            | 1 << 47 // ASET
            | u64::from(asid) << 48;
        for (word, value) in [(1, root.as_u64()), (3, 0xff), (0, word0)] {
            self.write(Ipa::new(at.as_u64() + word * 8), value);
        }
    }
}
