//! Stage-2 translation tables (VMSAv8-64, 4 KiB granule), for CPUs and for SMMUs.
//!
//! An input address has at most 39 bits: the root is one page at level 1, or, for 34 bits and fewer, up to 16 concatenated
//! tables at level 2 (DDI 0487 D8.2.2), which saves every walk a level and costs blocks of 1 GiB. Blocks of 1 GiB and
//! 2 MiB are used where both addresses allow, unless a table is there already. Three rules keep the tables safe under a walker
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
    descriptor::{Access, Attributes, Descriptor, MemoryType, Shareability},
    error::Stage2Error,
};
use self::{
    descriptor::{ENTRIES, LEAF_LEVEL, ROOT_LEVEL, block_bytes},
    plan::Chunk,
};
use crate::addr::{AddrRange, Address, BLOCK_1G, BLOCK_2M, Ipa, PAGE_SIZE, PhysAddr};

/// Fewest input address bits: a root of two concatenated tables (DDI 0487 D8.2.4).
pub const IPA_BITS_MIN: u8 = 31;
/// Most input address bits of concatenated tables at level 2: 16 of them.
pub const IPA_BITS_CONCATENATED: u8 = 34;
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
    /// `pages` pages of zeros in a row, aligned to their size: a root. One that cannot give several refuses.
    fn alloc_root(&mut self, pages: u64) -> Option<PhysAddr> {
        if pages == 1 { self.alloc() } else { None }
    }
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

/// What a tree maps its ranges by.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Leaves {
    /// The largest blocks that both addresses allow: fewest tables, most memory behind each entry of a TLB.
    #[default]
    Blocks,
    /// Pages of 4 KiB alone, 2 KiB of tables for each MiB: for walkers whose invalidation of a page costs more where blocks are,
    /// as that of QEMU's TCG, which forgets its whole TLB.
    Pages,
}

/// A tree of tables that translates `A`: [`Ipa`] for a CPU, [`crate::addr::Iova`] for a device.
#[derive(Debug)]
pub struct Stage2<A = Ipa> {
    root: PhysAddr,
    input_bits: u8,
    output_bits: u8,
    leaves: Leaves,
    space: PhantomData<A>,
}

impl<A: Address> Stage2<A> {
    /// An empty tree for input addresses of `input_bits` bits, 31 to 39; up to 34, its root is concatenated tables.
    pub fn new(memory: &mut impl TableMemory, input_bits: u8) -> Result<Self, Stage2Error> {
        if !(IPA_BITS_MIN..=IPA_BITS_MAX).contains(&input_bits) {
            return Err(Stage2Error::BadInputBits(input_bits));
        }
        let needed = root_pages(input_bits);
        let root = memory.alloc_root(needed).ok_or(Stage2Error::OutOfTables { needed })?;
        Ok(Self { root, input_bits, output_bits: OUTPUT_BITS_MAX, leaves: Leaves::Blocks, space: PhantomData })
    }

    /// Maps from now on by `leaves`.
    #[must_use]
    pub fn with_leaves(mut self, leaves: Leaves) -> Self {
        self.leaves = leaves;
        self
    }

    /// Refuses output addresses of more than `bits` bits: what the walker (PARange, OAS) can put out (security rule 11).
    #[must_use]
    pub fn with_output_bits(mut self, bits: u8) -> Self {
        self.output_bits = bits.min(OUTPUT_BITS_MAX);
        self
    }

