//! Stage-2 tables for tests: built with plain stores, whatever the driver under test does.

use bulkhead_core::addr::{Ipa, PhysAddr};

use super::Model;
use crate::platform::Platform;

/// A stage-2 table of a test's VM: 4 KiB granule, root at level 1.
pub struct TestTable {
    model: Model,
    root: PhysAddr,
}

/// Descriptor bits of a leaf: valid, AF, inner shareable, Normal write-back.
const LEAF: u64 = 1 << 10 | 3 << 8 | 0xf << 2;
const READ: u64 = 1 << 6;
const WRITE: u64 = 1 << 7;

impl TestTable {
    /// An empty table in `model`'s memory.
    pub fn new(model: &Model) -> Self {
        let root = model.alloc(1, 4096);
        let mut table = Self { model: model.clone(), root };
        table.publish(root, 4096);
        table
    }

    /// Address of the root table.
    pub fn root(&self) -> PhysAddr {
        self.root
    }

    /// Maps one page at `ipa` to `output`, writable or not.
    pub fn map_page(&mut self, ipa: Ipa, output: PhysAddr, is_writable: bool) {
        let write = if is_writable { WRITE } else { 0 };
        self.store(ipa, 3, output.as_u64() | LEAF | READ | write | 3);
    }

    /// Maps 2 MiB at `ipa` to `output`, writable.
    pub fn map_block(&mut self, ipa: Ipa, output: PhysAddr) {
        self.store(ipa, 2, output.as_u64() | LEAF | READ | WRITE | 1);
    }

    /// Writes `descriptor` as it is, for the leaf of `ipa` at `level` (2 or 3), in memory and visible.
    pub fn store(&mut self, ipa: Ipa, level: u32, descriptor: u64) {
        let mut table = self.root;
        for at_level in 1..level {
            let slot = Self::slot(table, ipa, at_level);
            let next = self.model.read_memory(slot);
            table = if next & 3 == 3 {
                PhysAddr::new(next & 0x0000_ffff_ffff_f000)
            } else {
                let fresh = self.model.alloc(1, 4096);
                self.publish(fresh, 4096);
                self.write(slot, fresh.as_u64() | 3);
                fresh
            };
        }
        self.write(Self::slot(table, ipa, level), descriptor);
    }

    fn slot(table: PhysAddr, ipa: Ipa, level: u32) -> PhysAddr {
        let index = ipa.as_u64() >> (39 - 9 * level) & 511;
        PhysAddr::new(table.as_u64() + index * 8)
    }

    fn write(&mut self, at: PhysAddr, value: u64) {
        self.model.write_memory(at, value);
        self.publish(at, 8);
    }

    fn publish(&mut self, at: PhysAddr, bytes: u64) {
        self.model.clean(at, bytes);
        self.model.barrier();
    }
}
