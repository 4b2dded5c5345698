//! Bulkhead at EL2: the only crate with unsafe code, a thin layer under the logic crates.
#![no_std]

pub mod boot;
pub mod bridge;
pub mod cache;
pub mod console;
pub mod el1;
pub mod faults;
pub mod firmware;
pub mod frame;
pub mod frames;
pub mod gic;
pub mod guest_memory;
pub mod idle;
pub mod image;
pub mod irq;
pub mod keyboard;
pub mod lifecycle;
pub mod memory;
pub mod mmu;
pub mod panic;
pub mod pci;
pub mod percpu;
pub mod shell;
pub mod smmu;
pub mod speculation;
pub mod start;
pub mod stats;
pub mod symbols;
pub mod sysreg;
pub mod tables;
pub mod text;
pub mod time;
pub mod trap;
pub mod uart;
pub mod virtual_gic;
pub mod vm;
