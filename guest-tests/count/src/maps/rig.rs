//! A space, a channel and its maps, with a pool of tables and an SMMU that is always done.

use alloc::{boxed::Box, vec, vec::Vec};

use bulkhead_core::{
    addr::{AddrRange, Ipa, PAGE_SIZE, PhysAddr},
    bundle::DmamapStrategy,
    ids::{SmmuId, Vmid},
};
use bulkhead_dma::{
    flush::{Batch, Invalidate, Scope, SyncWitness, Work, retire},
    iova::{Node, nodes_for},
    map::{Channel, ChannelStorage, Handle, MapParams, Piece, Record, Space, SpaceConfig, SpaceStorage},
    tree::{Entry, Region, Table, TableSource},
};

pub const RAM: u64 = 1 << 30;
/// Whose translations.
pub const VMID: Vmid = Vmid::new(1).expect("not zero");
const RAM_BYTES: u64 = 256 << 20;
/// Of 2 MiB each.
const REGIONS: usize = 4096;

/// A pool of tables, addresses made up: no SMMU walks them.
pub struct Tables {
    pub pool: Vec<Table<'static>>,
    next: u64,
}

impl Tables {
    /// Where the next table that was never used will be: what was taken from memory so far.
    pub const fn taken(&self) -> u64 {
        self.next
    }
}

impl TableSource<'static> for Tables {
    fn take(&mut self) -> Option<Table<'static>> {
        if let Some(table) = self.pool.pop() {
            return Some(table);
        }
        self.next += PAGE_SIZE;
        let entries: &'static [Entry; 512] = Box::leak(Box::new([const { Entry::new(0) }; 512]));
        Some(Table { entries, phys: PhysAddr::new(self.next) })
    }
    fn give(&mut self, table: Table<'static>) {
        self.pool.push(table);
    }
}

/// An SMMU that is always done: what is counted is the share of this side.
struct Done;
struct Proof(Vmid);

impl SyncWitness for Proof {
    fn smmu(&self) -> SmmuId {
        SmmuId(0)
    }
    fn vmid(&self) -> Vmid {
        self.0
    }
}

impl Invalidate for Done {
    type Ticket = Vmid;
    type Witness = Proof;
    type Error = core::convert::Infallible;

    fn submit(&mut self, work: &Work<'_>) -> Result<Vmid, Self::Error> {
        core::hint::black_box(work.single());
        Ok(work.vmid())
    }
    fn wait(&mut self, ticket: Vmid) -> Result<Proof, Self::Error> {
        Ok(Proof(ticket))
    }
}

/// A space, a channel and its maps.
pub struct Rig {
    pub space: Space<'static>,
    pub channel: Channel<'static>,
    pub tables: Tables,
    pub handles: Vec<Handle>,
}

impl Rig {
    pub fn new(strategy: DmamapStrategy, maps: usize, params: &MapParams) -> Option<Self> {
        let mut tables = Tables { pool: Vec::with_capacity(4096), next: 1 << 32 };
        let vmid = VMID;
        let config = SpaceConfig {
            strategy,
            ram: AddrRange::new(Ipa::new(RAM), RAM_BYTES)?,
            phys: PhysAddr::new(1 << 31),
            input_bits: 39,
            output_bits: 44,
            vmid,
            maps: u32::try_from(maps + 1).ok()?,
            leaf_tables: u32::MAX,
            reserved: &[],
        };
        let storage = SpaceStorage {
            nodes: Vec::leak(vec![Node::EMPTY; nodes_for(maps * 3 + 64, 4)]),
            regions: Vec::leak((0..REGIONS).map(|_| Region::EMPTY).collect()),
            bits: Vec::leak(vec![0; REGIONS * 512 / 16 / 64]),
        };
        let space = Space::new(&config, storage, &mut tables).ok()?;
        let records = Vec::leak((0..maps + 1).map(|_| Record::empty()).collect());
        let pieces = Vec::leak((0..maps * 4 + 64).map(|_| Piece::EMPTY).collect());
        let batch = Batch::new(vmid, [SmmuId(0)], true);
        let channel = Channel::new(0, ChannelStorage { records, pieces }, &space, batch);
        let mut rig = Self { space, channel, tables, handles: Vec::with_capacity(maps) };
        for _ in 0..maps {
            rig.handles.push(rig.space.create(&mut rig.channel, params, &mut rig.tables).ok()?.handle);
        }
        Some(rig)
    }
}

/// Flushes what was unloaded, as one range: whether the batch knows.
pub fn flush(channel: &mut Channel<'_>) -> bool {
    let batch = channel.batch_mut();
    match retire(batch.close(Scope::Range), &mut [Done]) {
        Ok(epoch) => batch.accept(&epoch).is_ok(),
        Err(_) => false,
    }
}
