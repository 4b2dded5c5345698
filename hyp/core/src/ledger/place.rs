//! Where a VM's RAM lies.

use thiserror::Error;

use super::{Inventory, Ledger};
use crate::{
    addr::{AddrRange, BLOCK_1G, BLOCK_2M, PhysAddr},
    bundle::Vm,
    name::Name,
};

/// Memory of the hypervisor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kept {
    /// What is there, as in "the hypervisor's image".
    pub what: &'static str,
    /// Where.
    pub range: AddrRange<PhysAddr>,
}

/// Why RAM cannot be placed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[repr(u64)]
pub enum PlaceError {
    /// Not on a 2 MiB boundary.
    #[error("memory at {0} is not on a 2 MiB boundary: move it, or leave its address out")]
    Unaligned(PhysAddr),
    /// Not wholly RAM.
    #[error("memory {0} is not all DRAM of the machine: move it, or leave its address out")]
    OutsideDram(AddrRange<PhysAddr>),
    /// Its end is past every address.
    #[error("memory of {size_bytes:#x} bytes at {start} is past the end of the address space: move it")]
    PastEnd {
        /// First address.
        start: PhysAddr,
        /// Bytes.
        size_bytes: u64,
    },
    /// Over memory of the hypervisor.
    #[error("memory {wanted} lies over {what} at {range}: move it, or leave its address out", what = .kept.what, range = .kept.range)]
    OverHypervisor {
        /// Where it should lie.
        wanted: AddrRange<PhysAddr>,
        /// What is there.
        kept: Kept,
    },
    /// Over memory that firmware keeps.
    #[error("memory {wanted} lies over memory that firmware keeps at {reserved}: move it, or leave its address out")]
    OverReserved {
        /// Where it should lie.
        wanted: AddrRange<PhysAddr>,
        /// What is there.
        reserved: AddrRange<PhysAddr>,
    },
    /// Over registers of an SMMU or of its counter groups, in a machine whose memory node covers them.
    #[error("memory {wanted} lies over registers of an smmu at {registers}: move it, or leave its address out")]
    OverRegisters {
        /// Where it should lie.
        wanted: AddrRange<PhysAddr>,
        /// What is there.
        registers: AddrRange<PhysAddr>,
    },
    /// Over another VM.
    #[error("memory {wanted} lies over that of vm {other} at {range}: move one, or leave its address out")]
    OverVm {
        /// Where it should lie.
        wanted: AddrRange<PhysAddr>,
        /// Who is there.
        other: Name,
        /// Where.
        range: AddrRange<PhysAddr>,
    },
    /// No free range is as large.
    #[error("memory of {wanted:#x} bytes does not fit: the largest free range has {largest:#x} bytes, give it less")]
    NoRoom {
        /// Bytes that are wanted.
        wanted: u64,
        /// Bytes of the largest free range, on 2 MiB boundaries.
        largest: u64,
    },
    /// More than the guest can address.
    #[error(
        "memory of {wanted:#x} bytes is past the {bits} address bits that a guest has on this machine: give it less"
    )]
    PastGuest {
        /// Bytes that are wanted.
        wanted: u64,
        /// Bits of a guest-physical address.
        bits: u8,
    },
}

/// Places the RAM of `vm`: where it must be, or else anywhere, on 1 GiB boundaries if that helps and is possible.
pub fn place(ledger: &Ledger, vm: &Vm, inventory: &Inventory<'_>) -> Result<AddrRange<PhysAddr>, PlaceError> {
    let size_bytes = vm.ram().size_bytes();
    if vm.ram().end().as_u64() > 1 << inventory.ipa_bits.min(63) {
        return Err(PlaceError::PastGuest { wanted: size_bytes, bits: inventory.ipa_bits });
    }
    let occupied = Occupied { ledger, inventory };
    if let Some(start) = vm.ram_phys() {
        return occupied.check(start, size_bytes);
    }
    let large = (size_bytes >= BLOCK_1G).then(|| occupied.find(size_bytes, BLOCK_1G)).flatten();
    let place = large.or_else(|| occupied.find(size_bytes, BLOCK_2M));
    place.ok_or_else(|| PlaceError::NoRoom { wanted: size_bytes, largest: occupied.largest_free() })
}

