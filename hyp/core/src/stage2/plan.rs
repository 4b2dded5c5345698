//! Walks that check first, and then change what can no longer fail.

use super::{
    Leaves, Stage2Error, TableMemory,
    descriptor::{Attributes, Descriptor, ENTRIES, LEAF_LEVEL, block_bytes, index},
};
use crate::addr::PhysAddr;

/// Bytes to map or unmap, on page boundaries.
#[derive(Clone, Copy)]
pub struct Chunk {
    pub input: u64,
    pub phys: u64,
    pub size_bytes: u64,
    pub leaves: Leaves,
}

impl Chunk {
    /// Whether one descriptor of `level` maps it.
    fn is_block(self, level: u8) -> bool {
        let block = block_bytes(level);
        (self.leaves == Leaves::Blocks || level == LEAF_LEVEL)
            && self.size_bytes == block
            && (self.input | self.phys) & (block - 1) == 0
    }

    /// The parts of it that fall to each descriptor of a table of `level`.
    fn split(self, level: u8) -> impl Iterator<Item = Self> {
        self.pieces(block_bytes(level))
    }

    /// The parts of it that fall to each `block` bytes of input.
    pub fn pieces(self, block: u64) -> impl Iterator<Item = Self> {
        let mut rest = self;
        core::iter::from_fn(move || {
            if rest.size_bytes == 0 {
                return None;
            }
            let size_bytes = rest.size_bytes.min(block - rest.input % block);
            let part = Self { size_bytes, ..rest };
            rest = Self {
                input: rest.input.saturating_add(size_bytes),
                phys: rest.phys.saturating_add(size_bytes),
                size_bytes: rest.size_bytes - size_bytes,
                ..rest
            };
            Some(part)
        })
    }
}

/// Tables to add so that `chunk` can be mapped; an error where something is mapped.
pub fn tables_for_map(
    memory: &impl TableMemory,
    table: Option<PhysAddr>,
    level: u8,
    chunk: Chunk,
) -> Result<u64, Stage2Error> {
    let Some(table) = table else { return Ok(tables_for_new(level, chunk)) };
    let mut needed = 0;
    for part in chunk.split(level) {
        needed += match Descriptor::decode(memory.read(table, index(part.input, level)), level) {
            Descriptor::Leaf(..) => return Err(Stage2Error::AlreadyMapped(part.input)),
            Descriptor::Table(next) => tables_for_map(memory, Some(next), level + 1, part)?,
            Descriptor::Invalid if level == LEAF_LEVEL || part.is_block(level) => 0,
            Descriptor::Invalid => 1 + tables_for_new(level + 1, part),
        };
    }
    Ok(needed)
}

/// Tables below an empty table of `level` that mapping `chunk` in it needs.
pub fn tables_for_new(level: u8, chunk: Chunk) -> u64 {
    if level == LEAF_LEVEL {
        return 0;
    }
    let parts = chunk.split(level).filter(|part| !part.is_block(level));
    parts.map(|part| 1 + tables_for_new(level + 1, part)).sum()
}

/// Tables taken in advance, linked through their first descriptors: no list of them has to fit anywhere.
pub struct Spares {
    first: Option<PhysAddr>,
}

impl Spares {
    /// Takes `needed` tables, or none and an error.
    pub fn take(memory: &mut impl TableMemory, needed: u64) -> Result<Self, Stage2Error> {
        let mut spares = Self { first: None };
        for _ in 0..needed {
            let Some(table) = memory.alloc() else {
                while let Some(table) = spares.pop(memory) {
                    memory.free(table);
                }
                return Err(Stage2Error::OutOfTables { needed });
            };
            memory.write(table, 0, spares.first.map_or(0, PhysAddr::as_u64));
            spares.first = Some(table);
        }
        Ok(spares)
    }

    /// One of them, all zeros.
    fn pop(&mut self, memory: &mut impl TableMemory) -> Option<PhysAddr> {
        let table = self.first?;
        let next = memory.read(table, 0);
        memory.write(table, 0, 0);
        self.first = (next != 0).then_some(PhysAddr::new(next));
        Some(table)
    }
}

/// Maps `chunk`, which was planned: every table that it needs is among `spares`.
pub fn fill(
    memory: &mut impl TableMemory,
    spares: &mut Spares,
    table: PhysAddr,
    level: u8,
    chunk: Chunk,
    attributes: Attributes,
) {
    for part in chunk.split(level) {
        let place = index(part.input, level);
        if let Descriptor::Table(next) = Descriptor::decode(memory.read(table, place), level) {
            fill(memory, spares, next, level + 1, part, attributes);
            continue;
        }
        if level == LEAF_LEVEL || part.is_block(level) {
            let leaf = Descriptor::Leaf(PhysAddr::new(part.phys), attributes);
            memory.write(table, place, leaf.encode(level));
            continue;
        }
        // The plan counted this table: without one, the rest would stay unmapped, which faults and maps nothing wrong.
        let Some(next) = spares.pop(memory) else { return };
        fill(memory, spares, next, level + 1, part, attributes);
        memory.write(table, place, Descriptor::Table(next).encode(level));
    }
}

/// Whether all of `chunk` is mapped, in blocks that lie wholly in it.
pub fn check_unmap(memory: &impl TableMemory, table: PhysAddr, level: u8, chunk: Chunk) -> Result<(), Stage2Error> {
    for part in chunk.split(level) {
        let block_bytes = block_bytes(level);
        match Descriptor::decode(memory.read(table, index(part.input, level)), level) {
            Descriptor::Invalid => return Err(Stage2Error::NotMapped(part.input)),
            Descriptor::Table(next) => check_unmap(memory, next, level + 1, part)?,
            Descriptor::Leaf(..) if part.size_bytes == block_bytes => {}
            Descriptor::Leaf(..) => {
                return Err(Stage2Error::SplitsBlock { input: part.input & !(block_bytes - 1), block_bytes });
            }
        }
    }
    Ok(())
}

/// Unmaps `chunk`, which was checked.
pub fn clear(memory: &mut impl TableMemory, table: PhysAddr, level: u8, chunk: Chunk) {
    for part in chunk.split(level) {
        let place = index(part.input, level);
        match Descriptor::decode(memory.read(table, place), level) {
            Descriptor::Table(next) => clear(memory, next, level + 1, part),
            Descriptor::Leaf(..) => memory.write(table, place, Descriptor::Invalid.encode(level)),
            Descriptor::Invalid => {}
        }
    }
}

/// Gives `table` and every table below it back.
pub fn free(memory: &mut impl TableMemory, table: PhysAddr, level: u8) {
    free_below(memory, table, level);
    memory.free(table);
}

/// Gives every table below `table` back.
pub fn free_below(memory: &mut impl TableMemory, table: PhysAddr, level: u8) {
    for place in 0..ENTRIES {
        if let Descriptor::Table(next) = Descriptor::decode(memory.read(table, place), level) {
            free(memory, next, level + 1);
        }
    }
}
