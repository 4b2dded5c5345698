//! A space's life: made with nothing in it, taken out of use when its VM goes, made anew.

use core::sync::atomic::Ordering::Relaxed;

use bulkhead_core::{
    addr::{AddrRange, Iova},
    bundle::DmamapFlush,
    stage2::S2Config,
    vplat::{GICD_BASE, UART_BASE},
};
use bulkhead_dma::{
    Flushed, Unflushed,
    flush::{Batch, Costs, Kind, Mode, Policy},
    map::{Channel, Space, SpaceConfig, SpaceError},
};
use log::error;

use super::{
    CHANNELS, Maps,
    queue::{Queue, Slot},
};

/// A space that is out of use: what a flush by every SMMU frees.
#[derive(Debug)]
pub struct Retired(());

impl Maps {
    /// Makes space and channels anew, with nothing in them. There are none: no vCPU runs, no SMMU walks them.
    ///
    /// Each in a function of its own: they are large, and a stack is not.
    pub(super) fn build(&self) -> Result<S2Config, SpaceError> {
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
        slot.queue = storage.map(|storage| {
            let mut channel = Channel::new(number, storage, space, batch);
            if self.is_sampling() {
                channel.sample();
            }
            Queue::new(channel, policy)
        });
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
}
