//! A VM's DMA maps: its space, its channels, and what the guest's calls do to them.
//!
//! Locks: a channel's, which is only ever tried for; within it the space's; within neither an SMMU's is held when the
//! other is taken, but a channel's is held over a flush.

mod backend;
mod call;
mod pool;
mod queue;
mod storage;
mod walker;

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bulkhead_abi::Counter;
use bulkhead_core::{
    addr::{AddrRange, Iova, Ipa, PhysAddr},
    bundle::{Dmamap, DmamapFlush},
    ids::{SmmuId, VmId, Vmid},
    name::Name,
    stage2::S2Config,
    vplat::{GICD_BASE, UART_BASE},
};
use bulkhead_dma::{
    Flushed, Unflushed,
    flush::{Batch, Costs, Kind, Mode, Policy},
    map::{Channel, Found, Space, SpaceConfig, SpaceError},
};
use log::error;

pub use self::call::{call, sums};
use self::{
    pool::TablePool,
    queue::{Published, Queue, Slot},
    storage::{Sizes, Storage},
};
use crate::{lock::Mutex, memory, smmu, time};

/// Channels of a VM.
const CHANNELS: usize = 8;
const _: () = assert!(CHANNELS as u64 == bulkhead_abi::CHANNELS);

/// Why a VM cannot have DMA maps.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum MapsError {
    /// The frame pool is too small.
    #[error(
        "its dma maps need {needed} frames of 4 KiB, {left} are left in the hypervisor's pool: lower dmamap.maps or dmamap.tables"
    )]
    Pool {
        /// Frames for all arrays and tables.
        needed: usize,
        /// Frames that nobody has.
        left: usize,
    },
    /// The settings do not go with the machine.
    #[error("its dma maps: {0}")]
    Space(#[from] SpaceError),
    /// An SMMU that reads its tables from memory alone.
    #[error("smmu {0} does not snoop the caches, which dma maps need: use dma = \"identity\"")]
    NotCoherent(u8),
}

/// A space that is out of use: what a flush by every SMMU frees.
#[derive(Debug)]
pub struct Retired(());

/// The space and where its tables come from.
struct Ground {
    space: Option<Space<'static>>,
    pool: TablePool,
    storage: Storage,
}

/// A VM's DMA maps.
pub struct Maps {
    settings: Dmamap,
    name: Name,
    ram: AddrRange<Ipa>,
    phys: PhysAddr,
    input_bits: u8,
    smmus: heapless::Vec<SmmuId, { smmu::SMMUS_MAX }>,
    has_ranges: bool,
    config: S2Config,
    end: u64,
    ground: Mutex<Ground>,
    channels: [Mutex<Slot>; CHANNELS],
    published: [Published; CHANNELS],
    ring_runs: AtomicU64,
    ring_entries: AtomicU64,
}

/// What [`Maps::new`] is made from.
pub struct Parts {
    /// The VM.
    pub id: VmId,
    /// Its name.
    pub name: Name,
    /// Its tag in TLBs.
    pub vmid: Vmid,
    /// Its settings.
    pub settings: Dmamap,
    /// Its RAM as the guest sees it.
    pub ram: AddrRange<Ipa>,
    /// Where that is.
    pub phys: PhysAddr,
    /// Bits of input and output addresses.
    pub bits: (u8, u8),
    /// The SMMUs of its devices.
    pub smmus: heapless::Vec<SmmuId, { smmu::SMMUS_MAX }>,
}

impl Maps {
    /// Sets everything aside; no map yet, nothing mapped.
    ///
    /// # Errors
    /// The pool does not suffice, or the settings do not go with the machine.
    pub fn new(parts: Parts) -> Result<Self, MapsError> {
        let mut has_ranges = true;
        for smmu in &parts.smmus {
            let features = smmu::with(*smmu, |driver| *driver.features());
            if !features.is_some_and(|features| features.is_coherent) {
                return Err(MapsError::NotCoherent(smmu.0));
            }
            has_ranges &= features.is_some_and(|features| features.has_range_invalidation);
        }
        let sizes = Sizes::of(&parts.settings, parts.ram);
        let (total, taken, _) = memory::usage();
        let (needed, left) = (sizes.frames(), total.saturating_sub(taken));
        let refused = MapsError::Pool { needed, left };
        if needed > left {
            return Err(refused);
        }
        let (storage, pool) = Storage::new(parts.id, &sizes).ok_or(refused)?;
        let mut maps = Self {
            settings: parts.settings,
            name: parts.name,
            ram: parts.ram,
            phys: parts.phys,
            input_bits: parts.bits.0,
            smmus: parts.smmus,
            has_ranges,
            config: S2Config { root: PhysAddr::new(0), ipa_bits: 0, output_bits: parts.bits.1, vmid: parts.vmid },
            end: sizes.end(),
            ground: Mutex::new(Ground { space: None, pool, storage }),
            channels: [const { Mutex::new(Slot { queue: None, ring: None }) }; CHANNELS],
            published: [const { Published::new() }; CHANNELS],
            ring_runs: AtomicU64::new(0),
            ring_entries: AtomicU64::new(0),
        };
        maps.config = maps.build()?;
        Ok(maps)
    }

    /// Makes space and channels anew, with nothing in them. There are none: no vCPU runs, no SMMU walks them.
    ///
    /// Each in a function of its own: they are large, and a stack is not.
    fn build(&self) -> Result<S2Config, SpaceError> {
        let made = self.make_space()?;
        for number in 0..CHANNELS {
            self.make_channel(number);
        }
        self.ring_runs.store(0, Relaxed);
        self.ring_entries.store(0, Relaxed);
        Ok(made)
    }

