//! From a batch that was closed to the proof that it was flushed.

use bulkhead_core::ids::{SmmuId, Vmid};
use thiserror::Error;

use super::Stamp;

/// A batch on its way: closed, and not flushed by every SMMU.
#[derive(Debug)]
pub(super) struct Flight {
    stamp: Stamp,
    vmid: Vmid,
    /// The SMMUs whose CMD_SYNC is missing, a bit each.
    missing: u16,
}

impl Flight {
    pub(super) const fn new(stamp: Stamp, vmid: Vmid, missing: u16) -> Self {
        Self { stamp, vmid, missing }
    }

    /// An SMMU's bit. One that no machine has shares the last, which nothing strikes off.
    pub(super) const fn bit(smmu: SmmuId) -> u16 {
        if smmu.0 < 15 { 1 << smmu.0 } else { 1 << 15 }
    }

    /// The SMMU's CMD_SYNC after the batch's commands has completed. On error nothing has changed.
    pub(super) fn synced(&mut self, smmu: SmmuId, vmid: Vmid) -> Result<(), EpochError> {
        if vmid != self.vmid {
            return Err(EpochError::WrongVmid { flushed: vmid, owner: self.vmid });
        }
        if smmu.0 < 15 {
            self.missing &= !Self::bit(smmu);
        }
        Ok(())
    }

    /// The proof, unless an SMMU is missing.
    pub(super) fn settle(self) -> Result<Epoch, EpochError> {
        let Self { stamp, vmid, missing } = self;
        if missing == 0 {
            Ok(Epoch { stamp, vmid })
        } else {
            Err(EpochError::Missing { number: stamp.as_u64(), missing })
        }
    }
}

/// Proof that every SMMU of a VM has dropped what one batch held. Made by [`super::retire`] alone.
#[derive(Debug)]
#[must_use = "the batch does not know yet that it was flushed"]
pub struct Epoch {
    stamp: Stamp,
    vmid: Vmid,
}

impl Epoch {
    /// Which batch.
    pub const fn number(&self) -> u64 {
        self.stamp.as_u64()
    }

    pub(super) const fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Whose.
    pub const fn vmid(&self) -> Vmid {
        self.vmid
    }
}

/// Why a proof proves nothing here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum EpochError {
    /// An earlier batch was not flushed, or this one was already.
    #[error("epoch {number} while {next} is the next to be settled")]
    OutOfOrder {
        /// The batch of the proof.
        number: u64,
        /// The first that is not settled.
        next: u64,
    },
    /// Another VM's translations were flushed.
    #[error("flush of vmid {flushed} does not settle a batch of vmid {owner}", flushed = .flushed.as_u16(), owner = .owner.as_u16())]
    WrongVmid {
        /// Whose translations were flushed.
        flushed: Vmid,
        /// Whose must be.
        owner: Vmid,
    },
    /// An SMMU that walks the VM's table was not flushed.
    #[error("epoch {number} lacks the flush of smmus {missing:#x}")]
    Missing {
        /// The batch.
        number: u64,
        /// A bit for each SMMU.
        missing: u16,
    },
    /// An earlier flush failed: nothing is settled any more.
    #[error("the batch is quarantined")]
    Quarantined,
}
