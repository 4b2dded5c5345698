//! A VM with DMA maps on one SMMU, as EL2 drives them, and the device behind it.

#[path = "calls.rs"]
mod calls;

use std::{cell::Cell, ops::Range, rc::Rc};

use bulkhead_core::{
    addr::{AddrRange, BLOCK_2M, Iova, Ipa, PAGE_SIZE},
    bundle::DmamapStrategy,
    ids::{SmmuId, StreamId, Vmid},
};
use bulkhead_dma::{
    flush::{Batch, Costs, Kind, Mode, Policy},
    iova::{Node, nodes_for},
    map::{
        Channel, ChannelStorage, Direction, Handle, MapParams, Piece, Record, Segment, Space, SpaceConfig, SpaceStorage,
    },
    tree::Region,
};
use bulkhead_smmu::{
    Config, Platform, Smmu,
    model::{DmaAccess, Model, ModelConfig, Mutant, Mutation},
};

use crate::{
    shadow::Shadow,
    tables::Pool,
    walker::{Fault, Walker},
};

/// Flush policies, the deferred one last.
pub const POLICIES: [Mode; 5] = [
    Mode::Auto,
    Mode::Fixed(Kind::Range),
    Mode::Fixed(Kind::Page),
    Mode::Fixed(Kind::Context),
    Mode::Deferred { pages: 24, window_us: 300 },
];

const STREAM: StreamId = StreamId(8);
const VMID: Vmid = Vmid::new(1).expect("not zero");
/// Where the VM's RAM is for the VM: within the space, for `one-to-one`.
const RAM: u64 = 2 * BLOCK_2M;
const RAM_PAGES: u64 = 1024;
/// Regions of 2 MiB in the space.
const REGIONS: usize = 8;
const PAGES: usize = REGIONS * 512;
/// Maps at a time, both channels together.
const MAPS: usize = 24;
/// Pages retired lately that a device tries again.
const RECENT: usize = 32;

/// A map, as its driver knows it.
struct Map {
    handle: Handle,
    params: MapParams,
    /// Its lease, guard page included; empty where each load takes one.
    lease: Range<u64>,
    loaded: Option<(Vec<Segment>, Direction)>,
}

struct Queue {
    channel: Channel<'static>,
    policy: Policy,
    /// When a flush was first put off.
    put_off_us: Option<u64>,
}

/// What a run did.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    /// Creates, loads, unloads, destroys, SYNCs.
    pub calls: u64,
    /// Of those, refused.
    pub refused: u64,
    /// Accesses of the device.
    pub accesses: u64,
    /// Of those, to pages that were retired by a SYNC.
    pub replays: u64,
    /// Accesses that reached memory.
    pub reached: u64,
    /// Pages of sampled maps that were unloaded.
    pub sampled: u64,
    /// Of those, with an access flag.
    pub touched: u64,
}

/// See the module.
pub struct World {
    model: Model,
    platform: Mutant<Model>,
    walker: Walker,
    space: Space<'static>,
    pool: Pool,
    queues: [Queue; 2],
    maps: Vec<Map>,
    shadow: Shadow,
    strategy: DmamapStrategy,
    mode: Mode,
    recent: [u64; RECENT],
    loaded_pages: u64,
    fault: Fault,
    random: u64,
    now_us: u64,
    /// What it did.
    pub counts: Counts,
}

