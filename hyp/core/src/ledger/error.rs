//! Why a VM cannot have what it asks for, with the value and the remedy.

use thiserror::Error;

use super::place::PlaceError;
use crate::{
    ids::{CpuId, IntId, PciFunction, StreamKey},
    name::Name,
    pci::DeviceFault,
};

/// Why a VM is not started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[repr(u64)]
pub enum PlanError {
    /// A CPU that the machine does not have.
    #[error("{cpu} does not exist: the machine has cpu0 to cpu{last}, choose one of them", last = .count.saturating_sub(1))]
    CpuAbsent {
        /// The CPU.
        cpu: CpuId,
        /// CPUs of the machine.
        count: usize,
    },
    /// A CPU of another VM.
    #[error("{cpu} belongs to vm {other}: give each VM CPUs of its own")]
    CpuTaken {
        /// The CPU.
        cpu: CpuId,
        /// Its owner.
        other: Name,
    },
    /// Its memory has no place.
    #[error(transparent)]
    Memory(#[from] PlaceError),
    /// A device that is not there.
    #[error("device {0} is absent: no function answers there, see the list of devices at boot")]
    DeviceAbsent(PciFunction),
    /// A device of another VM.
    #[error("device {function} belongs to vm {other}: give it to one VM")]
    DeviceTaken {
        /// The device.
        function: PciFunction,
        /// Its owner.
        other: Name,
    },
    /// A bridge.
    #[error("device {0} is a bridge: give the functions behind it")]
    DeviceIsBridge(PciFunction),
    /// A device that cannot be used.
    #[error("device {function}: {fault}")]
    DeviceFault {
        /// The device.
        function: PciFunction,
        /// Why.
        fault: DeviceFault,
    },
    /// A group of which a function is missing.
    #[error("device {function} cannot be kept apart from {missing} (no ACS between them): give one VM both")]
    GroupNotWhole {
        /// The device.
        function: PciFunction,
        /// A function of its group that the VM does not have.
        missing: PciFunction,
    },
    /// A device in front of which no SMMU stands.
    #[error(
        "device {0} has no stream: no iommu-map entry leads from it to an enabled SMMU, its DMA could not be contained"
    )]
    NoStream(PciFunction),
    /// A stream of another device: two functions with one StreamID.
    #[error("device {function} shares stream {stream} of smmu {smmu} with {with}: they cannot be told apart, take {with} out of the machine", stream = .key.stream, smmu = .key.smmu.0)]
    StreamTaken {
        /// The device.
        function: PciFunction,
        /// The stream.
        key: StreamKey,
        /// The other device.
        with: PciFunction,
    },
    /// A stream that its SMMU cannot know.
    #[error("device {function} has stream {stream}, but smmu {smmu} has streams of {bits} bits: correct iommu-map", stream = .key.stream, smmu = .key.smmu.0)]
    StreamTooLarge {
        /// The device.
        function: PciFunction,
        /// The stream.
        key: StreamKey,
        /// Bits of a StreamID.
        bits: u8,
    },
    /// An SMMU that was refused when it was probed.
    #[error(
        "device {function} is behind smmu {smmu}, which cannot be used (the reason is above): its DMA could not be contained"
    )]
    SmmuUnusable {
        /// The device.
        function: PciFunction,
        /// The SMMU.
        smmu: u8,
    },
    /// An SMMU without stage 2.
    #[error("device {function} is behind smmu {smmu}, which has no stage 2: its DMA could not be contained")]
    NoStage2 {
        /// The device.
        function: PciFunction,
        /// The SMMU.
        smmu: u8,
    },
    /// A stage 1 of the guest's own where hardware has none.
    #[error(
        "device {function} is behind smmu {smmu}, which has no stage 1 to nest: use dma = \"virtio-iommu\" or \"identity\""
    )]
    NoStage1 {
        /// The device.
        function: PciFunction,
        /// The SMMU.
        smmu: u8,
    },
    /// A stage 1 of the guest's own, or a virtio IOMMU, behind an SMMU that does not see the CPUs' caches.
    #[error(
        "device {function} is behind smmu {smmu}, whose walks are not coherent: dma = \"nested\" and \"virtio-iommu\" need that, use dma = \"identity\""
    )]
    NotCoherent {
        /// The device.
        function: PciFunction,
        /// The SMMU.
        smmu: u8,
    },
    /// An SMMU that cannot put out the addresses of the VM's RAM.
    #[error(
        "memory up to {end:#x} is past the {bits} address bits of smmu {smmu}, which device {function} is behind: place it lower"
    )]
    RamPastSmmu {
        /// The device.
        function: PciFunction,
        /// The SMMU.
        smmu: u8,
        /// One past the RAM.
        end: u64,
        /// Bits that it puts out.
        bits: u8,
    },
    /// A device with a region that must be mapped from boot.
    #[error("device {0} needs memory mapped from boot on (iommu-addresses): such a device is not assigned")]
    ReservedRegion(PciFunction),
    /// An interrupt line that another VM's device uses.
    #[error("device {function} has interrupt {line}, which {with} of vm {other} shares: give both to one VM or use another slot", line = .line.0)]
    InterruptTaken {
        /// The device.
        function: PciFunction,
        /// The line.
        line: IntId,
        /// The other device.
        with: PciFunction,
        /// The other's owner.
        other: Name,
    },
    /// An interrupt line of the hypervisor's own UART or SMMU.
    #[error("device {function} has interrupt {line}, which the hypervisor's console or SMMU uses: use another slot", line = .line.0)]
    InterruptKept {
        /// The device.
        function: PciFunction,
        /// The line.
        line: IntId,
    },
    /// More interrupt lines than the guest's bridge has pins.
    #[error("device {0} is on a fifth interrupt line: a VM's devices can use four")]
    NoPinLeft(PciFunction),
}