    #[inline(never)]
    fn make_space(&self) -> Result<S2Config, SpaceError> {
        let mut ground = self.ground.lock();
        let ground = &mut *ground;
        // Where a guest's interrupt controller is: its MSIs would go there.
        let reserved = AddrRange::between(Iova::identity(GICD_BASE), Iova::identity(UART_BASE));
        let config = SpaceConfig {
            strategy: self.settings.strategy,
            ram: self.ram,
            phys: self.phys,
            input_bits: self.input_bits,
            output_bits: self.config.output_bits,
            vmid: self.config.vmid,
            maps: self.settings.maps,
            leaf_tables: self.settings.tables,
            reserved: reserved.as_slice(),
        };
        // SAFETY: there is no space: it was never made, or taken down.
        let storage = unsafe { ground.storage.space() };
        ground.space = Some(Space::new(&config, storage, &mut ground.pool)?);
        Ok(ground.space.as_ref().map_or(self.config, Space::config))
    }

    #[inline(never)]
    fn make_channel(&self, place: usize) {
        let Some((slot, published)) = self.channels.get(place).zip(self.published.get(place)) else { return };
        let mut slot = slot.lock();
        let mut ground = self.ground.lock();
        let ground = &mut *ground;
        let Some(space) = &ground.space else { return };
        *slot = Slot { queue: None, ring: None };
        // SAFETY: the channel that was in this slot is gone.
        let storage = unsafe { ground.storage.channel(place) };
        let batch = Batch::new(self.config.vmid, self.smmus.iter().copied(), self.has_ranges);
        let policy = Policy::new(self.mode(), self.has_ranges, Costs::START);
        let number = u8::try_from(place).unwrap_or(u8::MAX);
        slot.queue = storage.map(|storage| Queue::new(Channel::new(number, storage, space, batch), policy));
        published.clear();
    }

    const fn mode(&self) -> Mode {
        match self.settings.flush {
            DmamapFlush::Auto => Mode::Auto,
            DmamapFlush::Page => Mode::Fixed(Kind::Page),
            DmamapFlush::Range => Mode::Fixed(Kind::Range),
            DmamapFlush::Context => Mode::Fixed(Kind::Context),
            DmamapFlush::Deferred { pages, ms } => Mode::Deferred { pages, window_us: ms.saturating_mul(1000) },
        }
    }

    /// How the SMMUs walk its tables.
    pub const fn config(&self) -> S2Config {
        self.config
    }

    /// Its tag in TLBs.
    pub const fn vmid(&self) -> Vmid {
        self.config.vmid
    }

    /// The VM's name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The settings.
    pub const fn settings(&self) -> &Dmamap {
        &self.settings
    }

    /// The map that is nearest to an IOVA. `None` where no map is at or below it, or none is known to be.
    pub fn find(&self, iova: Iova) -> Option<Found> {
        self.ground.lock().space.as_ref()?.find(iova)
    }

    /// One counter over all channels.
    pub fn counter(&self, counter: Counter) -> u64 {
        let of_space = |f: fn(&Space<'static>) -> u64| self.ground.lock().space.as_ref().map_or(0, f);
        match counter {
            Counter::LeasedBytes => of_space(|space| u64::from(space.leased_pages()) << 12),
            Counter::Tables => of_space(|space| u64::from(space.leaf_tables().0)),
            Counter::RingRuns => self.ring_runs.load(Relaxed),
            Counter::RingEntries => self.ring_entries.load(Relaxed),
            other => self.published.iter().map(|published| published.of(other)).sum(),
        }
    }

    /// One counter of one channel.
    pub fn counter_of(&self, channel: usize, counter: Counter) -> u64 {
        self.published.get(channel).map_or(0, |published| published.of(counter))
    }

    /// Takes the space out of use: no vCPU runs. Its streams are to be put in abort and flushed.
    pub fn retire(&self) -> Unflushed<Retired> {
        // Channels refer to the space's tables: they go first, and their batches with them.
        for slot in &self.channels {
            *slot.lock() = Slot { queue: None, ring: None };
        }
        Unflushed::new(Retired(()), self.config.vmid, self.smmus.iter().copied())
    }

    /// Ends what [`Self::retire`] began: everything anew if every SMMU has flushed, else kept for good. Says which.
    pub fn settle(&self, retired: Unflushed<Retired>) -> bool {
        let Ok(retired) = retired.settle() else { return false };
        self.dismantle(retired);
        match self.build() {
            // The root that went back last is taken first.
            Ok(config) => config == self.config,
            Err(problem) => {
                error!("vm {}: {problem}", self.name());
                false
            }
        }
    }

    #[inline(never)]
    fn dismantle(&self, _proof: Flushed<Retired>) {
        let mut ground = self.ground.lock();
        let ground = &mut *ground;
        // The proof names every SMMU that walked it.
        if let Some(space) = ground.space.take()
            && let Ok(space) = space.retire([]).settle()
        {
            Space::dismantle(space, &mut ground.pool);
        }
        ground.pool.zero();
    }

    /// A deferred flush waits: EL2's timer looks after it.
    fn put_off(&self) {
        if let DmamapFlush::Deferred { ms, .. } = self.settings.flush {
            time::arm_ms(ms.into());
        }
    }
}

/// EL2's timer: flushes that were put off and are due.
pub fn tick() {
    for maps in crate::vm::all().filter_map(|vm| vm.dma.maps()) {
        if maps.settings.flush.is_strict() {
            continue;
        }
        for (slot, published) in maps.channels.iter().zip(&maps.published) {
            match slot.try_lock() {
                Some(mut slot) => {
                    if let Some(queue) = slot.queue.as_mut() {
                        // What fails is counted and said; the guest learns of it from its next call.
                        let _ = queue.flush(maps, false);
                        published.publish(queue);
                    }
                }
                None => time::arm_ms(1),
            }
        }
    }
}
