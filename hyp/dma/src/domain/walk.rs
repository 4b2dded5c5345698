//! Ways down a domain's table.

use bulkhead_core::{
    addr::{BLOCK_1G, BLOCK_2M, PAGE_SIZE, PhysAddr},
    stage2::{Attributes, Descriptor},
};

use super::{Domain, FIRST, arena::Arena};

/// Level of the root, and of pages.
pub const ROOT: u8 = 1;
pub const LEAF: u8 = 3;

/// Bytes that an entry of `level` maps.
pub const fn span(level: u8) -> u64 {
    match level {
        ROOT => BLOCK_1G,
        2 => BLOCK_2M,
        _ => PAGE_SIZE,
    }
}

/// Place of the entry for `address` in a table of `level`.
pub const fn slot(address: u64, level: u8) -> u16 {
    let [low, high, ..] = (address / span(level) % 512).to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// Where a way down ended: at an entry that leads to no table, or at the level that was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    /// The table.
    pub page: u32,
    /// Its level.
    pub level: u8,
    /// The entry's place in it.
    pub slot: u16,
    /// What it holds.
    pub value: u64,
}

impl Spot {
    /// What it holds, decoded.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::decode(self.value, self.level)
    }
}

/// A leaf.
#[derive(Clone, Copy, Debug)]
pub struct Leaf {
    /// Its first address.
    pub first: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Where it leads.
    pub phys: PhysAddr,
    /// How it may be used.
    pub attributes: Attributes,
    /// Whether a mapping begins with it.
    pub is_first: bool,
}

impl Domain {
    /// The way down to `address`, no further than `lowest`.
    pub(super) fn spot(&self, arena: &Arena<'_>, address: u64, lowest: u8) -> Spot {
        let mut page = self.root;
        let mut level = ROOT;
        loop {
            let slot = slot(address, level);
            let value = arena.entry(page, slot.into()).map_or(0, crate::tree::Entry::load);
            let spot = Spot { page, level, slot, value };
            if level >= lowest {
                return spot;
            }
            let Some(next) = arena.page_of(spot.descriptor()) else { return spot };
            (page, level) = (next, level + 1);
        }
    }

    /// The leaf that maps `address`.
    pub(super) fn leaf(&self, arena: &Arena<'_>, address: u64) -> Option<Leaf> {
        if address >> self.config.ipa_bits != 0 {
            return None;
        }
        let spot = self.spot(arena, address, LEAF);
        let Descriptor::Leaf(phys, attributes) = spot.descriptor() else { return None };
        let bytes = span(spot.level);
        let first = address & !(bytes - 1);
        Some(Leaf { first, bytes, phys, attributes, is_first: spot.value & FIRST != 0 })
    }
}
