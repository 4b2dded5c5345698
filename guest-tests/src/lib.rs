//! Runtime of the bare-metal guest programs: start-up, console, GIC, timers, PCI.
#![no_std]

pub mod boot;
pub mod check;
pub mod code;
pub mod console;
pub mod cpu;
pub mod dmamap;
pub mod edu;
pub mod exception;
pub mod forbidden;
pub mod fp;
pub mod gic;
pub mod heap;
pub mod hypercall;
pub mod irq;
pub mod mem;
pub mod mmu;
pub mod params;
pub mod pci;
pub mod psci;
pub mod random;
pub mod smmu;
pub mod smp;
pub mod sysreg;
pub mod timer;
pub mod viommu;
