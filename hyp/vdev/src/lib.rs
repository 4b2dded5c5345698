//! What a guest sees: virtual GIC, PCI bridge, UART, PSCI, ID registers, DMA maps, SMMU.
//!
//! Pure state machines: each takes a guest's access, changes only itself, and returns what EL2 has to do to the hardware.
//! Nothing here locks, allocates, waits or panics, whatever the guest's value is; EL2 puts one lock around each object.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "model"))]
extern crate std;

pub mod dmamap;
pub mod memory;
pub mod mmio;
pub mod psci;
pub mod sysreg;
pub mod vgic;
pub mod virtio_iommu;
pub mod vpci;
pub mod vsmmu;
pub mod vuart;
