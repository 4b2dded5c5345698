//! How a VM's DMA maps are kept: strategy, flush policy, and what they may take.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::error::DmamapFault;

/// Most maps of a VM.
pub const MAPS_MAX: u32 = 16_384;
/// Most leaf tables of a VM: 512 of them hold 1 GiB of leases.
pub const TABLES_MAX: u32 = 512;
/// Most pages that a deferred flush may leave behind it.
pub const DEFERRED_PAGES_MAX: u32 = 4096;
/// Longest time that a deferred flush may be put off, in milliseconds.
pub const DEFERRED_MS_MAX: u32 = 100;

/// The DMA maps of one VM; all zero for a VM without.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DmamapRecord {
    /// A place in [`Strategy::ALL`].
    pub strategy: u32,
    /// A place in [`Flush::NAMES`].
    pub flush: u32,
    /// Most maps at a time.
    pub maps: u32,
    /// Most leaf tables at a time, a page each.
    pub tables: u32,
    /// With [`Flush::Deferred`]: unmapped pages that may wait for their flush; else 0.
    pub deferred_pages: u32,
    /// With [`Flush::Deferred`]: milliseconds that they may wait; else 0.
    pub deferred_ms: u32,
}

/// How IOVA is found for a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strategy {
    /// A lease at create.
    Reserve,
    /// A lease at each load.
    PerLoad,
    /// A lease for each segment of a load.
    PerSegment,
    /// Leases at each load, from per-CPU magazines.
    Magazine,
    /// IOVA = IPA where nobody has it.
    OneToOne,
    /// Fixed slots.
    Bitmap,
}

impl Strategy {
    /// Every strategy, by the number that a record has.
    pub const ALL: [Self; 6] =
        [Self::Reserve, Self::PerLoad, Self::PerSegment, Self::Magazine, Self::OneToOne, Self::Bitmap];

    /// Its name in a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reserve => "reserve",
            Self::PerLoad => "per-load",
            Self::PerSegment => "per-segment",
            Self::Magazine => "magazine",
            Self::OneToOne => "one-to-one",
            Self::Bitmap => "bitmap",
        }
    }
}

/// What clears the SMMU's TLB after pages were unmapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flush {
    /// What costs least, as the stream behaves.
    Auto,
    /// Page by page.
    Page,
    /// Ranges.
    Range,
    /// All of the VM's translations.
    Context,
    /// All of them, but later: not strict.
    Deferred {
        /// Pages that may wait.
        pages: u32,
        /// Milliseconds that they may wait.
        ms: u32,
    },
}

impl Flush {
    /// Names in a manifest, by the number that a record has.
    pub const NAMES: [&'static str; 5] = ["auto", "page", "range", "context", "deferred"];

    /// Its name in a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => Self::NAMES[0],
            Self::Page => Self::NAMES[1],
            Self::Range => Self::NAMES[2],
            Self::Context => Self::NAMES[3],
            Self::Deferred { .. } => Self::NAMES[4],
        }
    }

    /// Whether a page is never used again before the SMMU has forgotten it.
    pub const fn is_strict(self) -> bool {
        !matches!(self, Self::Deferred { .. })
    }
}

/// The DMA maps of one VM, checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dmamap {
    /// How IOVA is found.
    pub strategy: Strategy,
    /// How the TLB is cleared.
    pub flush: Flush,
    /// Most maps at a time.
    pub maps: u32,
    /// Most leaf tables at a time.
    pub tables: u32,
}

impl Dmamap {
    /// Checks a record.
    ///
    /// # Errors
    /// A number that is out of its range, or that means nothing here.
    pub fn check(record: &DmamapRecord) -> Result<Self, DmamapFault> {
        let place = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let strategy = Strategy::ALL.get(place(record.strategy)).copied();
        let strategy = strategy.ok_or(DmamapFault::UnknownStrategy(record.strategy))?;
        let in_range = |key, value: u32, max| match value {
            1.. if value <= max => Ok(value),
            _ => Err(DmamapFault::OutOfRange { key, value, max }),
        };
        let (pages, ms) = (record.deferred_pages, record.deferred_ms);
        let is_deferred = record.flush == 4;
        if !is_deferred && (pages, ms) != (0, 0) {
            return Err(DmamapFault::NotDeferred { pages, ms });
        }
        let flush = match record.flush {
            0 => Flush::Auto,
            1 => Flush::Page,
            2 => Flush::Range,
            3 => Flush::Context,
            4 => Flush::Deferred {
                pages: in_range("deferred_pages", pages, DEFERRED_PAGES_MAX)?,
                ms: in_range("deferred_ms", ms, DEFERRED_MS_MAX)?,
            },
            other => return Err(DmamapFault::UnknownFlush(other)),
        };
        Ok(Self {
            strategy,
            flush,
            maps: in_range("maps", record.maps, MAPS_MAX)?,
            tables: in_range("tables", record.tables, TABLES_MAX)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{DEFERRED_MS_MAX, Dmamap, DmamapRecord, Flush, MAPS_MAX, Strategy, TABLES_MAX};
    use crate::bundle::DmamapFault;

    const GOOD: DmamapRecord =
        DmamapRecord { strategy: 0, flush: 0, maps: 1024, tables: 64, deferred_pages: 0, deferred_ms: 0 };

    /// Would miss: two tables of names of which one was put in another order.
    #[test]
    fn numbers_and_names_agree() {
        for (number, strategy) in (0..).zip(Strategy::ALL) {
            assert_eq!(Dmamap::check(&DmamapRecord { strategy: number, ..GOOD }).expect("good").strategy, strategy);
        }
        for (number, name) in (0..).zip(Flush::NAMES) {
            let deferred = u32::from(number == 4);
            let record = DmamapRecord { flush: number, deferred_pages: deferred, deferred_ms: deferred, ..GOOD };
            let flush = Dmamap::check(&record).expect("good").flush;
            assert_eq!((flush.name(), flush.is_strict()), (name, number != 4));
        }
    }

    /// Would miss: a bundle that makes the hypervisor carve up more than its pool, or a window without a bound.
    #[test]
    fn refuses_each_bad_number() {
        let fault = |change: fn(&mut DmamapRecord)| {
            let mut record = GOOD;
            change(&mut record);
            Dmamap::check(&record).expect_err("bad")
        };
        assert_eq!(fault(|r| r.strategy = 6), DmamapFault::UnknownStrategy(6));
        assert_eq!(fault(|r| r.flush = 5), DmamapFault::UnknownFlush(5));
        let out = |key, value, max| DmamapFault::OutOfRange { key, value, max };
        assert_eq!(fault(|r| r.maps = 0), out("maps", 0, MAPS_MAX));
        assert_eq!(fault(|r| r.maps = MAPS_MAX + 1), out("maps", MAPS_MAX + 1, MAPS_MAX));
        assert_eq!(fault(|r| r.tables = u32::MAX), out("tables", u32::MAX, TABLES_MAX));
        assert_eq!(fault(|r| r.deferred_ms = 7), DmamapFault::NotDeferred { pages: 0, ms: 7 });
        assert_eq!(fault(|r| (r.flush, r.deferred_pages) = (4, 1)), out("deferred_ms", 0, DEFERRED_MS_MAX));
    }
}
