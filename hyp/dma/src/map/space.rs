//! A VM's space of IOVAs and the tables below it.

use bulkhead_core::{
    addr::{AddrRange, BLOCK_2M, Iova, Ipa, PAGE_SIZE, PhysAddr},
    bundle::DmamapStrategy,
    ids::{SmmuId, Vmid},
    stage2::{Attributes, Descriptor, MemoryType, S2Config, Shareability},
};

use super::{Channel, CreateError, Direction, Piece, SpaceError, channel::Ram, create::Again, piece::NONE};
use crate::{
    iova::{Lease, Node, Wish},
    retire::{Flushed, Unflushed},
    strategy::Leases,
    tree::{Region, TableSource, Tree},
};

/// What a space is made for.
#[derive(Clone, Copy, Debug)]
pub struct SpaceConfig<'a> {
    /// How leases are had.
    pub strategy: DmamapStrategy,
    /// The VM's RAM as the guest sees it.
    pub ram: AddrRange<Ipa>,
    /// Where it is.
    pub phys: PhysAddr,
    /// Bits of an input address, 35 to 39.
    pub input_bits: u8,
    /// Bits that every SMMU of the VM's devices can put out.
    pub output_bits: u8,
    /// Tag of the VM's translations.
    pub vmid: Vmid,
    /// Most maps of all channels.
    pub maps: u32,
    /// Most leaf tables.
    pub leaf_tables: u32,
    /// Never leased, beside page 0: the window of MSIs, regions of RMRs.
    pub reserved: &'a [AddrRange<Iova>],
}

/// Memory for a space, given for the VM's life.
#[derive(Debug)]
pub struct SpaceStorage<'t> {
    /// [`nodes_for`](crate::iova::nodes_for) as many leases as there can be; none for the strategy `bitmap`.
    pub nodes: &'t mut [Node],
    /// One for each 2 MiB of the space, which begins at 0: 2,048 for all that a device of 32 bits can reach.
    pub regions: &'t mut [Region<'t>],
    /// One bit for each 16 pages of the space, for the strategy `bitmap`; else none.
    pub bits: &'t mut [u64],
}

/// A VM's space. See [`map`](super).
#[derive(Debug)]
pub struct Space<'t> {
    pub(crate) tree: Tree<'t>,
    pub(crate) leases: Leases<'t>,
    pub(crate) ram: Ram,
    pub(crate) strategy: DmamapStrategy,
    pub(super) has_blocks: bool,
    pub(super) maps: u32,
    pub(super) live: u32,
    pub(super) again: Again,
    config: S2Config,
}

impl<'t> Space<'t> {
    /// A space without maps. On error all tables went back.
    pub fn new(
        config: &SpaceConfig<'_>,
        storage: SpaceStorage<'t>,
        source: &mut dyn TableSource<'t>,
    ) -> Result<Self, SpaceError> {
        let (phys, size_bytes) = (config.phys, config.ram.size_bytes());
        if !(35..=39).contains(&config.input_bits) {
            return Err(SpaceError::BadInputBits(config.input_bits));
        }
        if !(config.ram.start().as_u64() | phys.as_u64() | size_bytes).is_multiple_of(PAGE_SIZE) {
            return Err(SpaceError::Unaligned { phys, size_bytes });
        }
        let bits = config.output_bits.min(48);
        if phys.as_u64().checked_add(size_bytes).is_none_or(|end| end > 1 << bits) {
            return Err(SpaceError::OutputTooWide { phys, size_bytes, bits });
        }
        let tree = Tree::new(storage.regions, config.leaf_tables, source)?;
        let end = tree.pages().min(1 << (config.input_bits - 12));
        let leases = Leases::new(config.strategy, storage.nodes, storage.bits, end);
        let template = |level| {
            Direction::ALL.map(|direction| {
                let access = direction.access();
                let attributes = Attributes { memory: MemoryType::Normal, access, shareability: Shareability::Inner };
                Descriptor::Leaf(phys, attributes).encode(level)
            })
        };
        let start = config.ram.start().as_u64();
        let mut space = Self {
            leases,
            ram: Ram { block: template(2), page: template(3), blocks: size_bytes / BLOCK_2M, start, size: size_bytes },
            strategy: config.strategy,
            has_blocks: (start | phys.as_u64()).is_multiple_of(BLOCK_2M),
            maps: config.maps,
            live: 0,
            again: Again::NOTHING,
            config: S2Config { root: tree.root(), ipa_bits: config.input_bits, output_bits: bits, vmid: config.vmid },
            tree,
        };
        let ram = AddrRange::new(Iova::identity(config.ram.start()), size_bytes);
        let own = ram.filter(|_| config.strategy == DmamapStrategy::OneToOne);
        for range in config.reserved.iter().copied().chain(own) {
            if let Err(error) = space.leases.reserve(range) {
                space.tree.destroy(source);
                return Err(error.into());
            }
        }
        Ok(space)
    }

    /// What a stream table entry says of it.
    pub const fn config(&self) -> S2Config {
        self.config
    }

    /// Leaf tables in use, and those that wait for their flush.
    pub const fn leaf_tables(&self) -> (u32, u32) {
        self.tree.leaf_tables()
    }

