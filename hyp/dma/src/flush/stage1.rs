//! What a guest's own stage 1 wants forgotten, gathered until its CMD_SYNC, then sent as the cheapest set that suffices.
//!
//! - [`Stage1Batch`] gathers the guest's TLBI commands, any number of them in fixed memory.
//! - [`Stage1Policy`] decides, per ASID: page by page, a range for each run, one for all, or everything of the VMID.
//! - [`Stage1Work`] is what the physical SMMU is told, with one CMD_SYNC behind it.
//!
//! What a command reaches (IHI 0070 4.4.2; each does what the PE's TLBI beside it does, DDI 0487 C5.5):
//!
//! | command | entries above the last level | last level, not global | last level, global |
//! |---|---|---|---|
//! | NH_ALL (VMALLE1) | all | all | all |
//! | NH_ASID (ASIDE1) | of the ASID | of the ASID | none |
//! | NH_VA (VAE1) | of the ASID, unless Leaf | of the ASID | at the address, whatever their ASID |
//! | NH_VAA (VAAE1) | of any ASID, unless Leaf | of any ASID | at the address |
//!
//! So nothing by address is ever widened to, or covered by, NH_ASID: the guest's global entries would stay, and whether
//! it has any is in tables that are not looked at. By address is widened to more addresses, or to NH_ALL.

mod batch;
mod choose;
mod counters;
mod group;
mod policy;
mod stretch;
#[cfg(test)]
mod tests;
mod ways;
mod work;

pub use self::{
    batch::Stage1Batch,
    counters::{Stage1Counters, Stage1Tally},
    policy::{Stage1Mode, Stage1Policy, Stage1Switch},
    work::{Stage1Commands, Stage1Work},
};
