//! One VM's record, checked.

use super::{
    DeviceRecord, Dmamap, DmamapRecord, LOADS_MAX, LoadRecord, NestedFlush, PLACE_ANYWHERE, VmRecord, dma_mode,
    error::RecordError, vm_flags,
};
use crate::{
    addr::{AddrRange, BLOCK_2M, Ipa, PAGE_SIZE, PhysAddr},
    ids::{CpuId, PciFunction, VmId},
    name::Name,
    vplat::{DEVICES_MAX, IPA_BITS_MAX, RAM_BASE, VCPUS_MAX},
};

/// A VM of a bundle; that it exists says that its record holds together.
#[derive(Clone, Copy, Debug)]
pub struct Vm {
    id: VmId,
    name: Name,
    ram: AddrRange<Ipa>,
    record: VmRecord,
    dmamap: Option<Dmamap>,
    nested: Option<NestedFlush>,
}

impl Vm {
    /// Checks `record` against itself and against the bundle's `total` bytes, of which the first `records_end` are no blobs.
    pub(super) fn check(
        id: VmId,
        name: Name,
        record: VmRecord,
        records_end: u64,
        total: u64,
    ) -> Result<Self, RecordError> {
        let ram = ram_range(record.ram_bytes).ok_or(RecordError::BadRam(record.ram_bytes))?;
        if record.flags & !vm_flags::AUTOSTART != 0 {
            return Err(RecordError::UnknownFlags(record.flags));
        }
        if record.cpu_count == 0 || in_use(&record.cpus, record.cpu_count).is_none() {
            return Err(RecordError::BadCpuCount(record.cpu_count));
        }
        if in_use(&record.loads, record.load_count).is_none() {
            return Err(RecordError::TooManyLoads(record.load_count));
        }
        if in_use(&record.devices, record.device_count).is_none() {
            return Err(RecordError::TooManyDevices(record.device_count));
        }
        let mut vm = Self { id, name, ram, record, dmamap: None, nested: None };
        vm.check_cpus()?;
        vm.check_addresses()?;
        vm.check_loads(records_end, total)?;
        vm.check_devices()?;
        let mode = vm.check_mode()?;
        vm.dmamap = vm.check_dmamap(mode)?;
        vm.nested = vm.check_nested(mode)?;
        Ok(vm)
    }

