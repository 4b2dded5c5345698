//! What is wrong with a bundle, with the value and the remedy.

use thiserror::Error;

use super::{LoadRecord, VERSION};
use crate::{
    addr::{AddrRange, Ipa},
    ids::PciFunction,
    name::Name,
    vplat::{DEVICES_MAX, VCPUS_MAX, VMS_MAX},
};

/// Why a file is no bundle that can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[repr(u64)]
pub enum BundleError {
    /// The first eight bytes are not [`super::MAGIC`].
    #[error("bundle starts with {0:#018x}, not BULKHEAD: pass the file that `pack` wrote as the initrd")]
    BadMagic(u64),
    /// Another format version.
    #[error("bundle has format version {0}, this hypervisor reads {VERSION}: pack it again with the same release")]
    BadVersion(u32),
    /// Fewer bytes are present than are declared or needed.
    #[error("bundle is truncated: {present} bytes of {declared} are present: copy it again")]
    Truncated {
        /// Bytes that the header declares, or that a header needs.
        declared: u64,
        /// Bytes that are there.
        present: u64,
    },
    /// The checksum does not hold.
    #[error("bundle has checksum {actual:#018x}, its header says {expected:#018x}: copy it or pack it again")]
    BadChecksum {
        /// From the header.
        expected: u64,
        /// Of the bytes.
        actual: u64,
    },
    /// No VM or too many.
    #[error("bundle has {0} VMs: pack one with 1 to {VMS_MAX}")]
    BadVmCount(u32),
    /// Bits that this version does not know.
    #[error("bundle has unknown flags {0:#x}: pack it again with the same release")]
    UnknownFlags(u32),
    /// A name that is empty or holds another character.
    #[error("vm {0} of the bundle has no name of [a-z0-9-]: name it in the manifest")]
    BadName(u8),
    /// Two VMs of one name.
    #[error("two VMs of the bundle are named {0}: rename one")]
    DuplicateName(Name),
    /// Something about one VM.
    #[error("vm {name}: {fault}")]
    Vm {
        /// Whose record it is.
        name: Name,
        /// What is wrong.
        fault: RecordError,
    },
}

/// What is wrong with one VM's record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[repr(u64)]
pub enum RecordError {
    /// No vCPU or too many.
    #[error("has {0} cpus: give it 1 to {VCPUS_MAX}")]
    BadCpuCount(u32),
    /// One physical CPU for two vCPUs.
    #[error("cpu {0} is given twice: a vCPU needs a CPU of its own")]
    DuplicateCpu(u8),
    /// Bits that this version does not know.
    #[error("has unknown flags {0:#x}: pack the bundle again with the same release")]
    UnknownFlags(u32),
    /// RAM that is zero, past the guest's address space or no multiple of 2 MiB.
    #[error("memory of {0:#x} bytes: give it a multiple of 2 MiB, at most 511 GiB")]
    BadRam(u64),
    /// vCPU 0 starts outside of RAM or between instructions.
    #[error("entry {0} is not a word of its RAM {1}: load the kernel inside it")]
    BadEntry(Ipa, AddrRange<Ipa>),
    /// The DTB's address is not in RAM.
    #[error("device tree at {0} is not in its RAM {1}: load it inside")]
    BadDtb(Ipa, AddrRange<Ipa>),
    /// Too many loads.
    #[error("has {0} loads, at most {max} are possible", max = super::LOADS_MAX)]
    TooManyLoads(u32),
    /// Too many devices.
    #[error("has {0} devices: give it at most {DEVICES_MAX}")]
    TooManyDevices(u32),
    /// Bytes of a load that the bundle does not have, or not on a page boundary, or none.
    #[error(
        "load of {size:#x} bytes at offset {offset:#x} is empty, off a page boundary or outside of the bundle of {total:#x} bytes: pack it again"
    )]
    LoadOutsideBundle {
        /// Offset in the bundle.
        offset: u64,
        /// Bytes of the load.
        size: u64,
        /// Bytes of the bundle.
        total: u64,
    },
    /// A load that does not fit where it should go.
    #[error("load of {size:#x} bytes at {ipa:#x} does not fit in its RAM {ram}: give it more memory", size = .0.size_bytes, ipa = .0.ipa, ram = .1)]
    LoadOutsideRam(LoadRecordKey, AddrRange<Ipa>),
    /// Two loads over each other.
    #[error("loads {0} and {1} overlap: give it more memory or other addresses")]
    LoadsOverlap(AddrRange<Ipa>, AddrRange<Ipa>),
    /// One device twice.
    #[error("device {0} is given twice: list it once")]
    DuplicateDevice(PciFunction),
    /// A DMA mode that this version does not have.
    #[error("device {0} has dma mode {1}: use dma = \"identity\", \"dmamap\", \"nested\" or \"virtio-iommu\"")]
    UnknownDmaMode(PciFunction, u32),
    /// Two DMA modes in one VM: its devices share one table.
    #[error("devices {0} and {1} have different dma modes: give all devices of a vm one")]
    MixedDmaModes(PciFunction, PciFunction),
    /// Its DMA maps.
    #[error("dmamap: {0}")]
    Dmamap(#[from] DmamapFault),
    /// Settings of DMA maps, which no device uses.
    #[error("has settings of dma maps, but no device with dma = \"dmamap\": leave [vm.dmamap] out")]
    DmamapUnused,
    /// A flush policy of a virtual SMMU that this version does not have.
    #[error("nested flush {0} is unknown: pack the bundle again with the same release")]
    UnknownNestedFlush(u32),
    /// Settings of a virtual SMMU, which no device uses.
    #[error("has settings of a virtual smmu, but no device with dma = \"nested\": leave [vm.nested] out")]
    NestedUnused,
}

/// What is wrong with the settings of a VM's DMA maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[repr(u64)]
pub enum DmamapFault {
    /// A strategy that this version does not have.
    #[error("strategy {0} is unknown: pack the bundle again with the same release")]
    UnknownStrategy(u32),
    /// A flush policy that this version does not have.
    #[error("flush {0} is unknown: pack the bundle again with the same release")]
    UnknownFlush(u32),
    /// A number that is zero or too large.
    #[error("{key} is {value}: give 1 to {max}")]
    OutOfRange {
        /// Its key in the manifest.
        key: &'static str,
        /// Its value.
        value: u32,
        /// The most.
        max: u32,
    },
    /// Bounds of a deferral that there is not.
    #[error("deferred_pages {pages} and deferred_ms {ms} without flush = \"deferred\": leave them out")]
    NotDeferred {
        /// Pages.
        pages: u32,
        /// Milliseconds.
        ms: u32,
    },
}

/// Size and destination of a load, for a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoadRecordKey {
    /// Length in bytes.
    pub size_bytes: u64,
    /// Destination.
    pub ipa: u64,
}

impl From<LoadRecord> for LoadRecordKey {
    fn from(load: LoadRecord) -> Self {
        Self { size_bytes: load.size_bytes, ipa: load.ipa }
    }
}
