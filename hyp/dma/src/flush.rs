//! What unloads leave behind is gathered until a SYNC, then flushed in the cheapest way that suffices.
//!
//! - [`Batch`] gathers: an unload costs it a few additions, whatever the batch holds.
//! - [`Policy`] decides, per stream: page by page, one rounded-up range, or everything of the VMID.
//! - [`retire`] has every SMMU of the VM do it, with one CMD_SYNC each, and yields the proof: an [`Epoch`].
//!
//! [`Stage1Batch`], [`Stage1Policy`] and [`Stage1Work`] are the same for what a guest's own stage 1 gives up: nothing is
//! freed there, so no proof is needed, only the wait before its SYNC completes.
//!
//! Nothing gathered is free before its epoch is accepted by its batch ([`Batch::is_settled`]). A flush that fails or
//! times out leaves no epoch: the batch is quarantined, and what it holds stays unflushed for good (security rule 5).

mod batch;
mod cost;
mod counters;
mod epoch;
mod invalidate;
mod policy;
mod range;
mod stage1;
#[cfg(test)]
mod tests;

pub(crate) use self::batch::{BLOCK_STRIDE, place_of_page};
pub use self::{
    batch::{Batch, Stamp, Work},
    cost::{Costs, Live},
    counters::FlushCounters,
    epoch::{Epoch, EpochError},
    invalidate::{FlushError, Invalidate, SyncWitness, retire},
    policy::{Kind, Mode, Policy, Scope, Switch},
    range::{Command, Covering, Run},
    stage1::{
        Stage1Batch, Stage1Commands, Stage1Counters, Stage1Mode, Stage1Policy, Stage1Switch, Stage1Tally, Stage1Work,
    },
};
