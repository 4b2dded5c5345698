//! A machine for maps: RAM that is only numbers, tables in a pool, an SMMU with a TLB that forgets nothing by itself.

use std::{boxed::Box, collections::BTreeMap, vec, vec::Vec};

use bulkhead_core::{
    addr::{AddrRange, Iova, Ipa, PhysAddr},
    bundle::DmamapStrategy,
    ids::{SmmuId, Vmid},
    stage2::{Access, Descriptor},
};

use crate::{
    flush::{Batch, Command, Costs, Invalidate, Live, Mode, Policy, SyncWitness, Work, retire},
    iova::{Node, nodes_for},
    map::{
        Channel, ChannelStorage, CreateError, Created, Direction, Handle, HandleError, LoadError, MapParams, Piece,
        Record, Segment, Space, SpaceConfig, SpaceStorage,
    },
    tree::{Entry, Region, Table, TableSource},
};

pub const RAM: u64 = 0x4000_0000;
pub const RAM_BYTES: u64 = 64 << 20;
/// AF of a leaf.
pub const ACCESS_FLAG: u64 = 1 << 10;
pub const PHYS: u64 = 0x1_2340_0000;
const VMID: Vmid = Vmid::new(3).expect("not zero");

/// Tables by physical address, and how many may be out.
#[derive(Default)]
pub struct Pool {
    all: Vec<&'static [Entry; 512]>,
    free: Vec<usize>,
    pub limit: usize,
}

impl Pool {
    pub fn out(&self) -> usize {
        self.all.len() - self.free.len()
    }
    fn at(&self, phys: PhysAddr) -> &'static [Entry; 512] {
        self.all[usize::try_from(phys.as_u64() / 4096).expect("small") - 1]
    }
}

impl TableSource<'static> for Pool {
    fn take(&mut self) -> Option<Table<'static>> {
        if self.out() == self.limit {
            return None;
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.all.push(Box::leak(Box::new([const { Entry::new(0) }; 512])));
            self.all.len() - 1
        });
        self.all[at].iter().for_each(|entry| entry.store(0));
        Some(Table { entries: self.all[at], phys: PhysAddr::new((at as u64 + 1) * 4096) })
    }
    fn give(&mut self, table: Table<'static>) {
        let at = usize::try_from(table.phys.as_u64() / 4096).expect("small") - 1;
        assert!(!self.free.contains(&at), "given back once");
        // Whoever still walks it must not find anything of another's.
        self.all[at].iter().for_each(|entry| entry.store(u64::MAX));
        self.free.push(at);
    }
}

/// Page or block number, in pages: where it leads, and how it may be used.
pub type Reach = (u64, Access);

/// The SMMU: every page that a device touched stays until a command names it.
#[derive(Default)]
pub struct Smmu {
    pub tlb: BTreeMap<u64, Reach>,
    pub commands: u64,
}

pub struct Done;

impl SyncWitness for Done {
    fn smmu(&self) -> SmmuId {
        SmmuId(0)
    }
    fn vmid(&self) -> Vmid {
        VMID
    }
}

impl Invalidate for Smmu {
    type Ticket = ();
    type Witness = Done;
    type Error = ();
    fn submit(&mut self, work: &Work<'_>) -> Result<(), ()> {
        for command in work.commands() {
            self.commands += 1;
            match command {
                Command::Page { page } => drop(self.tlb.remove(&page)),
                Command::Range { page, num, scale } => {
                    let end = page + ((u64::from(num) + 1) << scale);
                    self.tlb.retain(|at, _| *at < page || *at >= end);
                }
                Command::Context => self.tlb.clear(),
            }
        }
        Ok(())
    }
    fn wait(&mut self, (): ()) -> Result<Done, ()> {
        Ok(Done)
    }
}

pub struct Machine {
    pub space: Space<'static>,
    pub channels: Vec<Channel<'static>>,
    pub pool: Pool,
    pub smmu: Smmu,
    policy: Policy,
    /// The SMMU sets access flags; else it faults where one is clear.
    pub has_access_flags: bool,
}

impl Machine {
    pub fn new(strategy: DmamapStrategy) -> Self {
        Self::with(strategy, 64, 64, 64)
    }

    /// `maps` a channel, `tables` leaf tables for the VM, `limit` tables in the pool.
    pub fn with(strategy: DmamapStrategy, maps: usize, tables: u32, limit: usize) -> Self {
        let mut pool = Pool { limit, ..Pool::default() };
        let reserved = [AddrRange::new(Iova::new(0x800_0000), 0x10_0000).expect("a range")];
        let config = SpaceConfig {
            strategy,
            ram: AddrRange::new(Ipa::new(RAM), RAM_BYTES).expect("ram"),
            phys: PhysAddr::new(PHYS),
            input_bits: 39,
            output_bits: 44,
            vmid: VMID,
            maps: u32::try_from(2 * maps).expect("small"),
            leaf_tables: tables,
            reserved: &reserved,
        };
        let storage = SpaceStorage {
            nodes: vec![Node::EMPTY; nodes_for(maps * 16, 2)].leak(),
            regions: vec![Region::EMPTY; 1024].leak(),
            bits: vec![0; 512].leak(),
        };
        let space = Space::new(&config, storage, &mut pool).expect("a space");
        let channels = (0..2).map(|number| {
            let records = (0..maps).map(|_| Record::empty()).collect::<Vec<_>>().leak();
            let pieces = (0..maps * 8).map(|_| Piece::EMPTY).collect::<Vec<_>>().leak();
            Channel::new(number, ChannelStorage { records, pieces }, &space, Batch::new(VMID, [SmmuId(0)], true))
        });
        let channels = channels.collect();
        let policy = Policy::new(Mode::Auto, true, Costs::START);
        Self { space, channels, pool, smmu: Smmu::default(), policy, has_access_flags: false }
    }

