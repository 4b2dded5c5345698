//! Mode `virtio-iommu`: what a guest maps itself, request by request, in a stage-2 table for each of its domains.
//!
//! Unlike a lease, a mapping comes anywhere and of any size: leaves are the largest blocks that both addresses allow,
//! and tables come and go with them, out of an [`Arena`] that all domains of a VM share, which is their quota. A mapping is
//! unmapped whole or not at all (virtio 1.3, 5.13.6.6). So that no list of mappings is kept, the first leaf of each says
//! so in a bit that walkers ignore: a range that ends before a leaf without it would split a mapping.
//!
//! Nothing here takes more than [`STEPS`] entries at a time: long mappings are made and taken away in several calls.
//! A table without entries is unlinked at once, and in use again after the flush of the batch that took note of it.

mod arena;
mod error;
mod flush;
mod map;
#[cfg(test)]
mod tests;
mod unmap;
mod walk;

use bulkhead_core::{
    addr::{AddrRange, Iova, Ipa, PhysAddr},
    ids::{SmmuId, Vmid},
    stage2::{Access, Mapping as Reached, S2Config},
};

use self::{arena::NONE, map::Ram};
pub use self::{
    arena::{Arena, Note},
    error::{DomainError, MapError, SplitsMapping},
    map::Mapping,
};
use crate::{
    flush::{Batch, FlushCounters, Policy},
    retire::{Flushed, Unflushed},
};

/// Most entries that one step of a mapping or of an unmapping visits.
pub const STEPS: u64 = 512;

/// Software's bit of a descriptor (DDI 0487 D8.3.2: bits 58:55 are ignored): the first leaf of a mapping.
const FIRST: u64 = 1 << 55;

/// What a domain is made for.
#[derive(Clone, Copy, Debug)]
pub struct DomainConfig {
    /// The VM's RAM as the guest sees it.
    pub ram: AddrRange<Ipa>,
    /// Where it is.
    pub phys: PhysAddr,
    /// Bits of an input address, 35 to 39: a root at level 1.
    pub input_bits: u8,
    /// Bits that every SMMU of the VM's devices can put out.
    pub output_bits: u8,
    /// Tag of the domain's translations: its own.
    pub vmid: Vmid,
}

/// One domain: its table, and what of it is not flushed.
#[derive(Debug)]
pub struct Domain {
    config: S2Config,
    ram: Ram,
    root: u32,
    /// Leaves.
    live: u64,
    batch: Batch,
    policy: Policy,
    /// The first of the tables that were unlinked since the last flush.
    retired: u32,
}

impl Domain {
    /// A domain that maps nothing. `walkers` are the SMMUs that will walk it; `has_ranges`: they all take range commands.
    /// On error nothing has changed.
    pub fn new(
        config: &DomainConfig,
        policy: Policy,
        walkers: impl IntoIterator<Item = SmmuId>,
        has_ranges: bool,
        arena: &mut Arena<'_>,
    ) -> Result<Self, DomainError> {
        if !(35..=39).contains(&config.input_bits) {
            return Err(DomainError::BadInputBits(config.input_bits));
        }
        let output_bits = config.output_bits.min(48);
        let ram = Ram::new(config.ram, config.phys, output_bits)?;
        let root = arena.take_root().ok_or(DomainError::NoTables(arena.pages()))?;
        let config = S2Config { root: arena.phys(root), ipa_bits: config.input_bits, output_bits, vmid: config.vmid };
        Ok(Self {
            config,
            ram,
            root,
            live: 0,
            batch: Batch::new(config.vmid, walkers, has_ranges),
            policy,
            retired: NONE,
        })
    }

    /// What a stream table entry says of it.
    pub const fn config(&self) -> S2Config {
        self.config
    }

    /// Leaves in it.
    pub const fn leaves(&self) -> u64 {
        self.live
    }

    /// What its flushes were.
    pub const fn counters(&self) -> FlushCounters {
        self.policy.counters()
    }

    /// What an endpoint's access to `iova` reaches.
    pub fn resolve(&self, arena: &Arena<'_>, iova: Iova) -> Option<Reached> {
        let spot = self.leaf(arena, iova.as_u64())?;
        let phys = spot.phys.checked_add(iova.as_u64() % spot.bytes)?;
        Some(Reached { phys, attributes: spot.attributes, block_bytes: spot.bytes })
    }

    /// Whether an endpoint may read or write there.
    pub fn access(&self, arena: &Arena<'_>, iova: Iova) -> Access {
        self.resolve(arena, iova).map_or(Access::empty(), |reached| reached.attributes.access)
    }

    /// Takes it out of use: no stream walks it any more, the flush of the SMMUs that did is to come.
    pub fn retire(self, walkers: impl IntoIterator<Item = SmmuId>) -> Unflushed<Self> {
        let vmid = self.config.vmid;
        Unflushed::new(self, vmid, walkers)
    }

    /// Gives its tables back.
    pub fn dismantle(retired: Flushed<Self>, arena: &mut Arena<'_>) {
        arena.give_tree(retired.into_inner().root);
    }
}
