//! A stage-1 table: 39 bits of address, 4 KiB pages and 2 MiB blocks (DDI 0487 D8.3).

use crate::mem;

/// Bytes of a block.
pub const BLOCK_BYTES: u64 = 2 << 20;
const PAGE_BYTES: u64 = 4096;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
const TABLE: u64 = 3;
const PAGE: u64 = 3;
const BLOCK: u64 = 1;
const UNPRIVILEGED: u64 = 1 << 6;
const READ_ONLY: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 3 << 8;
const ACCESS_FLAG: u64 = 1 << 10;
const NOT_GLOBAL: u64 = 1 << 11;

/// What a device may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read and write.
    Both,
    /// Read.
    Read,
}

/// A table in scratch memory, pages of it given out upwards.
#[derive(Debug)]
pub struct Space {
    /// Address of the root.
    pub root: u64,
    /// The ASID that it is used with.
    pub asid: u16,
    next: u64,
    end: u64,
}

impl Space {
    /// Bytes of memory of one.
    pub const BYTES: u64 = 0x1_0000;

    /// An empty table, its pages at `at`, page-aligned.
    pub fn new(at: u64, asid: u16) -> Self {
        (0..Self::BYTES).step_by(8).for_each(|offset| mem::write64(at + offset, 0));
        Self { root: at, asid, next: at + PAGE_BYTES, end: at + Self::BYTES }
    }

    /// Address of the descriptor for `iova` at `level`, 1 to 3; tables above it are made.
    pub fn descriptor(&mut self, iova: u64, level: u32) -> u64 {
        let mut table = self.root;
        for above in 1..level {
            let at = slot(table, iova, above);
            if mem::read64(at) == 0 {
                assert!(self.next < self.end, "tables enough");
                mem::write64(at, self.next | TABLE);
                self.next += PAGE_BYTES;
            }
            table = mem::read64(at) & ADDRESS;
        }
        slot(table, iova, level)
    }

    /// Maps a page.
    pub fn map(&mut self, iova: u64, to: u64, access: Access) {
        let at = self.descriptor(iova, 3);
        mem::write64(at, leaf(to, access) | PAGE);
    }

    /// Maps a block of 2 MiB.
    pub fn map_block(&mut self, iova: u64, to: u64, access: Access) {
        let at = self.descriptor(iova, 2);
        mem::write64(at, leaf(to, access) | BLOCK);
    }

    /// Maps a page for every ASID.
    pub fn map_global(&mut self, iova: u64, to: u64) {
        let at = self.descriptor(iova, 3);
        mem::write64(at, (leaf(to, Access::Both) | PAGE) & !NOT_GLOBAL);
    }

    /// Takes a page away; what is cached of it stays.
    pub fn unmap(&mut self, iova: u64) {
        let at = self.descriptor(iova, 3);
        mem::write64(at, 0);
    }

    /// Has the table of level `level + 1` for `iova` be at `to`, wherever that is.
    pub fn point(&mut self, iova: u64, level: u32, to: u64) {
        let at = self.descriptor(iova, level);
        mem::write64(at, to | TABLE);
    }
}

fn slot(table: u64, iova: u64, level: u32) -> u64 {
    table + (iova >> (39 - 9 * level) & 511) * 8
}

fn leaf(to: u64, access: Access) -> u64 {
    let read_only = if access == Access::Read { READ_ONLY } else { 0 };
    to | UNPRIVILEGED | read_only | INNER_SHAREABLE | ACCESS_FLAG | NOT_GLOBAL
}
