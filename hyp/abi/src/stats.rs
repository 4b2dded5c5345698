//! Counters of a VM's DMA maps.

/// Counters that one STATS call returns.
pub const STATS_PER_CALL: u64 = 3;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A counter; its number is its place in this list, from 0. All count from the VM's start.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u64)]
        pub enum Counter {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Counter {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),+];
        }
    };
}

counters! {
    /// Maps that live now.
    Maps,
    /// Bytes of IOVA space that are leased now.
    LeasedBytes,
    /// Leaf table pages in use now.
    Tables,
    /// Maps created.
    Creates,
    /// Maps destroyed.
    Destroys,
    /// Loads.
    Loads,
    /// Unloads of loaded maps.
    Unloads,
    /// Pages loaded, together.
    Pages,
    /// Table entries stored.
    Stores,
    /// Invalidation commands for a page.
    PageCommands,
    /// Invalidation commands for a range.
    RangeCommands,
    /// Invalidation commands for all of the VM's translations.
    ContextCommands,
    /// CMD_SYNCs, each of which ends a batch.
    Syncs,
    /// Changes of the flush policy.
    Switches,
    /// Flushes that were not confirmed in time.
    Timeouts,
    /// Calls of this interface.
    Calls,
    /// RING_RUNs.
    RingRuns,
    /// Ring entries consumed.
    RingEntries,
    /// Nanoseconds that calls of this interface spent in the hypervisor.
    CallNs,
    /// The longest of them, in nanoseconds.
    CallNsMax,
    /// Pages that unloads of sampled maps took out; 0 where the hypervisor samples none. It samples a part of the maps,
    /// where the SMMU sets access flags and no counter tells of its TLB.
    SampledPages,
    /// Of those, pages that a device has reached, as their access flags say. An SMMU may set a flag for an access that
    /// it foresees, and one for an access just before the unload may come too late: a sample, no proof.
    TouchedPages,
}

impl Counter {
    /// The counter with this number.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// The number.
    pub const fn number(self) -> u64 {
        self as u64
    }
}
