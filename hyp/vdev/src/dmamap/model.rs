//! Naive DMA maps for tests: what a device reaches is a map of pages, a TLB forgets nothing before its SYNC.

mod channel;
mod slab;

use core::cell::RefCell;
use std::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use bulkhead_abi::{CHANNELS, Counter, Direction, Error, Flags, Handle, MapState, Window};
use bulkhead_core::addr::{AddrRange, Ipa, PAGE_SIZE};

pub use channel::ModelChannel;
pub use slab::Slab;

use super::{Backend, Ring};

/// Lowest IOVA of a lease.
pub const WINDOW_START: u64 = 0x1_0000;
/// One past the highest IOVA.
pub const WINDOW_END: u64 = 1 << 39;

/// A page that a device reaches: where it leads, and who may read and write.
pub type Page = (u64, Direction);

const _: () = assert!(CHANNELS == 8);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Map {
    handle: Handle,
    max_segments: usize,
    base: u64,
    bytes: u64,
    state: MapState,
    /// Loaded bytes.
    size: u64,
    iova_pages: Vec<u64>,
}

/// Everything that a call may change.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    maps: BTreeMap<u32, Map>,
    generation: u32,
    /// Stored, and not ordered before what devices do.
    fresh: BTreeMap<u64, Page>,
    table: BTreeMap<u64, Page>,
    /// Cleared in the table, and not flushed from the TLB.
    stale: BTreeMap<u64, Page>,
    rings: [Option<Ring>; 8],
    counters: BTreeMap<u64, u64>,
}

/// A VM's DMA maps.
#[derive(Debug)]
pub struct Model {
    ram: AddrRange<Ipa>,
    maps_max: usize,
    state: RefCell<State>,
    claimed: RefCell<BTreeSet<u8>>,
    is_stuck: RefCell<bool>,
}

impl Model {
    /// A VM with this RAM, and so many maps at most.
    pub fn new(ram: AddrRange<Ipa>, maps_max: usize) -> Self {
        Self { ram, maps_max, state: RefCell::default(), claimed: RefCell::default(), is_stuck: RefCell::new(false) }
    }

    /// As if another CPU had claimed the channel, or let it go.
    pub fn set_claimed(&self, channel: u8, is_claimed: bool) {
        let mut claimed = self.claimed.borrow_mut();
        if is_claimed {
            claimed.insert(channel);
        } else {
            claimed.remove(&channel);
        }
    }

    /// Whether the SMMU confirms no flush from now on.
    pub fn set_stuck(&self, is_stuck: bool) {
        *self.is_stuck.borrow_mut() = is_stuck;
    }

    /// A copy of all state but the counters, to compare.
    pub fn state(&self) -> State {
        State { counters: BTreeMap::new(), ..self.state.borrow().clone() }
    }

    /// The IPA that a device's access to `iova` reaches, through the table or a TLB that was not flushed.
    pub fn reach(&self, iova: u64, is_write: bool) -> Option<u64> {
        let state = self.state.borrow();
        let page = iova & !(PAGE_SIZE - 1);
        let (ipa, direction) = state.table.get(&page).or_else(|| state.stale.get(&page))?;
        let wanted = if is_write { Direction::DeviceWrites } else { Direction::DeviceReads };
        (direction.number() & wanted.number() != 0).then_some(ipa + (iova - page))
    }

    /// Pages that devices may reach although they were unloaded.
    pub fn stale_pages(&self) -> usize {
        self.state.borrow().stale.len()
    }

    /// Pages that devices reach, through the table or a TLB that was not flushed.
    pub fn reachable_pages(&self) -> usize {
        let state = self.state.borrow();
        let pages: BTreeSet<_> = state.table.keys().chain(state.stale.keys()).collect();
        pages.len()
    }

    /// Live maps.
    pub fn maps(&self) -> usize {
        self.state.borrow().maps.len()
    }
}

impl State {
    fn count(&mut self, counter: Counter, by: u64) {
        *self.counters.entry(counter.number()).or_default() += by;
    }
}

impl Backend for Model {
    type Channel<'a> = ModelChannel<'a>;

    fn claim(&self, channel: u8) -> Result<ModelChannel<'_>, Error> {
        assert!(u64::from(channel) < CHANNELS, "the caller checks the number");
        if !self.claimed.borrow_mut().insert(channel) {
            return Err(Error::Busy);
        }
        Ok(ModelChannel::new(self, channel))
    }

    fn flags(&self) -> Flags {
        Flags::COHERENT
    }

    fn maps_max(&self) -> u64 {
        u64::try_from(self.maps_max).unwrap_or(u64::MAX)
    }

    fn window(&self) -> Window {
        Window { start: WINDOW_START, end: WINDOW_END, page: PAGE_SIZE }
    }

    fn counter(&self, counter: Counter) -> u64 {
        let state = self.state.borrow();
        match counter {
            Counter::Maps => u64::try_from(state.maps.len()).unwrap_or(u64::MAX),
            Counter::LeasedBytes => state.maps.values().map(|map| map.bytes).sum(),
            _ => state.counters.get(&counter.number()).copied().unwrap_or_default(),
        }
    }
}
