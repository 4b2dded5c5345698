//! What can be wrong with a manifest: each names the thing, its value and the remedy.

use bulkhead_core::{
    addr::{AddrRange, PhysAddr},
    bundle::NAME_BYTES,
    ids::PciFunction,
    vplat::{DEVICES_MAX, VCPUS_MAX, VMS_MAX},
};
use thiserror::Error;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// No `[[vm]]` at all.
    #[error("the manifest has no VM: add a [[vm]] section")]
    NoVms,
    /// More VMs than the hypervisor has room for.
    #[error("the manifest has {count} VMs, the most is {VMS_MAX}: remove some")]
    TooManyVms {
        /// How many.
        count: usize,
    },
    /// A name that the console could not show.
    #[error("vm name {name:?}: write 1 to {NAME_BYTES} of a-z, 0-9 and '-'")]
    Name {
        /// As written.
        name: String,
    },
    /// Two VMs of one name.
    #[error("vm name {name:?} is given twice: rename one of the two VMs")]
    NameTwice {
        /// The name.
        name: String,
    },
    /// No vCPU, or too many.
    #[error("vm {vm}: cpus has {count} CPUs: give 1 to {VCPUS_MAX}")]
    CpuCount {
        /// The VM.
        vm: String,
        /// How many.
        count: usize,
    },
    /// One CPU for two vCPUs.
    #[error("vm {vm}: cpu {cpu} already belongs to vm {owner}: each CPU runs one vCPU, give another one")]
    CpuTwice {
        /// The VM that asks second.
        vm: String,
        /// The CPU.
        cpu: u32,
        /// The VM that asked first.
        owner: String,
    },
    /// A CPU that no machine, or not this one, has.
    #[error("vm {vm}: cpu {cpu} does not exist: the machine has CPUs 0 to {last}")]
    CpuAbsent {
        /// The VM.
        vm: String,
        /// The CPU.
        cpu: u32,
        /// The last one that exists.
        last: u32,
    },
    /// Not a size.
    #[error("vm {vm}: memory {text:?} is not a size: write a whole number and KiB, MiB or GiB, as in \"512 MiB\"")]
    MemorySyntax {
        /// The VM.
        vm: String,
        /// As written.
        text: String,
    },
    /// Not whole 2 MiB blocks.
    #[error("vm {vm}: memory {bytes:#x} bytes is not a multiple of 2 MiB above zero: round it up to {} MiB", bytes.div_ceil(2 << 20).max(1) * 2)]
    MemoryUnaligned {
        /// The VM.
        vm: String,
        /// As written, in bytes.
        bytes: u64,
    },
    /// More than a guest's address space holds.
    #[error("vm {vm}: memory {bytes:#x} bytes is more than a guest can address ({limit:#x} bytes): give less")]
    MemoryTooLarge {
        /// The VM.
        vm: String,
        /// As written, in bytes.
        bytes: u64,
        /// The most, in bytes.
        limit: u64,
    },
    /// A physical address between two 2 MiB blocks.
    #[error("vm {vm}: ram_at {address} is not a multiple of 2 MiB: move it to {:#x}", address.as_u64() & !((2 << 20) - 1))]
    RamAtUnaligned {
        /// The VM.
        vm: String,
        /// As written.
        address: PhysAddr,
    },
    /// A physical range past 2^64.
    #[error("vm {vm}: ram_at {address} with {bytes:#x} bytes ends past the last address: lower one of them")]
    RamAtOverflow {
        /// The VM.
        vm: String,
        /// As written.
        address: PhysAddr,
        /// The VM's memory in bytes.
        bytes: u64,
    },
    /// Two VMs at one place.
    #[error("vm {vm}: memory {range} overlaps vm {other}'s {other_range}: move one with ram_at, or leave ram_at out")]
    RamOverlap {
        /// The VM.
        vm: String,
        /// Its memory.
        range: AddrRange<PhysAddr>,
        /// The other VM.
        other: String,
        /// The other VM's memory.
        other_range: AddrRange<PhysAddr>,
    },
    /// A place that is no memory.
    #[error(
        "vm {vm}: memory {range} is not inside the machine's memory ({dram}): move it with ram_at, or leave ram_at out"
    )]
    RamOutside {
        /// The VM.
        vm: String,
        /// Its memory.
        range: AddrRange<PhysAddr>,
        /// The machine's memory.
        dram: String,
    },
    /// A place that firmware keeps.
    #[error(
        "vm {vm}: memory {range} overlaps {reserved}, which the device tree reserves: move it with ram_at, or leave ram_at out"
    )]
    RamReserved {
        /// The VM.
        vm: String,
        /// Its memory.
        range: AddrRange<PhysAddr>,
        /// What is reserved.
        reserved: AddrRange<PhysAddr>,
    },
    /// More than there is.
    #[error("the VMs ask for {asked} MiB, the machine has {present} MiB, some of it the hypervisor's: lower memory")]
    MemoryMissing {
        /// Sum over the VMs in MiB.
        asked: u64,
        /// The machine's in MiB.
        present: u64,
    },
    /// A kernel that cannot be read.
    #[error("vm {vm}: kernel {path} cannot be read ({error}): check the path")]
    KernelUnreadable {
        /// The VM.
        vm: String,
        /// Its path.
        path: String,
        /// What the system said.
        error: String,
    },
    /// A kernel in another form.
    #[error("vm {vm}: kernel {path} is not an arm64 Image ({found}): give an uncompressed Image")]
    KernelNotImage {
        /// The VM.
        vm: String,
        /// Its path.
        path: String,
        /// What it looks like instead.
        found: String,
    },
    /// An initrd that cannot be read.
    #[error("vm {vm}: initrd {path} cannot be read ({error}): check the path")]
    InitrdUnreadable {
        /// The VM.
        vm: String,
        /// Its path.
        path: String,
        /// What the system said.
        error: String,
    },
    /// Kernel, initrd and DTB together are larger than the RAM.
    #[error("vm {vm}: kernel, initrd and device tree need {needed} MiB, memory is {present} MiB: raise memory")]
    DoesNotFit {
        /// The VM.
        vm: String,
        /// What they need, in MiB.
        needed: u64,
        /// The RAM, in MiB.
        present: u64,
    },
    /// No random bytes.
    #[error("vm {vm}: no random bytes for its generator ({error}): make /dev/urandom readable")]
    NoSeed {
        /// The VM.
        vm: String,
        /// What the system said.
        error: String,
    },
    /// A command line that Linux would cut or cannot read.
    #[error("vm {vm}: cmdline of {bytes} bytes: give at most {limit} bytes of ASCII without control characters")]
    Cmdline {
        /// The VM.
        vm: String,
        /// Its length.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// More devices than a VM has slots.
    #[error("vm {vm}: {count} devices, the most is {DEVICES_MAX}: remove some")]
    TooManyDevices {
        /// The VM.
        vm: String,
        /// How many.
        count: usize,
    },
    /// Not a PCI address.
    #[error("vm {vm}: pci {text:?} is not a PCI function: write segment:bus:device.function as in \"0000:00:01.0\"")]
    PciSyntax {
        /// The VM.
        vm: String,
        /// As written.
        text: String,
    },
    /// One device for two.
    #[error("vm {vm}: device {device} already belongs to vm {owner}: give each device to one VM")]
    DeviceTwice {
        /// The VM that asks second.
        vm: String,
        /// The device.
        device: PciFunction,
        /// The VM that asked first.
        owner: String,
    },
    /// A mode that does not exist.
    #[error(
        "vm {vm}: device {device}: dma {mode:?} is not a mode: write \"identity\", \"dmamap\", \"nested\" or \"virtio-iommu\""
    )]
    DmaMode {
        /// The VM.
        vm: String,
        /// The device.
        device: String,
        /// As written.
        mode: String,
    },
    /// Two modes in one VM: its devices share one table.
    #[error(
        "vm {vm}: device {device} has dma {mode:?} beside devices with {first:?}: give all devices of a VM one mode"
    )]
    MixedDma {
        /// The VM.
        vm: String,
        /// The device, as written.
        device: String,
        /// Its mode.
        mode: String,
        /// The first device's.
        first: String,
    },
    /// Settings that no device uses.
    #[error("vm {vm}: [vm.dmamap] is given, but no device has dma = \"dmamap\": write that, or leave the table out")]
    DmamapUnused {
        /// The VM.
        vm: String,
    },
    /// Settings that no device uses.
    #[error("vm {vm}: [vm.nested] is given, but no device has dma = \"nested\": write that, or leave the table out")]
    NestedUnused {
        /// The VM.
        vm: String,
    },
    /// A strategy or a flush policy that does not exist.
    #[error("vm {vm}: {key} {text:?} is unknown: write one of {known}")]
    DmamapName {
        /// The VM.
        vm: String,
        /// Which setting.
        key: &'static str,
        /// As written.
        text: String,
        /// Those that there are.
        known: String,
    },
    /// A number of the DMA maps that is zero or too large.
    #[error("vm {vm}: dmamap.{key} is {value}: give 1 to {max}")]
    DmamapNumber {
        /// The VM.
        vm: String,
        /// Which setting.
        key: &'static str,
        /// As written.
        value: u64,
        /// The most.
        max: u32,
    },
    /// Bounds of a deferral that there is not.
    #[error("vm {vm}: dmamap.{key} means nothing with flush {flush:?}: leave it out, or write flush = \"deferred\"")]
    DmamapNotDeferred {
        /// The VM.
        vm: String,
        /// Which setting.
        key: &'static str,
        /// The policy.
        flush: String,
    },
    /// A segment or bus that no host bridge has.
    #[error("vm {vm}: device {device} is absent: {reason}")]
    DeviceAbsent {
        /// The VM.
        vm: String,
        /// The device.
        device: PciFunction,
        /// What there is instead, with the remedy.
        reason: String,
    },
    /// A device that the SMMU would not see.
    #[error(
        "vm {vm}: device {device} has no stream: the device tree's iommu-map leaves it out, so nothing would hold its DMA in; give another device"
    )]
    DeviceWithoutStream {
        /// The VM.
        vm: String,
        /// The device.
        device: PciFunction,
    },
    /// A device that needs memory of its own mapped from boot on.
    #[error(
        "vm {vm}: device {device} has reserved memory that must stay mapped (iommu-addresses): give another device"
    )]
    DeviceReserved {
        /// The VM.
        vm: String,
        /// The device.
        device: PciFunction,
    },
    /// Two devices that the SMMU cannot tell apart.
    #[error("vm {vm}: device {device} has the stream of vm {owner}'s {other}: give both to one VM")]
    StreamShared {
        /// The VM that asks second.
        vm: String,
        /// Its device.
        device: PciFunction,
        /// The other VM.
        owner: String,
        /// Its device.
        other: PciFunction,
    },
    /// A board that the hypervisor would refuse.
    #[error("the board's device tree: {0}")]
    Board(String),
}
