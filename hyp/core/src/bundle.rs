//! The bundle: compiled manifest, kernels, initrds and guest DTBs, as one file that travels as the initrd.
//!
//! Little-endian throughout. A [`Header`], then `vm_count` [`VmRecord`]s, then blobs, each on a 4 KiB boundary.
//! `checksum` is XXH64 (seed 0) over all bytes after the header. Offsets count from the start of the bundle.

mod checksum;
mod dmamap;
mod error;
mod nested;
mod read;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
mod vm;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use self::{
    checksum::checksum,
    dmamap::{
        DEFERRED_MS_MAX, DEFERRED_PAGES_MAX, Dmamap, DmamapRecord, Flush as DmamapFlush, MAPS_MAX,
        Strategy as DmamapStrategy, TABLES_MAX,
    },
    error::{BundleError, DmamapFault, LoadRecordKey, RecordError},
    nested::NestedFlush,
    read::Bundle,
    vm::Vm,
};
use crate::vplat::DEVICES_MAX;

/// First eight bytes of a bundle.
pub const MAGIC: [u8; 8] = *b"BULKHEAD";
/// Format version; another one is refused.
pub const VERSION: u32 = 3;
/// Bytes of a name, padded with zeros.
pub const NAME_BYTES: usize = 16;
/// Most things loaded into one VM: kernel, initrd, DTB, one spare.
pub const LOADS_MAX: usize = 4;
/// `ram_phys` of a VM whose memory the hypervisor places.
pub const PLACE_ANYWHERE: u64 = u64::MAX;

/// The start of the bundle.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`VERSION`].
    pub version: u32,
    /// Number of [`VmRecord`]s.
    pub vm_count: u32,
    /// Length of the whole bundle in bytes, this header included.
    pub total_bytes: u64,
    /// XXH64 of everything after this header.
    pub checksum: u64,
    /// Bits of [`machine_flags`].
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

/// Bits of [`Header::flags`].
pub mod machine_flags {
    /// Power the machine off (PSCI SYSTEM_OFF) when the last VM has stopped.
    pub const POWEROFF_WHEN_ALL_STOPPED: u32 = 1 << 0;
    /// Map the VMs' RAM for their CPUs by pages of 4 KiB instead of blocks.
    pub const STAGE2_PAGES: u32 = 1 << 1;
    /// All that there are.
    pub const ALL: u32 = POWEROFF_WHEN_ALL_STOPPED | STAGE2_PAGES;
}

/// One VM.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VmRecord {
    /// Name, ASCII `[a-z0-9-]`, padded with zeros.
    pub name: [u8; NAME_BYTES],
    /// Physical CPUs of the vCPUs, in order, by their place in the device tree.
    pub cpus: [u8; crate::vplat::VCPUS_MAX],
    /// vCPUs in use, 1 to 8.
    pub cpu_count: u32,
    /// Bits of [`vm_flags`].
    pub flags: u32,
    /// Bytes of RAM, a multiple of 2 MiB.
    pub ram_bytes: u64,
    /// Physical address of the RAM, or [`PLACE_ANYWHERE`].
    pub ram_phys: u64,
    /// Where vCPU 0 starts, as an IPA.
    pub entry_ipa: u64,
    /// x0 of vCPU 0: the guest DTB's IPA, or 0 without one.
    pub dtb_ipa: u64,
    /// Entries of `loads` in use.
    pub load_count: u32,
    /// Entries of `devices` in use.
    pub device_count: u32,
    /// What is copied into the VM's RAM before each boot.
    pub loads: [LoadRecord; LOADS_MAX],
    /// Passed-through devices, in order.
    pub devices: [DeviceRecord; DEVICES_MAX],
    /// Its DMA maps; all zero for a VM without.
    pub dmamap: DmamapRecord,
    /// A place in [`NestedFlush::ALL`]; 0 for a VM without a stage 1 of its own.
    pub nested_flush: u32,
    /// Zero.
    pub reserved: u32,
}

/// Bits of [`VmRecord::flags`].
pub mod vm_flags {
    /// Start the VM at boot.
    pub const AUTOSTART: u32 = 1 << 0;
}

/// Bytes of the bundle that go to a place in a VM's RAM.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LoadRecord {
    /// Offset from the bundle's start, in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Destination, inside the VM's RAM.
    pub ipa: u64,
}

/// A passed-through PCI function.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DeviceRecord {
    /// PCI segment.
    pub segment: u16,
    /// Routing ID.
    pub routing_id: u16,
    /// A value of [`dma_mode`].
    pub dma_mode: u32,
}

/// Values of [`DeviceRecord::dma_mode`].
pub mod dma_mode {
    /// Stage 2 alone, IOVA = IPA.
    pub const IDENTITY: u32 = 0;
    /// Stage 2 alone, holding what the guest's DMA maps hold.
    pub const DMAMAP: u32 = 1;
    /// The guest's own stage 1, behind a virtual SMMU, under stage 2.
    pub const NESTED: u32 = 2;
    /// Stage 2 alone, a table for each domain of a virtio IOMMU.
    pub const VIRTIO_IOMMU: u32 = 3;
}
