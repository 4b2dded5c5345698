//! The machine that every guest sees: one fixed map, in intermediate physical addresses.
//!
//! ```text
//! 0x0800_0000  GICD, 64 KiB                 0x1000_0000  PCI ECAM, 1 MiB: bus 0 alone
//! 0x080a_0000  GICR, 128 KiB a vCPU         0x2000_0000  PCI memory window, 512 MiB
//! 0x0900_0000  PL011, 4 KiB                 0x4000_0000  RAM
//! 0x0905_0000  SMMUv3, 128 KiB, for a VM whose devices are nested
//! 0x0907_0000  virtio IOMMU, 4 KiB, for a VM whose devices are behind one
//! ```

use crate::{addr::Ipa, ids::IntId};

/// Bits of a guest's physical address space at most: 512 GiB, one 512-entry table at level 1.
pub const IPA_BITS_MAX: u8 = 39;
/// Most vCPUs of one VM.
pub const VCPUS_MAX: usize = 8;
/// Most VMs of one machine.
pub const VMS_MAX: usize = 8;
/// Most passed-through PCI functions of one VM.
pub const DEVICES_MAX: usize = 8;

/// GIC distributor (GICD).
pub const GICD_BASE: Ipa = Ipa::new(0x0800_0000);
/// Bytes of GICD.
pub const GICD_SIZE: u64 = 0x1_0000;
/// GIC redistributors (GICR), one after the other in the order of vCPUs.
pub const GICR_BASE: Ipa = Ipa::new(0x080a_0000);
/// Bytes of one vCPU's redistributor: the RD and the SGI frame.
pub const GICR_STRIDE: u64 = 0x2_0000;
/// PL011 UART.
pub const UART_BASE: Ipa = Ipa::new(0x0900_0000);
/// Bytes of the UART.
pub const UART_SIZE: u64 = 0x1000;
/// Virtual SMMUv3: register pages 0 and 1.
pub const VSMMU_BASE: Ipa = Ipa::new(0x0905_0000);
/// Bytes of both pages, 64 KiB each.
pub const VSMMU_SIZE: u64 = 0x2_0000;
/// Virtio IOMMU, behind the MMIO transport.
pub const VIOMMU_BASE: Ipa = Ipa::new(0x0907_0000);
/// Bytes of its page.
pub const VIOMMU_SIZE: u64 = 0x1000;
/// PCI configuration space (ECAM) of bus 0.
pub const ECAM_BASE: Ipa = Ipa::new(0x1000_0000);
/// Bytes of ECAM: one bus.
pub const ECAM_SIZE: u64 = 0x10_0000;
/// PCI memory window: PCI address = IPA.
pub const PCI_MEM_BASE: Ipa = Ipa::new(0x2000_0000);
/// Bytes of the PCI memory window.
pub const PCI_MEM_SIZE: u64 = 0x2000_0000;
/// Where RAM starts.
pub const RAM_BASE: Ipa = Ipa::new(0x4000_0000);

/// Interrupts that the virtual GIC has: SGIs, PPIs and 32 SPIs (GICD_TYPER.ITLinesNumber = 1).
pub const INTIDS: u32 = 64;
/// EL1 virtual timer's PPI.
pub const VTIMER_INTID: IntId = IntId(27);
/// EL1 physical timer's PPI.
pub const PTIMER_INTID: IntId = IntId(30);
/// The UART's SPI, level-triggered.
pub const UART_INTID: IntId = IntId(33);
/// SPI of the PCI pin INTA#; INTB#, INTC# and INTD# follow. The virtual bridge does not swizzle.
pub const INTX_INTID_BASE: IntId = IntId(36);
/// SPIs of the virtual SMMU, edge-triggered: its event queue,
pub const VSMMU_EVENTQ_INTID: IntId = IntId(40);
/// the completion of a CMD_SYNC,
pub const VSMMU_SYNC_INTID: IntId = IntId(41);
/// and its global errors.
pub const VSMMU_GERROR_INTID: IntId = IntId(42);
/// SPI of the virtio IOMMU, level-triggered.
pub const VIOMMU_INTID: IntId = IntId(43);
/// PCI interrupt pins of the virtual bridge.
pub const INTX_PINS: u32 = 4;
/// PCI device number of a VM's first function; the next ones follow, each as function 0.
pub const FIRST_PCI_DEVICE: u8 = 1;

/// StreamID of a VM's device number `place`, as its virtual SMMU has it: its requester ID.
pub fn virtual_stream(place: usize) -> u32 {
    u32::try_from(place).map_or(u32::MAX, |place| (u32::from(FIRST_PCI_DEVICE) + place) << 3)
}

/// MPIDR_EL1 affinity of a vCPU: Aff0 is its number.
pub const fn vcpu_mpidr(vcpu: usize) -> u64 {
    vcpu as u64
}
