//! Stage-2 translation tables (VMSAv8-64, 4 KiB granule), for CPUs and for SMMUs.
//!
//! The root is one page at level 1, so an input address has at most 39 bits. Blocks of 1 GiB and 2 MiB are used
//! where both addresses allow, unless a table is there already. Three rules keep the tables safe under a walker
//! that cannot recover from a fault, such as a device:
//! - a valid descriptor never changes into another valid one (so no break-before-make is ever pending),
//! - a block is never split, neither by `map` nor by `unmap`,
//! - a new table is complete before its parent points at it, and a table that once was linked stays until
//!   [`Stage2::destroy`], which the owner calls after the walkers' caches were flushed.

mod config;
mod descriptor;
mod error;
mod plan;
#[cfg(test)]
mod tests;

use core::marker::PhantomData;

pub use self::{
    config::S2Config,
    descriptor::{Access, Attributes, MemoryType, Shareability},
    error::Stage2Error,
};
use self::{
    descriptor::{Descriptor, LEAF_LEVEL, ROOT_LEVEL, block_bytes},
    plan::Chunk,
};
use crate::addr::{AddrRange, Address, BLOCK_1G, BLOCK_2M, Ipa, PAGE_SIZE, PhysAddr};

/// Fewest input address bits of a table whose root is at level 1 (DDI 0487 D8.2.4).
pub const IPA_BITS_MIN: u8 = 31;
/// Most input address bits of a root of one page.
pub const IPA_BITS_MAX: u8 = crate::vplat::IPA_BITS_MAX;
/// Output address bits that a descriptor of the 4 KiB granule holds without FEAT_LPA2.
pub const OUTPUT_BITS_MAX: u8 = 48;

/// Where tables live: pages of 512 descriptors, known by their physical address.
///
/// The implementor makes writes visible to whoever walks: 64-bit single-copy-atomic stores, in order, and
/// a clean of the line where a walker is not coherent (security rule 10).
pub trait TableMemory {
    /// The descriptor at `index` (0 to 511) of `table`.
    fn read(&self, table: PhysAddr, index: usize) -> u64;
    /// Stores a descriptor at `index` (0 to 511) of `table`.
    fn write(&mut self, table: PhysAddr, index: usize, descriptor: u64);
    /// A page of zeros, aligned to 4 KiB.
    fn alloc(&mut self) -> Option<PhysAddr>;
    /// Takes a page back.
    fn free(&mut self, table: PhysAddr);
}

/// What an input address leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// The output address.
    pub phys: PhysAddr,
    /// How it may be used.
    pub attributes: Attributes,
    /// Bytes of the page or block that maps it: 4 KiB, 2 MiB or 1 GiB.
    pub block_bytes: u64,
}

/// A tree of tables that translates `A`: [`Ipa`] for a CPU, [`crate::addr::Iova`] for a device.
#[derive(Debug)]
pub struct Stage2<A = Ipa> {
    root: PhysAddr,
    input_bits: u8,
    output_bits: u8,
    space: PhantomData<A>,
}

impl<A: Address> Stage2<A> {
    /// An empty tree for input addresses of `input_bits` bits, 31 to 39.
    pub fn new(memory: &mut impl TableMemory, input_bits: u8) -> Result<Self, Stage2Error> {
        if !(IPA_BITS_MIN..=IPA_BITS_MAX).contains(&input_bits) {
            return Err(Stage2Error::BadInputBits(input_bits));
        }
        let root = memory.alloc().ok_or(Stage2Error::OutOfTables { needed: 1 })?;
        Ok(Self { root, input_bits, output_bits: OUTPUT_BITS_MAX, space: PhantomData })
    }

    /// Refuses output addresses of more than `bits` bits: what the walker (PARange, OAS) can put out (security rule 11).
    #[must_use]
    pub fn with_output_bits(mut self, bits: u8) -> Self {
        self.output_bits = bits.min(OUTPUT_BITS_MAX);
        self
    }

    /// The root table, aligned to 4 KiB.
    pub const fn root(&self) -> PhysAddr {
        self.root
    }