    /// Maps of all channels, with those that were destroyed and are not flushed.
    pub const fn live(&self) -> u32 {
        self.live
    }

    /// Pages of all leases, guard pages included.
    pub fn leased_pages(&self) -> u32 {
        self.leases.pages()
    }

    /// Takes a lease, its tables, and the pieces that lead to its entries. On error nothing has changed.
    #[inline(never)]
    pub(crate) fn attach(
        &mut self,
        channel: &mut Channel<'t>,
        wish: &Wish,
        owner: u32,
        source: &mut dyn TableSource<'t>,
    ) -> Result<u32, CreateError> {
        let lease = self.leases.take(wish, owner)?;
        let (first, pages) = (lease.first, lease.pages - 1);
        let count = (first % 512).wrapping_add(pages).wrapping_add(511) / 512;
        if channel.pieces.left() < count {
            self.leases.give(lease);
            return Err(CreateError::TooManyPieces(count));
        }
        if let Err(error) = self.tree.hold(first, pages, source) {
            self.leases.give(lease);
            return Err(error.into());
        }
        if count == 1 {
            let slots = self.tree.entries(first, pages);
            return Ok(channel.pieces.take(Piece { slots, first, lease: Some(lease), ..Piece::EMPTY }));
        }
        Ok(self.attach_each(channel, lease))
    }

    /// The pieces of a lease in several tables, all of which there are.
    #[inline(never)]
    fn attach_each(&self, channel: &mut Channel<'t>, lease: Lease) -> u32 {
        let (first, pages) = (lease.first, lease.pages - 1);
        // From the last to the first: each knows its successor.
        let (mut end, mut next, mut lease) = (first + pages, NONE, Some(lease));
        loop {
            let start = first.max((end - 1) / 512 * 512);
            let slots = self.tree.entries(start, end - start);
            let lease = if start == first { lease.take() } else { None };
            next = channel.pieces.take(Piece { slots, first: start, next, lease, ..Piece::EMPTY });
            if start == first {
                return next;
            }
            end = start;
        }
    }

    /// The same, for a lease of blocks, which has to lie in one table at level 2.
    #[inline(never)]
    pub(super) fn attach_blocks(
        &mut self,
        channel: &mut Channel<'t>,
        wish: &Wish,
        owner: u32,
    ) -> Result<u32, CreateError> {
        const GIB_PAGES: u32 = 1 << 18;
        let blocks = (wish.pages - 1) / 512;
        let wish =
            Wish { boundary: if wish.boundary == 0 { GIB_PAGES } else { wish.boundary.min(GIB_PAGES) }, ..*wish };
        if channel.pieces.left() < 1 {
            return Err(CreateError::TooManyPieces(1));
        }
        let lease = self.leases.take(&wish, owner)?;
        let first = lease.first;
        let slots = self.tree.blocks(first, blocks);
        if slots.len() != blocks as usize {
            self.leases.give(lease);
            return Err(CreateError::TooManyPieces(2));
        }
        if let Err(error) = self.tree.hold_blocks(first, wish.pages - 1) {
            self.leases.give(lease);
            return Err(error.into());
        }
        Ok(channel.pieces.take(Piece { slots, first, next: NONE, lease: Some(lease), ..Piece::EMPTY }))
    }

    /// Gives pieces back whose pages are cleared and flushed: to the magazine, or to the space.
    #[inline(always)]
    pub(crate) fn detach(&mut self, channel: &mut Channel<'t>, pieces: u32, owner: u32) {
        // The everyday case: one lease in one table, which others are in.
        if channel.strategy == DmamapStrategy::Reserve
            && let Some(piece) = channel.pieces.get(pieces)
            && piece.next == NONE
            && let Some(Lease { first, pages, .. }) = piece.lease
            && self.tree.release_shared(first, pages.wrapping_sub(1))
        {
            if let Some(lease) = channel.pieces.give_single(pieces) {
                self.leases.give(lease);
            }
        } else {
            self.detach_any(channel, pieces, owner);
        }
    }

    #[inline(never)]
    fn detach_any(&mut self, channel: &mut Channel<'t>, pieces: u32, owner: u32) {
        if !channel.keep_in_magazine(pieces) {
            self.give_back(channel, pieces, owner);
        }
    }

    /// The same, always to the space.
    pub(crate) fn give_back(&mut self, channel: &mut Channel<'t>, mut pieces: u32, owner: u32) {
        while let Some(piece) = channel.pieces.give(pieces) {
            pieces = piece.next;
            self.tidy(&piece, owner, channel);
            if let Some(Lease { first, pages, .. }) = piece.lease {
                self.tree.release(first, pages - 1, &mut channel.batch, channel.number);
            }
            if let Some(lease) = piece.lease {
                self.leases.give(lease);
            }
        }
    }

    /// Takes it out of use: its streams are in abort already, the flush of the SMMUs that walked it is to come. Its
    /// channels are gone.
    pub fn retire(self, walkers: impl IntoIterator<Item = SmmuId>) -> Unflushed<Self> {
        let vmid = self.config.vmid;
        Unflushed::new(self, vmid, walkers)
    }

    /// Gives its tables back.
    pub fn dismantle(retired: Flushed<Self>, source: &mut dyn TableSource<'t>) {
        retired.into_inner().tree.destroy(source);
    }
}