impl World {
    /// A VM without maps.
    pub fn new(config: ModelConfig, strategy: DmamapStrategy, mode: Mode, fault: Fault, seed: u64) -> Self {
        let model = Model::new(config);
        let mutation = fault.mutation();
        let mut mutant = Mutant::new(model.clone(), mutation);
        mutant.is_active = false;
        let mut smmu = Smmu::take_over(mutant, SmmuId(0), Config::new(40, 0x3ff)).expect("take-over");
        let has_ranges = smmu.features().has_range_invalidation;
        let phys = model.alloc(RAM_PAGES, BLOCK_2M);
        model.grant(STREAM, phys, RAM_PAGES * PAGE_SIZE);
        let mut pool = Pool::new(&model, REGIONS + 2, &Rc::new(Cell::new(false)));
        let space_config = SpaceConfig {
            strategy,
            ram: AddrRange::new(Ipa::new(RAM), RAM_PAGES * PAGE_SIZE).expect("ram"),
            phys,
            input_bits: 39,
            output_bits: 40,
            vmid: VMID,
            maps: u32::try_from(MAPS).expect("few"),
            leaf_tables: u32::try_from(REGIONS).expect("few"),
            reserved: &[],
        };
        let storage = SpaceStorage {
            nodes: vec![Node::EMPTY; nodes_for(16 * MAPS, 2)].leak(),
            regions: vec![Region::EMPTY; REGIONS].leak(),
            bits: vec![0; PAGES / 16 / 64].leak(),
        };
        let space = Space::new(&space_config, storage, &mut pool).expect("a space");
        let queues = [0, 1].map(|number| {
            let records = (0..MAPS).map(|_| Record::empty()).collect::<Vec<_>>().leak();
            let pieces = (0..MAPS * 8).map(|_| Piece::EMPTY).collect::<Vec<_>>().leak();
            let batch = Batch::new(VMID, [SmmuId(0)], has_ranges);
            let mut channel = Channel::new(number, ChannelStorage { records, pieces }, &space, batch);
            if smmu.features().has_access_flag_update {
                channel.sample();
            }
            Queue { channel, policy: Policy::new(mode, has_ranges, Costs::START), put_off_us: None }
        });
        // The tables are in memory before the entry that leads to them.
        let late = if fault == Fault::NoBarrierAfterLoad { Mutation::DropBarriers } else { mutation };
        let mut platform =
            Mutant::new(model.clone(), if late == Mutation::DropBarriers { late } else { Mutation::None });
        platform.is_active = false;
        platform.barrier();
        smmu.attach(STREAM, &space.config()).expect("attach");
        platform.is_active = true;
        smmu.platform().is_active = true;
        Self {
            shadow: Shadow::new(PAGES, Ipa::new(RAM), phys, strategy == DmamapStrategy::OneToOne),
            walker: Walker::new(smmu, fault),
            model,
            platform,
            space,
            pool,
            queues,
            maps: Vec::new(),
            strategy,
            mode,
            recent: [0; RECENT],
            loaded_pages: 0,
            fault,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            now_us: 0,
            counts: Counts::default(),
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 33) % below
    }

    fn pick(&mut self, below: usize) -> usize {
        usize::try_from(self.random(below as u64)).expect("31 bits")
    }

    /// One operation at random: a call of the guest, or an access of the device.
    pub fn step(&mut self) -> Result<(), String> {
        self.now_us += self.random(40);
        let kind = self.random(64);
        if kind >= 34 || self.maps.is_empty() && kind >= 4 {
            // What changed lately is tried as often as all the rest.
            let page = if kind < 50 { self.recent[self.pick(RECENT)] } else { self.random(PAGES as u64 + 8) };
            return self.touch(page);
        }
        self.counts.calls += 1;
        match kind {
            0..4 => self.create(),
            4..18 => self.load(),
            18..30 => self.unload(),
            30..32 => self.destroy(),
            _ => {
                let channel = u8::from(self.random(2) == 1);
                self.sync(channel, false)
            }
        }
    }

    /// What the model saw, and what came back in a state that it must not be in.
    pub fn check(&self) -> Result<(), String> {
        let violations = self.model.violations();
        if !violations.is_empty() {
            return Err(format!("{violations:x?}"));
        }
        if self.pool.dirty != 0 { Err(format!("{} tables came back with entries", self.pool.dirty)) } else { Ok(()) }
    }

    /// Everything is given back: nothing is left, and the device reaches nothing.
    pub fn finish(mut self) -> Result<Counts, String> {
        while !self.maps.is_empty() {
            self.destroy()?;
        }
        for channel in [0, 1, 0, 1] {
            self.space.drain(&mut self.queues[usize::from(channel)].channel);
            self.sync(channel, true)?;
        }
        for page in 0..PAGES as u64 {
            self.touch(page)?;
        }
        self.check()?;
        for counters in self.queues.each_ref().map(|queue| queue.channel.counters()) {
            self.counts.sampled += counters.sampled;
            self.counts.touched += counters.touched;
        }
        let left = (self.space.leased_pages(), self.space.live(), self.space.leaf_tables(), self.pool.out());
        // The root and the table of the one GiB.
        if left == (0, 0, (0, 0), 2) { Ok(self.counts) } else { Err(format!("left behind: {left:?}")) }
    }

    fn note(&mut self, page: u64) {
        let at = self.pick(RECENT);
        self.recent[at] = page;
    }

    fn touch(&mut self, page: u64) -> Result<(), String> {
        let access = if self.random(2) == 0 { DmaAccess::Read } else { DmaAccess::Write };
        let outcome = self.model.dma(STREAM, Iova::new(page * PAGE_SIZE), access);
        self.counts.accesses += 1;
        self.counts.reached += u64::from(self.shadow.judge(page, access, outcome)?);
        Ok(())
    }
}
