//! Entries of tables that an SMMU walks while CPUs store to them.

#[cfg(not(all(test, feature = "model")))]
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

#[cfg(all(test, feature = "model"))]
use loom::sync::atomic::AtomicU64;

use bulkhead_core::addr::PhysAddr;

#[cfg(test)]
use super::tally;

/// A descriptor that maps nothing.
pub const ZERO: u64 = 0;

/// One descriptor: 64-bit stores and loads that are never torn. A barrier (`dsb ishst`) before the batch's doorbell
/// orders them for the SMMU; where the SMMU's walks are not coherent, the platform cleans the lines before that.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Entry(AtomicU64);

impl Entry {
    /// An entry with this value.
    #[cfg(not(all(test, feature = "model")))]
    pub const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// An entry with this value.
    #[cfg(all(test, feature = "model"))]
    pub fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// An entry that no table has, and nobody stores to.
    #[cfg(not(all(test, feature = "model")))]
    pub(crate) fn nobodys() -> &'static Self {
        static NOBODYS: Entry = Entry::new(ZERO);
        &NOBODYS
    }

    /// An entry that no table has, and nobody stores to.
    #[cfg(all(test, feature = "model"))]
    pub(crate) fn nobodys() -> &'static Self {
        std::boxed::Box::leak(std::boxed::Box::new(Self::new(ZERO)))
    }

    /// Stores a descriptor.
    #[inline]
    pub fn store(&self, value: u64) {
        #[cfg(test)]
        tally::note(|tally| tally.stores += 1);
        self.0.store(value, Relaxed);
    }

    /// What it holds.
    #[inline]
    pub fn load(&self) -> u64 {
        #[cfg(test)]
        tally::note(|tally| tally.loads += 1);
        self.0.load(Relaxed)
    }

    /// Stores a descriptor, and yields what was there, in one step.
    pub fn exchange(&self, value: u64) -> u64 {
        #[cfg(test)]
        tally::note(|tally| tally.exchanges += 1);
        self.0.swap(value, Relaxed)
    }

    /// Replaces `old` by `new`, or yields what is there instead.
    pub fn replace(&self, old: u64, new: u64) -> Result<(), u64> {
        #[cfg(test)]
        tally::note(|tally| tally.exchanges += 1);
        self.0.compare_exchange(old, new, Relaxed, Relaxed).map(|_| ())
    }
}

/// A page of descriptors.
#[derive(Clone, Copy, Debug)]
pub struct Table<'t> {
    /// The descriptors.
    pub entries: &'t [Entry; 512],
    /// Where an SMMU finds them.
    pub phys: PhysAddr,
}

/// Where tables come from: a pool, a CPU's own where it can, with the VM's quota.
pub trait TableSource<'t> {
    /// A table of zeros.
    fn take(&mut self) -> Option<Table<'t>>;
    /// Takes a table back. No SMMU can reach it any more. Its entries are what they are: leaf tables come back zeroed.
    fn give(&mut self, table: Table<'t>);
}
