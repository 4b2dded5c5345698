//! Base address registers: sizes, virtual values, and which of them are mapped.
//!
//! What is mapped depends on the registers alone, not on their history: functions and BARs are taken in order, and each
//! whose function decodes memory is mapped if it lies in the window and overlaps none that was taken before it.

use super::{BARS, Effect, config::Function};
use bulkhead_core::{
    addr::{AddrRange, Ipa, PAGE_SIZE, PhysAddr},
    vplat::{DEVICES_MAX, PCI_MEM_BASE, PCI_MEM_SIZE},
};
use heapless::Vec;

/// How many registers a BAR takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BarWidth {
    /// One register, below 4 GiB.
    Bits32,
    /// Two registers.
    Bits64,
}

/// Why a BAR cannot be given to a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[repr(u64)]
pub enum BarError {
    /// PCI has powers of two from 16 bytes on.
    #[error("BAR size {0:#x} is not a power of two of at least 16")]
    Size(u64),
    /// The BAR must start a page, and be aligned to its own size.
    #[error("BAR at {0:#x} is not aligned to its size and to a page")]
    Base(u64),
}

/// A physical memory BAR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bar {
    base: PhysAddr,
    size_bytes: u64,
    width: BarWidth,
    is_prefetchable: bool,
}

impl Bar {
    /// The BAR at `base` of `size_bytes` bytes, as its physical register was sized.
    ///
    /// A BAR smaller than a page is shown and mapped as a whole page: the caller makes sure that nothing else lives in
    /// that physical page.
    ///
    /// # Errors
    /// [`BarError`] for a size that PCI does not have, or a base that is not page-aligned.
    pub fn new(base: PhysAddr, size_bytes: u64, width: BarWidth, is_prefetchable: bool) -> Result<Self, BarError> {
        if !size_bytes.is_power_of_two() || size_bytes < 16 {
            return Err(BarError::Size(size_bytes));
        }
        let size_bytes = size_bytes.max(PAGE_SIZE);
        if !base.is_aligned(size_bytes) || AddrRange::new(base, size_bytes).is_none() {
            return Err(BarError::Base(base.as_u64()));
        }
        Ok(Self { base, size_bytes, width, is_prefetchable })
    }

    /// Where the physical BAR is.
    pub const fn base(self) -> PhysAddr {
        self.base
    }

    /// Size as the guest sees it: a power of two of at least a page.
    pub const fn size_bytes(self) -> u64 {
        self.size_bytes
    }

    /// How many registers it takes.
    pub const fn width(self) -> BarWidth {
        self.width
    }

    /// The read-only bits of its lower register: memory, type, prefetchable.
    pub(super) const fn flags(self) -> u32 {
        let width = match self.width {
            BarWidth::Bits32 => 0,
            BarWidth::Bits64 => 0b100,
        };
        width | if self.is_prefetchable { 0b1000 } else { 0 }
    }

    /// What of a written address sticks: the bits above the size, which is how sizing works.
    pub(super) const fn writable(self) -> u64 {
        let mask = !(self.size_bytes - 1);
        match self.width {
            BarWidth::Bits32 => mask & 0xffff_ffff,
            BarWidth::Bits64 => mask,
        }
    }
}

/// BARs of one VM at most.
const BARS_MAX: usize = BARS * DEVICES_MAX;

/// Where the BAR would be in the guest's space, if it can be there at all.
fn placed(bar: Bar, address: u64) -> Option<AddrRange<Ipa>> {
    let window = AddrRange::new(PCI_MEM_BASE, PCI_MEM_SIZE)?;
    let range = AddrRange::new(Ipa::new(address), bar.size_bytes)?;
    (range.is_aligned(PAGE_SIZE) && window.contains_range(range)).then_some(range)
}

/// Brings what is mapped in line with the registers: first everything that goes, then everything that comes.
pub(super) fn remap(functions: &mut [Function], apply: &mut dyn FnMut(Effect)) {
    let mut taken: Vec<AddrRange<Ipa>, BARS_MAX> = Vec::new();
    let mut wanted = [[None; BARS]; DEVICES_MAX];
    for (function, wanted) in functions.iter().zip(&mut wanted) {
        for ((bar, address), wanted) in function.bars().zip(wanted.iter_mut()) {
            let range = bar.filter(|_| function.decodes_memory()).and_then(|bar| placed(bar, address));
            if let Some(range) = range
                && !taken.iter().any(|other| other.overlaps(range))
                && taken.push(range).is_ok()
            {
                *wanted = Some(range);
            }
        }
    }
    for (place, (function, wanted)) in functions.iter_mut().zip(&wanted).enumerate() {
        for (mapped, &wanted) in function.mapped.iter_mut().zip(wanted) {
            if *mapped != wanted
                && let Some(old) = mapped.take()
            {
                apply(Effect::Unmap { function: place, ipa: old.start(), size_bytes: old.size_bytes() });
            }
        }
    }
    for (place, (function, wanted)) in functions.iter_mut().zip(&wanted).enumerate() {
        let bars: [Option<Bar>; BARS] = function.description().bars;
        for ((mapped, &wanted), bar) in function.mapped.iter_mut().zip(wanted).zip(bars) {
            if let (None, Some(new), Some(bar)) = (*mapped, wanted, bar) {
                *mapped = Some(new);
                let size_bytes = new.size_bytes();
                apply(Effect::Map { function: place, ipa: new.start(), phys: bar.base, size_bytes });
            }
        }
    }
}
