//! The tables of a VM's domains, and its streams as its virtio IOMMU acts on them.

use bulkhead_core::{
    addr::{AddrRange, Iova, Ipa, PAGE_SIZE},
    ids::{SmmuId, VmId, Vmid},
    ledger::VmPlan,
    stage2::Access,
    vplat::{self, DEVICES_MAX},
};
use bulkhead_dma::{
    FlushWitness,
    domain::{Arena, Domain, DomainConfig, MapError, Mapping, Note},
    flush::{Costs, FlushCounters, Mode, Policy},
    tree::Entry,
};
use bulkhead_vdev::virtio_iommu::{self as device, Domains, Failed, MapRefused, NoTables, Range, Reach, Splits};

use super::IommuError;
use crate::{
    arena::{Array, frames_for},
    dmamap::Walker,
    frames, lines, memory, smmu, sysreg,
    vm::Vm,
};

/// Table pages of a VM, for all of its domains: each takes one, one for each GiB that it uses, and one for each 2 MiB with
/// single pages.
pub const TABLES: usize = 160;

/// The domains of one VM.
pub struct Tables {
    arena: Arena<'static>,
    places: &'static mut [Option<Domain>],
    config: DomainConfig,
    vm: VmId,
    smmus: heapless::Vec<SmmuId, { smmu::SMMUS_MAX }>,
    has_ranges: bool,
    /// A domain was not flushed when it was taken away: its VMID is of no use any more, and the VM is to be quarantined.
    is_lost: bool,
}

impl Tables {
    /// Room for all tables.
    ///
    /// # Errors
    /// As [`VirtualIommu::new`](super::VirtualIommu::new).
    pub fn new(plan: &VmPlan, ram: AddrRange<Ipa>, (input_bits, output_bits): (u8, u8)) -> Result<Self, IommuError> {
        let mut smmus = heapless::Vec::new();
        let mut has_ranges = true;
        for smmu in plan.devices.iter().map(|device| device.grant.stream().smmu) {
            has_ranges &= smmu::with(smmu, |driver| driver.features().has_range_invalidation).unwrap_or(false);
            if !smmus.contains(&smmu) {
                // As many as the machine has at most.
                let _ = smmus.push(smmu);
            }
        }
        let vmid = Vmid::of_domain(plan.id, 0);
        let config = DomainConfig { ram, phys: plan.ram.start(), input_bits, output_bits, vmid };
        let (total, taken, _) = memory::usage();
        let places = frames_for::<Option<Domain>>(DEVICES_MAX);
        let refused = IommuError::Pool {
            needed: TABLES + frames_for::<Note>(TABLES) + places,
            left: total.saturating_sub(taken),
        };
        let (arena, places) = storage(plan.id).ok_or(refused)?;
        let mut tables = Self { arena, places, config, vm: plan.id, smmus, has_ranges, is_lost: false };
        // What no domain could be made of is refused now.
        let probe = tables.make(0)?;
        if let Ok(probe) = probe.retire([]).settle() {
            Domain::dismantle(probe, &mut tables.arena);
        }
        Ok(tables)
    }

    fn make(&mut self, place: usize) -> Result<Domain, bulkhead_dma::domain::DomainError> {
        let place = u8::try_from(place).unwrap_or(u8::MAX);
        let config = DomainConfig { vmid: Vmid::of_domain(self.vm, place), ..self.config };
        let policy = Policy::new(Mode::Auto, self.has_ranges, Costs::START);
        Domain::new(&config, policy, self.smmus.iter().copied(), self.has_ranges, &mut self.arena)
    }

    /// Domains that exist, table pages in use and in all.
    pub fn usage(&self) -> (usize, u32, u32) {
        let pages = self.arena.pages();
        (self.places.iter().flatten().count(), pages - self.arena.left(), pages)
    }

