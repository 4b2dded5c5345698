//! The vocabulary of Bulkhead: pure logic, the same on host and target.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod addr;
pub mod bundle;
pub mod esr;
pub mod ids;
pub mod image;
pub mod ledger;
pub mod machine;
pub mod name;
pub mod pci;
pub mod stage1;
pub mod stage2;
pub mod vplat;
