//! A virtio IOMMU (virtio 1.3, 5.13) behind the MMIO transport (4.2), as Linux's virtio-iommu drives it.
//!
//! For SMMUs without a stage 1 of the guest's: the guest asks for every mapping, and [`Domains`] keeps them in tables of
//! ours. A domain exists while an endpoint is attached to it; an endpoint without one reaches nothing, unless the guest
//! set `bypass`: then all of the VM's RAM, one to one, and nothing else.
//!
//! Whatever a guest puts in registers or memory, nothing here panics, waits or takes more than [`REQUESTS_MAX`] requests
//! and one bounded step of a long one; [`Next::More`] says that there is more to do. What is unmapped by requests is
//! flushed once, before the driver is told of any of them.

mod attach;
mod bytes;
mod chain;
mod config;
mod domains;
mod drain;
mod event;
mod probe;
mod queue;
mod request;
mod serve;
#[cfg(test)]
mod tests;
mod transport;

use bulkhead_core::vplat::DEVICES_MAX;
use heapless::Vec;

use self::{attach::Endpoint, drain::Pending, queue::Queue, transport::Transport};
pub use self::{
    config::Ability,
    domains::{Domains, Failed, MapRefused, Mapping, NoTables, Range, Reach, Splits},
    drain::REQUESTS_MAX,
    event::Fault,
    transport::MMIO_BYTES,
};

/// Whether a guest's store was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the store may have to be made again"]
pub enum Next {
    /// All of it.
    Done,
    /// There is more: the same store is to be made again, after interrupts and others had their turn.
    More,
}

/// What was done since the VM's start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// Requests answered.
    pub requests: u64,
    /// Of those, answered by another status than OK.
    pub refused: u64,
    /// Faults told to the guest.
    pub faults: u64,
    /// Faults for which the guest had no buffer.
    pub lost: u64,
}

/// The virtio IOMMU of one VM. Not locked: EL2 holds one lock around it.
#[derive(Debug)]
pub struct VirtioIommu {
    ability: Ability,
    transport: Transport,
    requests: Queue,
    events: Queue,
    /// Field `bypass` of the configuration: kept by a reset of the device.
    has_bypass: bool,
    endpoints: Vec<Endpoint, DEVICES_MAX>,
    /// The domains that exist, by their place in [`Domains`].
    domains: [Option<attach::Domain>; DEVICES_MAX],
    pending: Option<Pending>,
    tally: Tally,
}

impl VirtioIommu {
    /// As after the machine's reset, for the endpoints with these ids: all of them reach nothing.
    pub fn new(ability: Ability, endpoints: impl IntoIterator<Item = u32>) -> Self {
        Self {
            ability,
            transport: Transport::new(),
            requests: Queue::new(),
            events: Queue::new(),
            has_bypass: false,
            endpoints: endpoints.into_iter().take(DEVICES_MAX).map(Endpoint::new).collect(),
            domains: [const { None }; DEVICES_MAX],
            pending: None,
            tally: Tally::default(),
        }
    }

    /// Back to that: the VM boots again, and its domains are gone.
    pub fn reset(&mut self) {
        let ids: Vec<u32, DEVICES_MAX> = self.endpoints.iter().map(Endpoint::id).collect();
        *self = Self::new(self.ability, ids);
    }

    /// Level of the interrupt, to be passed to the virtual GIC after every call here.
    pub const fn irq_level(&self) -> bool {
        self.transport.interrupt != 0
    }

    /// What was done since the VM's start.
    pub const fn tally(&self) -> Tally {
        self.tally
    }
}