    /// The root table, aligned to its size.
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
        let mut needed = 0;
        for (table, part) in self.roots(chunk) {
            needed += plan::tables_for_map(memory, Some(table), self.level(), part)?;
        }
        let mut spares = plan::Spares::take(memory, needed)?;
        for (table, part) in self.roots(chunk) {
            plan::fill(memory, &mut spares, table, self.level(), part, attributes);
        }
        Ok(())
    }

    /// Unmaps `range`, all of which must be mapped, in whole blocks.
    ///
    /// Until the walkers' caches have been flushed, they may still use what was mapped. On error nothing has changed.
    pub fn unmap(&mut self, memory: &mut impl TableMemory, range: AddrRange<A>) -> Result<(), Stage2Error> {
        let chunk = self.check(range, PhysAddr::new(0))?;
        for (table, part) in self.roots(chunk) {
            plan::check_unmap(memory, table, self.level(), part)?;
        }
        for (table, part) in self.roots(chunk) {
            plan::clear(memory, table, self.level(), part);
        }
        Ok(())
    }

    /// What `address` leads to, as a walker would find it.
    pub fn query(&self, memory: &impl TableMemory, address: A) -> Option<Mapping> {
        let address = address.as_u64();
        if address >> self.input_bits != 0 {
            return None;
        }
        let mut table = self.root_for(address);
        for level in self.level()..=LEAF_LEVEL {
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
        for (table, _) in self.roots(self.whole()) {
            plan::free(memory, table, self.level());
        }
    }

    /// Empties the tree: every table below the root is given back. The walkers' caches were flushed, as for [`Self::destroy`].
    pub fn clear(&mut self, memory: &mut impl TableMemory) {
        for (table, _) in self.roots(self.whole()) {
            plan::free_below(memory, table, self.level());
            (0..ENTRIES).for_each(|place| memory.write(table, place, Descriptor::Invalid.encode(self.level())));
        }
    }

    /// Level of the root.
    const fn level(&self) -> u8 {
        root_level(self.input_bits)
    }

    /// Every address there is.
    const fn whole(&self) -> Chunk {
        Chunk { input: 0, phys: 0, size_bytes: 1 << self.input_bits, leaves: self.leaves }
    }

    /// The table of the root that translates `input`.
    const fn root_for(&self, input: u64) -> PhysAddr {
        let place = input / root_table_bytes(self.input_bits);
        PhysAddr::new(self.root.as_u64() + place * PAGE_SIZE)
    }

    /// The parts of `chunk` that fall to each table of the root.
    fn roots(&self, chunk: Chunk) -> impl Iterator<Item = (PhysAddr, Chunk)> + use<A> {
        let (root, bits) = (self.root, self.input_bits);
        chunk.pieces(root_table_bytes(bits)).map(move |part| {
            let place = part.input / root_table_bytes(bits);
            (PhysAddr::new(root.as_u64() + place * PAGE_SIZE), part)
        })
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
            Some(end) if end <= 1 << self.output_bits => {
                Ok(Chunk { input, phys: phys.as_u64(), size_bytes, leaves: self.leaves })
            }
            _ => Err(Stage2Error::OutputTooWide { phys, size_bytes, bits: self.output_bits }),
        }
    }
}

/// Level of the root of a tree for addresses of `input_bits` bits.
pub const fn root_level(input_bits: u8) -> u8 {
    if input_bits > IPA_BITS_CONCATENATED { ROOT_LEVEL } else { ROOT_LEVEL + 1 }
}

/// Pages of that root.
pub const fn root_pages(input_bits: u8) -> u64 {
    if input_bits > IPA_BITS_CONCATENATED { 1 } else { 1 << input_bits.saturating_sub(30) }
}

/// Bytes of input that one table of the root translates.
const fn root_table_bytes(input_bits: u8) -> u64 {
    ENTRIES as u64 * block_bytes(root_level(input_bits))
}

/// Input bits, `most` at most, with which walks for `range`, mapped to `phys`, are shortest: as few as reach its end, so that
/// the root is at level 2, unless a block of 1 GiB is worth more.
pub fn best_input_bits<A: Address>(range: AddrRange<A>, phys: PhysAddr, most: u8, leaves: Leaves) -> u8 {
    let (start, end) = (range.start().as_u64(), range.end().as_u64());
    let gib = start.next_multiple_of(BLOCK_1G);
    let has_block = leaves == Leaves::Blocks
        && (start ^ phys.as_u64()).is_multiple_of(BLOCK_1G)
        && gib.saturating_add(BLOCK_1G) <= end;
    let fewest = u8::try_from(u64::BITS - (end - 1).leading_zeros()).unwrap_or(most).max(IPA_BITS_MIN);
    if has_block || fewest > IPA_BITS_CONCATENATED { most } else { fewest.min(most) }
}

/// Tables that mapping `range` can need at most, the root included, wherever it is mapped to.
pub fn tables_for<A: Address>(range: AddrRange<A>) -> u64 {
    let touched = |bytes: u64| (range.end().as_u64() - 1) / bytes - range.start().as_u64() / bytes + 1;
    1 + touched(BLOCK_1G) + touched(BLOCK_2M)
}

/// Tables that mapping `range` to `phys` into an empty tree needs, without the root; `range` and `phys` on page boundaries.
pub fn tables_for_leaves<A: Address>(range: AddrRange<A>, phys: PhysAddr, leaves: Leaves) -> u64 {
    let chunk = Chunk { input: range.start().as_u64(), phys: phys.as_u64(), size_bytes: range.size_bytes(), leaves };
    plan::tables_for_new(ROOT_LEVEL, chunk)
}
