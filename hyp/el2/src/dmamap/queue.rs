//! A channel as EL2 keeps it: its maps, how it flushes, its ring, what it has counted.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bulkhead_abi::Counter;
use bulkhead_dma::{
    flush::{Live, Policy, Scope, retire},
    map::Channel,
};
use bulkhead_ring::Loads;
use bulkhead_vdev::dmamap::Ring;
use heapless::Vec;

use super::{Maps, walker::Walker};
use crate::{lines, smmu, sysreg, time};

/// What a channel's lock holds.
pub struct Slot {
    /// The channel; none while the VM's space is being made anew.
    pub queue: Option<Queue>,
    /// Its ring.
    pub ring: Option<Ring>,
}

/// One channel.
pub struct Queue {
    /// Its maps.
    pub channel: Channel<'static>,
    /// How its unloads are flushed.
    pub policy: Policy,
    /// Maps created.
    pub creates: u64,
    /// Maps destroyed.
    pub destroys: u64,
    /// Loads that succeeded.
    pub loads: u64,
    /// Their pages.
    pub pages: u64,
    /// Unlinked tables are in the open batch: the space is to be looked at after its flush.
    pub has_tables: bool,
    /// The shortest flush of one command, in nanoseconds: what a SYNC costs.
    sync_ns: u32,
}

/// An SMMU did not confirm a flush.
pub struct NotFlushed;

impl Queue {
    /// A channel without maps.
    pub fn new(channel: Channel<'static>, policy: Policy) -> Self {
        Self { channel, policy, creates: 0, destroys: 0, loads: 0, pages: 0, has_tables: false, sync_ns: u32::MAX }
    }

    /// Counts loads.
    pub fn note(&mut self, more: Loads) {
        self.loads = self.loads.wrapping_add(more.loads);
        self.pages = self.pages.wrapping_add(more.pages);
    }

    /// Flushes what was unloaded, if the policy says so or `is_now`. Every store to the tables is visible to the SMMUs
    /// when this returns. Whether anything was flushed.
    pub fn flush(&mut self, maps: &Maps, is_now: bool) -> Result<bool, NotFlushed> {
        // Stores of loads come before the doorbell of the device, those of unloads before the SMMU's (DDI 0487, TLB maintenance).
        sysreg::dsb_ish();
        if self.channel.batch().is_quarantined() {
            return Err(NotFlushed);
        }
        if self.channel.batch().is_empty() {
            return Ok(false);
        }
        let unloaded = self.policy.counters().pages.wrapping_add(self.channel.batch().pages());
        let live = Live { entries: self.channel.in_use(self.pages.saturating_sub(unloaded)) };
        let now_us = time::now_us();
        let decided = self.policy.decide(self.channel.batch_mut(), live, now_us);
        let Some(scope) = decided.or(is_now.then_some(Scope::Context)) else {
            // EL2's timer looks after it.
            time::arm_ms(self.policy.due_in_us(self.channel.batch_mut(), now_us).div_ceil(1000));
            return Ok(false);
        };
        if let Some(switch) = self.policy.take_switch() {
            let part = format_args!(" channel {}", self.channel.number());
            lines::switch(maps.id(), maps.name(), part, &switch);
        }
        let commands = self.policy.counters().commands();
        let begin = time::ticks_relaxed();
        let flushed = retire(self.policy.close(self.channel.batch_mut(), scope), &mut walkers(maps));
        let is_settled = match flushed {
            Ok(epoch) => self.channel.batch_mut().accept(&epoch).is_ok(),
            Err(problem) => {
                let part = format_args!(" channel {}", self.channel.number());
                lines::problem(maps.id(), maps.name(), part, &problem);
                false
            }
        };
        if !is_settled {
            self.channel.batch_mut().quarantine();
            self.policy.note_failure();
            return Err(NotFlushed);
        }
        let elapsed = time::to_ns(time::ticks_relaxed().wrapping_sub(begin));
        self.measure(self.policy.counters().commands().wrapping_sub(commands), elapsed);
        Ok(true)
    }

    fn measure(&mut self, commands: u64, elapsed_ns: u64) {
        let (commands, elapsed) = (u32::try_from(commands), u32::try_from(elapsed_ns).unwrap_or(u32::MAX));
        match commands {
            Ok(1) => self.sync_ns = self.sync_ns.min(elapsed),
            Ok(commands @ 2..) => self.policy.costs().measured_commands(commands, elapsed, self.sync_ns),
            _ => (),
        }
    }
}

fn walkers(maps: &Maps) -> Vec<Walker, { smmu::SMMUS_MAX }> {
    maps.smmus.iter().map(|smmu| Walker::new(*smmu, maps.vmid())).collect()
}

/// What a channel has counted, for whoever does not hold it: written when it is let go.
pub struct Published([AtomicU64; COUNTERS]);

const COUNTERS: usize = Counter::ALL.len();

impl Published {
    /// All zero.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; COUNTERS])
    }

    /// One of them; 0 for one that is not a channel's.
    pub fn of(&self, counter: Counter) -> u64 {
        usize::try_from(counter.number())
            .ok()
            .and_then(|place| self.0.get(place))
            .map_or(0, |value| value.load(Relaxed))
    }

    /// Takes over what `queue` has counted.
    pub fn publish(&self, queue: &Queue) {
        let flush = queue.policy.counters();
        let unloaded = flush.pages.wrapping_add(queue.channel.batch().pages());
        let values = [
            (Counter::Maps, queue.creates.saturating_sub(queue.destroys)),
            (Counter::Creates, queue.creates),
            (Counter::Destroys, queue.destroys),
            (Counter::Loads, queue.loads),
            (Counter::Unloads, flush.maps.wrapping_add(queue.channel.batch().maps().into())),
            (Counter::Pages, queue.pages),
            (Counter::Stores, queue.pages.wrapping_add(unloaded)),
            (Counter::PageCommands, flush.page_commands),
            (Counter::RangeCommands, flush.range_commands),
            (Counter::ContextCommands, flush.by_context),
            (Counter::Syncs, flush.syncs()),
            (Counter::Switches, flush.switches),
            (Counter::Timeouts, flush.failed),
        ];
        for (counter, value) in values {
            self.set(counter, value);
        }
        if let Some((sampled, touched)) = queue.channel.sampled() {
            self.set(Counter::SampledPages, sampled);
            self.set(Counter::TouchedPages, touched);
        }
    }

    fn set(&self, counter: Counter, value: u64) {
        if let Some(slot) = usize::try_from(counter.number()).ok().and_then(|place| self.0.get(place)) {
            slot.store(value, Relaxed);
        }
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.0.iter().for_each(|value| value.store(0, Relaxed));
    }
}
