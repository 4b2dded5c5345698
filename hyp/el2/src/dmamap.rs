//! A VM's DMA maps: its space, its channels, and what the guest's calls do to them.
//!
//! Locks: a channel's, which calls and the timer only ever try for; within it an SMMU's, for a submission or a look at
//! its queue, or the space's.

mod backend;
mod call;
mod errors;
mod life;
mod pool;
mod queue;
mod storage;
mod walker;

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bulkhead_abi::Counter;
use bulkhead_core::{
    addr::{AddrRange, Iova, Ipa, PhysAddr},
    bundle::{Dmamap, DmamapStrategy},
    ids::{SmmuId, VmId, Vmid},
    name::Name,
    stage2::S2Config,
};
use bulkhead_dma::map::{Found, Space, SpaceError};

pub use self::{
    call::{call, sums},
    life::Retired,
    walker::Walker,
};
use self::{
    pool::TablePool,
    queue::{Published, Slot},
    storage::{Sizes, Storage},
};
use crate::{lock::Mutex, memory, percpu::PerCpu, pmcg, smmu, time};

/// Channels of a VM.
const CHANNELS: usize = 8;
const _: () = assert!(CHANNELS as u64 == bulkhead_abi::CHANNELS);

/// Why a VM cannot have DMA maps.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[repr(u64)]
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

/// The space and where its tables come from.
struct Ground {
    space: Option<Space<'static>>,
    pool: TablePool,
    storage: Storage,
}

/// A VM's DMA maps.
pub struct Maps {
    id: VmId,
    settings: Dmamap,
    name: Name,
    ram: AddrRange<Ipa>,
    phys: PhysAddr,
    input_bits: u8,
    smmus: heapless::Vec<SmmuId, { smmu::SMMUS_MAX }>,
    has_ranges: bool,
    /// A part of the maps is sampled: every SMMU sets access flags, and not every one has a counter group.
    is_sampling: bool,
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
        let (mut has_ranges, mut has_access_flags) = (true, true);
        for smmu in &parts.smmus {
            let features = smmu::with(*smmu, |driver| *driver.features());
            if !features.is_some_and(|features| features.is_coherent) {
                return Err(MapsError::NotCoherent(smmu.0));
            }
            has_ranges &= features.is_some_and(|features| features.has_range_invalidation);
            has_access_flags &= features.is_some_and(|features| features.has_access_flag_update);
        }
        let is_sampling = has_access_flags && !parts.smmus.iter().all(|smmu| pmcg::counts(*smmu));
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
            id: parts.id,
            name: parts.name,
            ram: parts.ram,
            phys: parts.phys,
            input_bits: parts.bits.0,
            smmus: parts.smmus,
            has_ranges,
            is_sampling,
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

    /// How the SMMUs walk its tables.
    pub const fn config(&self) -> S2Config {
        self.config
    }

    /// Its tag in TLBs.
    pub const fn vmid(&self) -> Vmid {
        self.config.vmid
    }

    /// Which VM.
    pub const fn id(&self) -> VmId {
        self.id
    }

    /// The VM's name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The settings.
    pub const fn settings(&self) -> &Dmamap {
        &self.settings
    }

    /// Whether what devices touch is sampled. Only maps of pages that are leased when they are created are.
    pub fn is_sampling(&self) -> bool {
        self.is_sampling && self.settings.strategy == DmamapStrategy::Reserve
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

    /// Channels that it has.
    pub const fn channels(&self) -> usize {
        CHANNELS
    }

    /// One counter of one channel.
    pub fn counter_of(&self, channel: usize, counter: Counter) -> u64 {
        self.published.get(channel).map_or(0, |published| published.of(counter))
    }
}

/// EL2's timer: flushes that were put off and are due, of the VM that `cpu` belongs to. No other VM's are put off here,
/// and none pays for another's.
pub fn tick(cpu: &PerCpu) {
    let Some(maps) = cpu.vcpu.get().and_then(|(vm, _)| vm.dma.maps()) else { return };
    if maps.settings.flush.is_strict() {
        return;
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
