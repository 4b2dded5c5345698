//! A VM's maps on one SMMU, and the device behind it.

use bulkhead_core::{
    addr::{Iova, Ipa, PAGE_SIZE, PhysAddr},
    ids::{SmmuId, StreamId, Vmid},
    stage2::S2Config,
};
use bulkhead_dma::flush::{Batch, Costs, Invalidate, Kind, Live, Mode, Policy, Stamp, SyncWitness, Work, retire};
use bulkhead_smmu::{
    Config, Error, Invalidation, Mark, Platform, Smmu, Synced, Ticket,
    model::{DmaAccess, Model, ModelConfig, Mutant, Mutation, Outcome, TestTable},
};

use crate::told::told;

/// Policies that a world can have, by number.
pub const POLICIES: usize = 4;
/// The number of the range policy.
pub const RANGE: usize = 1;
/// The number of the page policy.
pub const PAGE: usize = 2;

const STREAM: StreamId = StreamId(8);
const VMID: Vmid = Vmid::new(1).expect("not zero");
/// IOVA of the first slot.
const BASE: u64 = 0x4000_0000;
const SLOTS: usize = 128;
/// Pages from a slot to the next; the last is never mapped.
const STRIDE: usize = 8;
const FRAMES: usize = SLOTS * STRIDE;
/// Valid page, access flag, inner shareable, Normal write-back, read and write.
const LEAF: u64 = 3 | ACCESS_FLAG | 3 << 8 | 3 << 6 | 0xf << 2;
const ACCESS_FLAG: u64 = 1 << 10;

/// What is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// CMD_TLBI_S2_IPA.
    NoTlbi,
    /// CMD_SYNC.
    NoSync,
    /// Barriers.
    NoBarrier,
    /// The last page of a flush.
    OnePageShort,
    /// To wait for the SYNC before a slot is loaded again.
    RefillBeforeSync,
}

#[derive(Clone, Copy, Default)]
struct Map {
    frames: [u64; STRIDE],
    pages: usize,
    is_loaded: bool,
    /// The batch of its last unload.
    stamp: Option<Stamp>,
    /// Its leaves were stored without access flag: the SMMU sets them.
    is_sampled: bool,
    /// Pages that the device reached since the load.
    touched: [bool; STRIDE],
}

struct Walker {
    smmu: Smmu<Mutant<Model>>,
    is_short: bool,
}

struct Witness(Synced);

impl SyncWitness for Witness {
    fn smmu(&self) -> SmmuId {
        self.0.smmu()
    }
    fn vmid(&self) -> Vmid {
        self.0.vmid()
    }
}

impl Invalidate for Walker {
    type Ticket = Ticket;
    type Witness = Witness;
    type Error = Error;

    fn submit(&mut self, work: &Work<'_>) -> Result<Ticket, Error> {
        let (is_leaf, is_short) = (work.is_leaf(), self.is_short);
        let sent = match work.single() {
            Some(command) => self.smmu.submit(work.vmid(), told(command, is_leaf, is_short), Mark::NEVER),
            None => {
                let all: Vec<Invalidation> = work.commands().map(|command| told(command, is_leaf, is_short)).collect();
                self.smmu.submit_all(work.vmid(), all.into_iter())
            }
        };
        sent.map_err(|failed| self.smmu.reason(&failed))
    }
    fn wait(&mut self, ticket: Ticket) -> Result<Witness, Error> {
        self.smmu.wait(ticket).map(Witness).map_err(|failed| self.smmu.reason(&failed))
    }
}

/// See the module.
pub struct World {
    model: Model,
    platform: Mutant<Model>,
    walker: Walker,
    batch: Batch,
    policy: Policy,
    maps: [Map; SLOTS],
    /// Frames that nobody can reach: a stack, so that what is freed last is used first.
    free: Vec<u64>,
    /// Slots whose unload is not flushed.
    unflushed: Vec<usize>,
    /// Slots that were loaded or unloaded lately.
    recent: [usize; 8],
    touched: usize,
    leaves: [PhysAddr; SLOTS * STRIDE / 512],
    loaded_pages: u64,
    is_coherent: bool,
    has_access_flags: bool,
    fault: Fault,
    random: u64,
    /// Pages of sampled loads, and those of them that were reached.
    pub sampled: (u64, u64),
}