    /// What the flushes of a place's domain were.
    pub fn counters(&self) -> impl Iterator<Item = (Vmid, u64, FlushCounters)> + '_ {
        self.places.iter().flatten().map(|domain| (domain.config().vmid, domain.leaves(), domain.counters()))
    }

    /// Takes one domain away, flushed by every SMMU. False when that did not complete: its tables stay its own.
    fn take(&mut self, place: usize, vm: &Vm) -> bool {
        let Some(domain) = self.places.get_mut(place).and_then(Option::take) else { return true };
        let vmid = domain.config().vmid;
        let mut retired = domain.retire(self.smmus.iter().copied());
        for id in &self.smmus {
            match smmu::with(*id, |driver| driver.flush_vmid(vmid)) {
                Some(Ok(flushed)) => {
                    if let Err(problem) = retired.witness(&Witness(*id, flushed)) {
                        lines::problem(vm.id, vm.name(), format_args!(""), &problem);
                    }
                }
                Some(Err(problem)) => lines::problem(vm.id, vm.name(), format_args!(": smmu {}", id.0), &problem),
                None => (),
            }
        }
        match retired.settle() {
            Ok(flushed) => {
                Domain::dismantle(flushed, &mut self.arena);
                true
            }
            Err(kept) => {
                let _ = kept.quarantine();
                self.is_lost = true;
                false
            }
        }
    }

    /// Takes every domain away. False when a flush did not complete, now or before.
    pub fn take_down(&mut self, vm: &Vm) -> bool {
        // All, whatever becomes of the first.
        for place in 0..self.places.len() {
            let _ = self.take(place, vm);
        }
        !self.is_lost
    }
}

/// Table pages in a row, what is known of them, and places for domains; `None` when the pool does not have them.
fn storage(vm: VmId) -> Option<(Arena<'static>, &'static mut [Option<Domain>])> {
    let owner = frames::vm_use(vm);
    let phys = memory::take(TABLES, PAGE_SIZE, owner)?;
    let first: *const [Entry; 512] = crate::pointer::to(phys.as_u64());
    // SAFETY: the frames were taken from the pool for good, are mapped where they lie, zeroed, and reached by entries alone,
    // which are atomics.
    let tables: &'static [[Entry; 512]] = unsafe { core::slice::from_raw_parts(first, TABLES) };
    // SAFETY: nobody has filled it before, and nobody will again.
    let notes = unsafe { Array::new(TABLES, owner)?.fill(|| Note::EMPTY) };
    // SAFETY: as above.
    let places = unsafe { Array::new(DEVICES_MAX, owner)?.fill(|| None) };
    Some((Arena::new(tables, phys, notes), places))
}

/// A completed flush, and where.
struct Witness(SmmuId, smmu::Flushed);

impl FlushWitness for Witness {
    fn smmu(&self) -> SmmuId {
        self.0
    }
    fn vmid(&self) -> Vmid {
        self.1.vmid()
    }
}

/// What one access of the guest acts on.
pub struct Acting<'a> {
    /// Whose it is.
    pub vm: &'static Vm,
    /// Its domains.
    pub tables: &'a mut Tables,
}

impl Acting<'_> {
    /// Flushes what was unmapped in one domain.
    fn flush(&mut self, place: usize) -> Result<(), Failed> {
        let Tables { arena, places, smmus, .. } = &mut *self.tables;
        let Some(domain) = places.get_mut(place).and_then(Option::as_mut).filter(|domain| !domain.is_flushed()) else {
            return Ok(());
        };
        // Stores to the table come before the commands (DDI 0487, TLB maintenance).
        sysreg::dsb_ish();
        let vmid = domain.config().vmid;
        let mut walkers: heapless::Vec<Walker, { smmu::SMMUS_MAX }> =
            smmus.iter().map(|smmu| Walker::new(*smmu, vmid)).collect();
        let flushed = domain.flush(arena, &mut walkers);
        if let Some(switch) = domain.take_switch() {
            lines::switch(self.vm.id, self.vm.name(), format_args!(" vmid {}", vmid.as_u16()), &switch);
        }
        flushed.map_err(|problem| {
            lines::problem(self.vm.id, self.vm.name(), format_args!(""), &problem);
            Failed
        })
    }

    fn domain(&mut self, place: usize) -> Option<(&mut Domain, &mut Arena<'static>)> {
        let Tables { arena, places, .. } = &mut *self.tables;
        Some((places.get_mut(place)?.as_mut()?, arena))
    }

    fn map_step(&mut self, place: usize, mapping: &device::Mapping, done: u64) -> Result<u64, MapError> {
        let (domain, arena) = self.domain(place).ok_or(MapError::BadRange)?;
        let device::Range { first, last } = mapping.range;
        let mut access = Access::empty();
        access.set(Access::READ, mapping.is_readable);
        access.set(Access::WRITE, mapping.is_writable);
        let mapping = Mapping { first: Iova::new(first), bytes: last - first + 1, ipa: Ipa::new(mapping.ipa), access };
        domain.map(arena, &mapping, done)
    }
}