struct Occupied<'a> {
    ledger: &'a Ledger,
    inventory: &'a Inventory<'a>,
}

impl Occupied<'_> {
    fn ranges(&self) -> impl Iterator<Item = AddrRange<PhysAddr>> {
        let kept = self.inventory.kept.iter().map(|kept| kept.range);
        let reserved = self.inventory.machine.reserved.iter().map(|reserved| reserved.range);
        kept.chain(reserved).chain(self.registers()).chain(self.ledger.plans.iter().map(|plan| plan.ram))
    }

    /// Registers that decide what devices reach, or tell of it.
    fn registers(&self) -> impl Iterator<Item = AddrRange<PhysAddr>> {
        let machine = self.inventory.machine;
        let groups = machine.pmcgs.iter().flat_map(|group| [Some(group.registers), group.counters]).flatten();
        machine.smmus.iter().map(|smmu| smmu.registers).chain(groups)
    }

    fn check(&self, start: PhysAddr, size_bytes: u64) -> Result<AddrRange<PhysAddr>, PlaceError> {
        if !start.is_aligned(BLOCK_2M) {
            return Err(PlaceError::Unaligned(start));
        }
        let wanted = AddrRange::new(start, size_bytes).ok_or(PlaceError::PastEnd { start, size_bytes })?;
        let machine = self.inventory.machine;
        if !machine.memory.iter().any(|memory| memory.contains_range(wanted)) {
            return Err(PlaceError::OutsideDram(wanted));
        }
        if let Some(kept) = self.inventory.kept.iter().find(|kept| kept.range.overlaps(wanted)) {
            return Err(PlaceError::OverHypervisor { wanted, kept: *kept });
        }
        if let Some(reserved) = machine.reserved.iter().find(|reserved| reserved.range.overlaps(wanted)) {
            return Err(PlaceError::OverReserved { wanted, reserved: reserved.range });
        }
        if let Some(registers) = self.registers().find(|registers| registers.overlaps(wanted)) {
            return Err(PlaceError::OverRegisters { wanted, registers });
        }
        match self.ledger.plans.iter().find(|plan| plan.ram.overlaps(wanted)) {
            Some(plan) => Err(PlaceError::OverVm { wanted, other: plan.name, range: plan.ram }),
            None => Ok(wanted),
        }
    }

    /// The first free range of `size_bytes` bytes on a multiple of `alignment`.
    fn find(&self, size_bytes: u64, alignment: u64) -> Option<AddrRange<PhysAddr>> {
        let memory = &self.inventory.machine.memory;
        memory.iter().find_map(|memory| self.find_in(*memory, size_bytes, alignment))
    }

    fn find_in(&self, memory: AddrRange<PhysAddr>, size_bytes: u64, alignment: u64) -> Option<AddrRange<PhysAddr>> {
        let mut start = memory.start().align_up(alignment)?;
        loop {
            let candidate = AddrRange::new(start, size_bytes).filter(|range| memory.contains_range(*range))?;
            match self.ranges().find(|occupied| occupied.overlaps(candidate)) {
                // Past what is in the way: each turn passes at least one range.
                Some(occupied) => start = occupied.end().align_up(alignment)?,
                None => return Some(candidate),
            }
        }
    }

    /// Bytes of the largest free range on 2 MiB boundaries.
    fn largest_free(&self) -> u64 {
        let (mut fits, mut too_large) = (0, u64::MAX / BLOCK_2M);
        // Whatever fits, all smaller sizes fit too.
        while fits + 1 < too_large {
            let middle = fits + (too_large - fits) / 2;
            match self.find(middle * BLOCK_2M, BLOCK_2M) {
                Some(_) => fits = middle,
                None => too_large = middle,
            }
        }
        fits * BLOCK_2M
    }
}