impl World {
    /// A world with the policy of number `kind`.
    pub fn new(config: ModelConfig, kind: usize, fault: Fault, seed: u64) -> Self {
        let model = Model::new(config);
        let mutation = match fault {
            Fault::NoTlbi => Mutation::DropCommand(0x2a),
            Fault::NoSync => Mutation::DropCommand(0x46),
            Fault::NoBarrier => Mutation::DropBarriers,
            _ => Mutation::None,
        };
        let mut mutant = Mutant::new(model.clone(), mutation);
        mutant.is_active = false;
        let mut smmu = Smmu::take_over(mutant, SmmuId(0), Config::new(40, 0x3ff)).expect("take-over");
        let mut table = TestTable::new(&model);
        let frames = model.alloc(FRAMES as u64, PAGE_SIZE).as_u64();
        let leaves = core::array::from_fn(|region| leaf_of(&model, &mut table, region, frames));
        model.grant(STREAM, PhysAddr::new(frames), FRAMES as u64 * PAGE_SIZE);
        let s2 = S2Config { vmid: VMID, root: table.root(), ipa_bits: 39, output_bits: 40 };
        smmu.attach(STREAM, &s2).expect("attach");
        smmu.platform().is_active = true;
        let features = *smmu.features();
        let mode = [Mode::Auto, Mode::Fixed(Kind::Range), Mode::Fixed(Kind::Page), Mode::Fixed(Kind::Context)][kind];
        Self {
            platform: Mutant::new(model.clone(), if fault == Fault::NoBarrier { mutation } else { Mutation::None }),
            model,
            walker: Walker { smmu, is_short: fault == Fault::OnePageShort },
            batch: Batch::new(VMID, [SmmuId(0)], features.has_range_invalidation),
            policy: Policy::new(mode, features.has_range_invalidation, Costs::START),
            maps: [Map::default(); SLOTS],
            free: (0..FRAMES as u64).map(|frame| frames + frame * PAGE_SIZE).collect(),
            unflushed: Vec::new(),
            recent: [0; 8],
            touched: 0,
            leaves,
            loaded_pages: 0,
            is_coherent: features.is_coherent,
            has_access_flags: features.has_access_flag_update && fault == Fault::None,
            fault,
            sampled: (0, 0),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    fn random(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random >> 33).expect("31 bits") % below
    }

    /// One operation at random. Every page that the device reached has to be one that it may reach.
    pub fn step(&mut self) -> Result<(), String> {
        let slot = self.random(SLOTS);
        match self.random(16) {
            0 => {
                let again = self.random(self.recent.len());
                self.load(self.recent[again])
            }
            1..=2 => self.load(slot),
            3..=5 => self.unload(slot),
            6 => self.flush(),
            // What changed lately is tried as often as all the rest.
            7..=11 => {
                let recent = self.random(self.recent.len());
                self.device(self.recent[recent])
            }
            _ => self.device(slot),
        }
    }

    /// What the model saw the driver do.
    pub fn check(&self) -> Result<(), String> {
        let violations = self.model.violations();
        if violations.is_empty() { Ok(()) } else { Err(format!("{violations:x?}")) }
    }

    fn touch(&mut self, slot: usize) {
        self.recent[self.touched % self.recent.len()] = slot;
        self.touched = self.touched.wrapping_add(1);
    }

    fn load(&mut self, slot: usize) -> Result<(), String> {
        let map = self.maps[slot];
        let is_settled = map.stamp.is_none_or(|stamp| self.batch.is_settled(stamp));
        if map.is_loaded {
            return Ok(());
        }
        if !is_settled {
            if self.fault == Fault::RefillBeforeSync {
                self.free.extend(&map.frames[..map.pages]);
                self.unflushed.retain(|other| *other != slot);
            } else {
                self.flush()?;
            }
        }
        let pages = 1 + self.random(STRIDE - 1);
        let is_sampled = self.has_access_flags && self.random(4) == 0;
        let leaf = if is_sampled { LEAF & !ACCESS_FLAG } else { LEAF };
        let mut map = Map { pages, is_loaded: true, is_sampled, ..Map::default() };
        for page in 0..pages {
            let Some(frame) = self.free.pop() else { return Err("out of frames".into()) };
            map.frames[page] = frame;
            self.store(slot, page, frame | leaf);
        }
        self.platform.barrier();
        self.touch(slot);
        self.maps[slot] = map;
        self.loaded_pages += pages as u64;
        Ok(())
    }

    fn unload(&mut self, slot: usize) -> Result<(), String> {
        let map = self.maps[slot];
        let pages = map.pages;
        if !map.is_loaded {
            return Ok(());
        }
        for page in 0..pages {
            if map.is_sampled {
                self.take(slot, page)?;
            } else {
                self.store(slot, page, 0);
            }
        }
        let stamp = self.batch.add(iova(slot, 0), pages as u64);
        self.maps[slot].is_loaded = false;
        self.maps[slot].stamp = Some(stamp);
        self.unflushed.push(slot);
        self.touch(slot);
        self.loaded_pages -= pages as u64;
        Ok(())
    }

    /// Clears a leaf of a sampled load: its access flag has to say whether the device was there.
    fn take(&mut self, slot: usize, page: usize) -> Result<(), String> {
        let old = self.model.exchange(self.entry(slot, page), 0);
        let is_touched = self.maps[slot].touched[page];
        if (old & ACCESS_FLAG != 0) != is_touched {
            return Err(format!("slot {slot}, page {page}: {old:#x}, touched {is_touched}"));
        }
        self.sampled.0 += 1;
        self.sampled.1 += u64::from(is_touched);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        let live = Live { entries: self.loaded_pages };
        let Some(scope) = self.policy.decide(&mut self.batch, live, 0) else { return Ok(()) };
        let work = self.policy.close(&mut self.batch, scope);
        let epoch = retire(work, &mut [&mut self.walker]).map_err(|error| error.to_string())?;
        self.batch.accept(&epoch).map_err(|error| error.to_string())?;
        for slot in core::mem::take(&mut self.unflushed) {
            let map = &mut self.maps[slot];
            if !map.stamp.take().is_some_and(|stamp| self.batch.is_settled(stamp)) {
                return Err(format!("slot {slot} is not settled by its own batch's flush"));
            }
            self.free.extend(&map.frames[..map.pages]);
            map.pages = 0;
        }
        Ok(())
    }

    fn device(&mut self, slot: usize) -> Result<(), String> {
        let page = self.random(STRIDE);
        let access = if self.random(2) == 0 { DmaAccess::Read } else { DmaAccess::Write };
        let outcome = self.model.dma(STREAM, iova(slot, page), access);
        let is_strict = self.fault == Fault::None;
        let map = &mut self.maps[slot];
        let own = (page < map.pages).then(|| map.frames[page]);
        match outcome {
            Outcome::Translated(at) if own == Some(at.as_u64()) => {
                map.touched[page] |= map.is_loaded;
                Ok(())
            }
            Outcome::Translated(at) => {
                Err(format!("slot {slot}, page {page} leads to {at}, loaded {}, own {own:x?}", map.is_loaded))
            }
            outcome if is_strict && map.is_loaded && own.is_some() => {
                Err(format!("slot {slot}, page {page} is loaded: {outcome:?}"))
            }
            outcome if outcome.is_contained() => Ok(()),
            outcome => Err(format!("slot {slot}, page {page}: {outcome:?}")),
        }
    }

    fn entry(&self, slot: usize, page: usize) -> PhysAddr {
        let index = slot * STRIDE + page;
        PhysAddr::new(self.leaves[index / 512].as_u64() + (index % 512) as u64 * 8)
    }

    fn store(&mut self, slot: usize, page: usize, descriptor: u64) {
        let at = self.entry(slot, page);
        self.platform.write_memory(at, descriptor);
        if !self.is_coherent {
            self.platform.clean(at, 8);
        }
    }
}

fn iova(slot: usize, page: usize) -> Iova {
    Iova::new(BASE + (slot * STRIDE + page) as u64 * PAGE_SIZE)
}

/// The leaf table of 512 pages, linked and empty: the frame that a probe of its first descriptor finds it by.
fn leaf_of(model: &Model, table: &mut TestTable, region: usize, frame: u64) -> PhysAddr {
    let ipa = Ipa::new(BASE + region as u64 * 512 * PAGE_SIZE);
    table.store(ipa, 3, frame | LEAF);
    let mut at = table.root();
    for level in 1..3 {
        let slot = at.as_u64() + (ipa.as_u64() >> (39 - 9 * level) & 511) * 8;
        at = PhysAddr::new(model.clone().read_memory(PhysAddr::new(slot)) & 0x0000_ffff_ffff_f000);
    }
    table.store(ipa, 3, 0);
    at
}
