//! A ring's entries, done on a channel's maps.
//!
//! What a driver waits for at every packet, in a crate of its own: a function is compiled as its crate is, and this one
//! is compiled for speed, while the hypervisor around it is compiled for size.
#![no_std]
#![forbid(unsafe_code)]

mod error;

use core::sync::atomic::AtomicU64;

use bulkhead_abi::{Direction, Error, Handle, Segment};
use bulkhead_core::addr::{Ipa, PAGE_SIZE};
use bulkhead_dma::map::{self, Channel, LoadError};
use bulkhead_vdev::dmamap::{Entries, Maps, Refusal};

pub use error::load_error;

/// A channel's maps, and what was done with them.
#[derive(Debug)]
pub struct Ways<'a, 't> {
    channel: &'a mut Channel<'t>,
    is_strict: bool,
    done: Loads,
}

/// What loads came to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Loads {
    /// Loads.
    pub loads: u64,
    /// Their pages.
    pub pages: u64,
}

/// Does the entries that are left on the maps of `channel`, up to one that takes more than them: the space, or, where
/// flushes are not `is_strict`, a flush that is due first.
#[inline(never)]
pub fn run(channel: &mut Channel<'_>, entries: &mut Entries<'_, AtomicU64>, is_strict: bool) -> Loads {
    let mut ways = Ways { channel, is_strict, done: Loads::default() };
    entries.each(&mut ways);
    ways.done
}

/// The guest's direction as maps know it.
pub const fn direction(direction: Direction) -> map::Direction {
    match direction {
        Direction::DeviceReads => map::Direction::DeviceReads,
        Direction::DeviceWrites => map::Direction::DeviceWrites,
        Direction::Both => map::Direction::Both,
    }
}

impl Maps for Ways<'_, '_> {
    #[inline]
    fn load<const N: usize>(
        &mut self,
        map: Handle,
        towards: Direction,
        segments: [Segment; N],
    ) -> Result<[u64; N], Refusal> {
        let (handle, towards) = (map::Handle::from_u64(map.register()), direction(towards));
        if let [only] = segments.as_slice()
            && let Some(iova) = self.channel.load_one(handle, towards, Ipa::new(only.ipa), only.bytes)
        {
            self.done.loads = self.done.loads.wrapping_add(1);
            // What was loaded lies in the VM's RAM.
            let end = (only.ipa % PAGE_SIZE).wrapping_add(only.bytes).wrapping_add(PAGE_SIZE - 1);
            self.done.pages = self.done.pages.wrapping_add(end / PAGE_SIZE);
            return Ok([iova.get(); N]);
        }
        let mut own = segments.map(|segment| map::Segment::new(Ipa::new(segment.ipa), segment.bytes));
        match self.channel.load(handle, towards, &mut own) {
            Ok(pages) => {
                self.done.loads = self.done.loads.wrapping_add(1);
                self.done.pages = self.done.pages.wrapping_add(pages.into());
                Ok(own.map(|segment| segment.iova.as_u64()))
            }
            Err(problem) => Err(self.refusal(problem, &own)),
        }
    }

    #[inline]
    fn unload(&mut self, map: Handle) -> Result<(), Refusal> {
        let unloaded = self.channel.unload(map::Handle::from_u64(map.register()));
        unloaded.map_err(|_| Refusal::Error(Error::NoMap))
    }
}

impl Ways<'_, '_> {
    #[cold]
    #[inline(never)]
    fn refusal(&self, problem: LoadError, segments: &[map::Segment]) -> Refusal {
        match problem {
            LoadError::NeedsSpace => Refusal::Elsewhere,
            LoadError::Unflushed if !self.is_strict => Refusal::Elsewhere,
            _ => Refusal::Error(load_error(problem, segments)),
        }
    }
}