    fn check_cpus(&self) -> Result<(), RecordError> {
        let cpus = in_use(&self.record.cpus, self.record.cpu_count).unwrap_or_default();
        for (place, cpu) in cpus.iter().enumerate() {
            if cpus.iter().take(place).any(|other| other == cpu) {
                return Err(RecordError::DuplicateCpu(*cpu));
            }
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<(), RecordError> {
        let entry = self.entry();
        if !self.ram.contains(entry) || !entry.is_aligned(4) {
            return Err(RecordError::BadEntry(entry, self.ram));
        }
        match self.dtb() {
            Some(dtb) if !self.ram.contains(dtb) => Err(RecordError::BadDtb(dtb, self.ram)),
            _ => Ok(()),
        }
    }

    fn check_loads(&self, records_end: u64, total: u64) -> Result<(), RecordError> {
        let mut ranges: heapless::Vec<AddrRange<Ipa>, LOADS_MAX> = heapless::Vec::new();
        for load in self.loads() {
            let LoadRecord { offset, size_bytes: size, ipa } = *load;
            let fits = offset.checked_add(size).is_some_and(|end| end <= total);
            if size == 0 || offset % PAGE_SIZE != 0 || offset < records_end || !fits {
                return Err(RecordError::LoadOutsideBundle { offset, size, total });
            }
            let outside = RecordError::LoadOutsideRam((*load).into(), self.ram);
            let range = AddrRange::new(Ipa::new(ipa), size).ok_or(outside)?;
            if !self.ram.contains_range(range) {
                return Err(outside);
            }
            if let Some(other) = ranges.iter().find(|other| other.overlaps(range)) {
                return Err(RecordError::LoadsOverlap(*other, range));
            }
            ranges.push(range).map_err(|_| RecordError::TooManyLoads(self.record.load_count))?;
        }
        Ok(())
    }

    fn check_devices(&self) -> Result<(), RecordError> {
        for (place, device) in self.devices().iter().enumerate() {
            let function = device.function();
            if self.devices().iter().take(place).any(|other| other.function() == function) {
                return Err(RecordError::DuplicateDevice(function));
            }
            if device.dma_mode > dma_mode::VIRTIO_IOMMU {
                return Err(RecordError::UnknownDmaMode(function, device.dma_mode));
            }
        }
        Ok(())
    }

    /// All devices of a VM share one table: it holds the VM's RAM, or what its maps hold.
    fn check_mode(&self) -> Result<u32, RecordError> {
        let mode = self.devices().first().map_or(dma_mode::IDENTITY, |device| device.dma_mode);
        if let Some(other) = self.devices().iter().find(|device| device.dma_mode != mode) {
            let first = self.devices().first().unwrap_or(other);
            return Err(RecordError::MixedDmaModes(first.function(), other.function()));
        }
        Ok(mode)
    }

    fn check_dmamap(&self, mode: u32) -> Result<Option<Dmamap>, RecordError> {
        if mode == dma_mode::DMAMAP {
            return Ok(Some(Dmamap::check(&self.record.dmamap)?));
        }
        if self.record.dmamap != DmamapRecord::default() {
            return Err(RecordError::DmamapUnused);
        }
        Ok(None)
    }

    fn check_nested(&self, mode: u32) -> Result<Option<NestedFlush>, RecordError> {
        let number = self.record.nested_flush;
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        match NestedFlush::ALL.get(place) {
            Some(flush) if mode == dma_mode::NESTED => Ok(Some(*flush)),
            Some(_) if number == 0 => Ok(None),
            Some(_) => Err(RecordError::NestedUnused),
            None => Err(RecordError::UnknownNestedFlush(number)),
        }
    }

    /// Its place in the bundle.
    pub const fn id(&self) -> VmId {
        self.id
    }

    /// Its name as text.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Its name as a value that messages can keep.
    pub const fn full_name(&self) -> Name {
        self.name
    }

    /// Physical CPUs of the vCPUs, in order.
    pub fn cpus(&self) -> impl ExactSizeIterator<Item = CpuId> + '_ {
        in_use(&self.record.cpus, self.record.cpu_count).unwrap_or_default().iter().map(|&cpu| CpuId(cpu))
    }

    /// RAM as the guest sees it, on 2 MiB boundaries.
    pub const fn ram(&self) -> AddrRange<Ipa> {
        self.ram
    }

    /// Where the RAM must lie, or `None` when the hypervisor places it.
    pub fn ram_phys(&self) -> Option<PhysAddr> {
        (self.record.ram_phys != PLACE_ANYWHERE).then_some(PhysAddr::new(self.record.ram_phys))
    }

    /// Where vCPU 0 starts.
    pub const fn entry(&self) -> Ipa {
        Ipa::new(self.record.entry_ipa)
    }

    /// The guest's device tree, which vCPU 0 finds in x0.
    pub fn dtb(&self) -> Option<Ipa> {
        (self.record.dtb_ipa != 0).then_some(Ipa::new(self.record.dtb_ipa))
    }

    /// Whether it starts at boot.
    pub const fn is_autostart(&self) -> bool {
        self.record.flags & vm_flags::AUTOSTART != 0
    }

    /// What is copied into its RAM before each boot.
    pub fn loads(&self) -> &[LoadRecord] {
        in_use(&self.record.loads, self.record.load_count).unwrap_or_default()
    }

    /// Its DMA maps; `None` for a VM whose devices reach its RAM as it is.
    pub const fn dmamap(&self) -> Option<Dmamap> {
        self.dmamap
    }

    /// What the invalidations of its own stage 1 become; `None` for a VM without a virtual SMMU.
    pub const fn nested(&self) -> Option<NestedFlush> {
        self.nested
    }

    /// Whether its devices are behind a virtio IOMMU.
    pub fn has_virtio_iommu(&self) -> bool {
        self.devices().first().is_some_and(|device| device.dma_mode == dma_mode::VIRTIO_IOMMU)
    }

    /// Passed-through devices, in order.
    pub fn devices(&self) -> &[DeviceRecord] {
        in_use(&self.record.devices, self.record.device_count).unwrap_or_default()
    }
}

impl DeviceRecord {
    /// The function that is passed through.
    pub const fn function(&self) -> PciFunction {
        PciFunction::from_routing_id(self.segment, self.routing_id)
    }
}

fn ram_range(ram_bytes: u64) -> Option<AddrRange<Ipa>> {
    let ram = AddrRange::new(RAM_BASE, ram_bytes)?;
    let is_inside = ram.end().as_u64() <= 1 << IPA_BITS_MAX;
    (is_inside && ram.is_aligned(BLOCK_2M)).then_some(ram)
}

fn in_use<T>(entries: &[T], count: u32) -> Option<&[T]> {
    const { assert!(VCPUS_MAX <= 8 && DEVICES_MAX <= 8) };
    entries.get(..usize::try_from(count).ok()?)
}