impl Domains for Acting<'_> {
    fn create(&mut self, place: usize) -> Result<(), NoTables> {
        if self.tables.is_lost {
            return Err(NoTables);
        }
        let domain = self.tables.make(place).map_err(|_| NoTables)?;
        *self.tables.places.get_mut(place).ok_or(NoTables)? = Some(domain);
        // The root's zeros come before the stream table entry that leads to it.
        sysreg::dsb_ish();
        Ok(())
    }

    fn destroy(&mut self, place: usize) -> Result<(), Failed> {
        if self.tables.take(place, self.vm) { Ok(()) } else { Err(Failed) }
    }

    fn attach(&mut self, endpoint: u32, reach: Reach) -> Result<(), Failed> {
        let mut devices = self.vm.devices().enumerate();
        let own = devices.find(|(place, _)| vplat::virtual_stream(*place) == endpoint);
        let (_, own) = own.ok_or(Failed)?;
        let config = match reach {
            Reach::Nothing => None,
            Reach::Ram => Some(self.vm.dma_config),
            Reach::Domain(place) => Some(self.domain(place).ok_or(Failed)?.0.config()),
        };
        let (id, stream) = (own.stream.smmu, own.stream.stream);
        let taken = smmu::flush_with(id, |driver| {
            if driver.find_stream(stream).is_some() {
                // In abort, and its translations dropped.
                let _ = driver.take_out(stream)?;
            }
            Ok(())
        });
        // By itself: others' flushes come in between.
        let put =
            |()| config.map_or(Ok(()), |config| smmu::flush_with(id, |driver| driver.attach_again(stream, &config)));
        taken.and_then(put).map_err(|problem| {
            let part = format_args!(": device {}", own.function);
            lines::problem(self.vm.id, self.vm.name(), part, &problem);
            Failed
        })
    }

    fn map(&mut self, place: usize, mapping: &device::Mapping, done: u64) -> Result<u64, MapRefused> {
        let mut mapped = self.map_step(place, mapping, done);
        if mapped == Err(MapError::Unflushed) {
            self.flush(place)?;
            mapped = self.map_step(place, mapping, done);
        }
        mapped.map_err(|error| match error {
            MapError::NotRam => MapRefused::NotRam,
            MapError::NoTables => MapRefused::NoTables(NoTables),
            MapError::Mapped | MapError::BadRange => MapRefused::Mapped,
            MapError::Unflushed => MapRefused::Failed(Failed),
        })
    }

    fn check_unmap(&mut self, place: usize, range: Range) -> Result<(), Splits> {
        let (domain, arena) = self.domain(place).ok_or(Splits)?;
        domain.check_unmap(arena, range.first, range.last).map_err(|_| Splits)
    }

    fn unmap(&mut self, place: usize, range: Range, from: u64) -> Option<u64> {
        let (domain, arena) = self.domain(place)?;
        domain.unmap(arena, from, range.last)
    }

    fn sync(&mut self) -> Result<(), Failed> {
        // Stores of mappings come before the doorbells of devices.
        sysreg::dsb_ish();
        (0..self.tables.places.len()).try_for_each(|place| self.flush(place))
    }
}
