//! Ids of things: CPUs, VMs, streams, PCI functions, interrupts.

use core::{fmt, num::NonZeroU16};

use crate::vplat::{DEVICES_MAX, VMS_MAX};

/// A CPU by its place among the enabled `cpu` nodes of the device tree, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CpuId(pub u8);

impl CpuId {
    /// The place as an array index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpu{}", self.0)
    }
}

/// Affinity fields of MPIDR_EL1 (DDI 0487): Aff3 in bits 39:32, Aff2..Aff0 in 23:0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mpidr(u64);

impl Mpidr {
    const AFFINITY: u64 = 0xff_00ff_ffff;

    /// Keeps the affinity fields of `value` and drops the rest (U, MT, RES1).
    pub const fn new(value: u64) -> Self {
        Self(value & Self::AFFINITY)
    }

    /// The affinity fields in their MPIDR_EL1 places.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Affinity as GICR_TYPER has it in its upper word: Aff3.Aff2.Aff1.Aff0, one byte each.
    pub const fn packed(self) -> u32 {
        let [_, _, _, aff3, _, aff2, aff1, aff0] = self.0.to_be_bytes();
        u32::from_be_bytes([aff3, aff2, aff1, aff0])
    }
}

/// A VM by its place in the manifest, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VmId(pub u8);

impl VmId {
    /// The place as an array index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Tag of a VM's entries in the TLBs of CPUs and SMMUs. Zero is nobody's: the reset value must not name a VM.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Vmid(NonZeroU16);

impl Vmid {
    /// `None` for 0.
    pub const fn new(value: u16) -> Option<Self> {
        match NonZeroU16::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The VMID of a VM: its place plus one.
    pub const fn of(vm: VmId) -> Self {
        Self(NonZeroU16::MIN.saturating_add(vm.0 as u16))
    }

    /// The VMID of the domain in a place of a VM's virtio IOMMU: past those of all VMs.
    pub const fn of_domain(vm: VmId, place: u8) -> Self {
        const VMS: u16 = low_half(VMS_MAX);
        const DEVICES: u16 = low_half(DEVICES_MAX);
        let domains = vm.0 as u16 * DEVICES + place as u16;
        Self(NonZeroU16::MIN.saturating_add(VMS.saturating_add(domains)))
    }

    /// The number, 1 to 65,535.
    pub const fn as_u16(self) -> u16 {
        self.0.get()
    }
}

/// A number that is small.
const fn low_half(number: usize) -> u16 {
    let [low, high, ..] = number.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// An SMMU by its place in the device tree, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SmmuId(pub u8);

/// A StreamID: what the SMMU sees of who sent a transaction (IHI 0070 3.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub u32);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A stream of the machine: StreamIDs of two SMMUs may be the same number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamKey {
    /// The SMMU.
    pub smmu: SmmuId,
    /// The stream behind it.
    pub stream: StreamId,
}

/// A PCI function: segment (the host bridge), bus, device, function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciFunction {
    segment: u16,
    routing_id: u16,
}

impl PciFunction {
    /// `None` when `device` is above 31 or `function` above 7.
    pub const fn new(segment: u16, bus: u8, device: u8, function: u8) -> Option<Self> {
        if device > 31 || function > 7 {
            return None;
        }
        let routing_id = (bus as u16) << 8 | (device as u16) << 3 | function as u16;
        Some(Self { segment, routing_id })
    }

    /// The function with this Routing ID (bus 15:8, device 7:3, function 2:0).
    pub const fn from_routing_id(segment: u16, routing_id: u16) -> Self {
        Self { segment, routing_id }
    }

    /// PCI segment group, which is the host bridge's place in the device tree.
    pub const fn segment(self) -> u16 {
        self.segment
    }
    /// Routing ID, also called requester id: bus 15:8, device 7:3, function 2:0.
    pub const fn routing_id(self) -> u16 {
        self.routing_id
    }
    /// Bus number.
    pub const fn bus(self) -> u8 {
        self.routing_id.to_le_bytes()[1]
    }
    /// Device number, 0 to 31.
    pub const fn device(self) -> u8 {
        self.routing_id.to_le_bytes()[0] >> 3
    }
    /// Function number, 0 to 7.
    pub const fn function(self) -> u8 {
        self.routing_id.to_le_bytes()[0] & 7
    }
}

impl fmt::Display for PciFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bus, device, function) = (self.bus(), self.device(), self.function());
        write!(f, "{:04x}:{bus:02x}:{device:02x}.{function}", self.segment)
    }
}

impl fmt::Debug for PciFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An interrupt as the GIC numbers it: 0-15 SGI, 16-31 PPI, 32-1019 SPI (IHI 0069 2.2.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IntId(pub u32);

impl IntId {
    /// First shared peripheral interrupt.
    pub const SPI_BASE: u32 = 32;

    /// Whether this is a shared peripheral interrupt.
    pub const fn is_spi(self) -> bool {
        self.0 >= Self::SPI_BASE && self.0 < 1020
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{DEVICES_MAX, Mpidr, PciFunction, VMS_MAX, VmId, Vmid};

    /// Would miss: two tables under one tag, or a tag that an SMMU of 8 bits does not have.
    #[test]
    fn every_vm_and_every_domain_has_a_vmid_of_its_own() {
        let vms = || (0..VMS_MAX).map(|vm| VmId(u8::try_from(vm).expect("few")));
        let domains = |vm| (0..DEVICES_MAX).map(move |place| Vmid::of_domain(vm, u8::try_from(place).expect("few")));
        let all: BTreeSet<_> = vms().map(Vmid::of).chain(vms().flat_map(domains)).collect();
        assert_eq!(all.len(), VMS_MAX * (DEVICES_MAX + 1));
        assert!(all.iter().all(|vmid| vmid.as_u16() < 256));
    }

    /// Misses no field that lands in another's place.
    #[test]
    fn splits_routing_ids_and_affinities() {
        let function = PciFunction::new(1, 0xab, 31, 5).expect("in range");
        assert_eq!(function.routing_id(), 0xabfd);
        assert_eq!((function.bus(), function.device(), function.function()), (0xab, 31, 5));
        assert_eq!(std::format!("{function}"), "0001:ab:1f.5");
        assert_eq!(PciFunction::new(0, 0, 32, 0), None);
        assert_eq!(Mpidr::new(0xff12_8134_5678).packed(), 0x1234_5678);
    }
}