    /// Bits of an input address.
    pub const fn input_bits(&self) -> u8 {
        self.input_bits
    }

    /// Bits of an output address.
    pub const fn output_bits(&self) -> u8 {
        self.output_bits
    }

    /// Maps `range` to the same number of bytes from `phys` on.
    ///
    /// Nothing of `range` may be mapped. On error nothing has changed.
    pub fn map(
        &mut self,
        memory: &mut impl TableMemory,
        range: AddrRange<A>,
        phys: PhysAddr,
        attributes: Attributes,
    ) -> Result<(), Stage2Error> {
        let chunk = self.check(range, phys)?;
        let needed = plan::tables_for_map(memory, Some(self.root), ROOT_LEVEL, chunk)?;
        let mut spares = plan::Spares::take(memory, needed)?;
        plan::fill(memory, &mut spares, self.root, ROOT_LEVEL, chunk, attributes);
        Ok(())
    }

    /// Unmaps `range`, all of which must be mapped, in whole blocks.
    ///
    /// Until the walkers' caches have been flushed, they may still use what was mapped. On error nothing has changed.
    pub fn unmap(&mut self, memory: &mut impl TableMemory, range: AddrRange<A>) -> Result<(), Stage2Error> {
        let chunk = self.check(range, PhysAddr::new(0))?;
        plan::check_unmap(memory, self.root, ROOT_LEVEL, chunk)?;
        plan::clear(memory, self.root, ROOT_LEVEL, chunk);
        Ok(())
    }

    /// What `address` leads to, as a walker would find it.
    pub fn query(&self, memory: &impl TableMemory, address: A) -> Option<Mapping> {
        let address = address.as_u64();
        if address >> self.input_bits != 0 {
            return None;
        }
        let mut table = self.root;
        for level in ROOT_LEVEL..=LEAF_LEVEL {
            match Descriptor::decode(memory.read(table, descriptor::index(address, level)), level) {
                Descriptor::Invalid => return None,
                Descriptor::Table(next) => table = next,
                Descriptor::Leaf(base, attributes) => {
                    let block_bytes = block_bytes(level);
                    let phys = base.checked_add(address & (block_bytes - 1))?;
                    return Some(Mapping { phys, attributes, block_bytes });
                }
            }
        }
        None
    }

    /// Gives every table back. The walkers no longer use the tree, and their caches were flushed.
    pub fn destroy(self, memory: &mut impl TableMemory) {
        plan::free(memory, self.root, ROOT_LEVEL);
    }

    fn check(&self, range: AddrRange<A>, phys: PhysAddr) -> Result<Chunk, Stage2Error> {
        let (input, size_bytes) = (range.start().as_u64(), range.size_bytes());
        if (input | size_bytes | phys.as_u64()) & (PAGE_SIZE - 1) != 0 {
            return Err(Stage2Error::Unaligned { input, phys, size_bytes });
        }
        if range.end().as_u64() > 1 << self.input_bits {
            return Err(Stage2Error::InputTooWide { end: range.end().as_u64(), bits: self.input_bits });
        }
        match phys.as_u64().checked_add(size_bytes) {
            Some(end) if end <= 1 << self.output_bits => Ok(Chunk { input, phys: phys.as_u64(), size_bytes }),
            _ => Err(Stage2Error::OutputTooWide { phys, size_bytes, bits: self.output_bits }),
        }
    }
}

/// Tables that mapping `range` can need at most, the root included, wherever it is mapped to.
pub fn tables_for<A: Address>(range: AddrRange<A>) -> u64 {
    let touched = |bytes: u64| (range.end().as_u64() - 1) / bytes - range.start().as_u64() / bytes + 1;
    1 + touched(BLOCK_1G) + touched(BLOCK_2M)
}

/// Tables that mapping `range` to `phys` into an empty tree needs, without the root; `range` and `phys` on page boundaries.
pub fn tables_for_blocks<A: Address>(range: AddrRange<A>, phys: PhysAddr) -> u64 {
    let chunk = Chunk { input: range.start().as_u64(), phys: phys.as_u64(), size_bytes: range.size_bytes() };
    plan::tables_for_new(ROOT_LEVEL, chunk)
}