    pub fn create(&mut self, channel: usize, params: &MapParams) -> Result<Created, CreateError> {
        self.space.create(&mut self.channels[channel], params, &mut self.pool)
    }

    /// As the platform loads: with the space where the strategy needs it.
    pub fn load(&mut self, handle: Handle, direction: Direction, segments: &mut [Segment]) -> Result<u32, LoadError> {
        let channel = &mut self.channels[usize::from(handle.channel())];
        channel.settle();
        match channel.load(handle, direction, segments) {
            Err(LoadError::NeedsSpace) => self.space.load(channel, handle, direction, segments, &mut self.pool),
            done => done,
        }
    }

    pub fn unload(&mut self, handle: Handle) -> Result<(), HandleError> {
        self.channels[usize::from(handle.channel())].unload(handle)
    }

    pub fn destroy(&mut self, handle: Handle) -> Result<(), HandleError> {
        self.space.destroy(&mut self.channels[usize::from(handle.channel())], handle)
    }

    /// A SYNC of one channel, with everything that comes back by it.
    pub fn sync(&mut self, channel: usize) {
        let channel = &mut self.channels[channel];
        let scope = self.policy.decide(&mut channel.batch, Live::default(), 0).expect("strict");
        let work = self.policy.close(&mut channel.batch, scope);
        let epoch = retire(work, &mut [&mut self.smmu]).expect("an SMMU that works");
        channel.batch.accept(&epoch).expect("in order");
        self.space.reap(channel, &mut self.pool);
    }

    /// Samples maps of both channels, with an SMMU that can.
    pub fn sample(&mut self) {
        self.has_access_flags = true;
        self.channels.iter_mut().for_each(Channel::sample);
    }

    /// What the tables say of a page.
    pub fn walk(&self, page: u64) -> Option<Reach> {
        self.leaf(page).map(|(reach, _)| reach)
    }

    /// The same, with the leaf.
    pub fn leaf(&self, page: u64) -> Option<(Reach, &'static Entry)> {
        let mut table = self.pool.at(self.space.config().root);
        for level in 1..=3 {
            let shift = 9 * (3 - u32::from(level));
            let entry = &table[usize::try_from((page >> shift) % 512).expect("small")];
            match Descriptor::decode(entry.load(), level) {
                Descriptor::Invalid => return None,
                Descriptor::Table(next) => table = self.pool.at(next),
                Descriptor::Leaf(base, attributes) => {
                    let reach = (base.as_u64() / 4096 + (page & ((1 << shift) - 1)), attributes.access);
                    return Some((reach, entry));
                }
            }
        }
        None
    }

    fn fetch(&self, page: u64) -> Option<Reach> {
        let (reach, leaf) = self.leaf(page)?;
        let old = leaf.load();
        if old & ACCESS_FLAG == 0 && (!self.has_access_flags || leaf.replace(old, old | ACCESS_FLAG).is_err()) {
            return None;
        }
        Some(reach)
    }

    /// What a device's access to an address reaches: what the TLB remembers, else what the tables say, remembered.
    pub fn touch(&mut self, iova: u64) -> Option<(u64, Access)> {
        let page = iova / 4096;
        let reach = self.smmu.tlb.get(&page).copied().or_else(|| self.fetch(page))?;
        self.smmu.tlb.insert(page, reach);
        Some((reach.0 * 4096 + iova % 4096, reach.1))
    }

    /// Every page that the tables lead to, in the first 2 GiB.
    pub fn mapped(&self) -> BTreeMap<u64, Reach> {
        let mut mapped = BTreeMap::new();
        for region in 0..1024 {
            let middle = PhysAddr::new(self.pool.at(self.space.config().root)[region / 512].load() & !0xfff);
            if self.pool.at(middle)[region % 512].load() != 0 {
                let pages = region as u64 * 512..(region as u64 + 1) * 512;
                let leaf = self.pool.at(middle)[region % 512].load();
                let is_mapped = |page: &u64| match Descriptor::decode(leaf, 2) {
                    Descriptor::Table(table) => {
                        self.pool.at(table)[usize::try_from(page % 512).expect("small")].load() & 1 != 0
                    }
                    _ => true,
                };
                mapped.extend(pages.filter(is_mapped).filter_map(|page| Some((page, self.walk(page)?))));
            }
        }
        mapped
    }
}

/// A segment in RAM, from its start on.
pub fn segment(offset: u64, bytes: u64) -> Segment {
    Segment::new(Ipa::new(RAM + offset), bytes)
}
