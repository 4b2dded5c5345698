//! The SMMU as a flush sees it, as EL2 has it; and each way to be careless.

use std::mem;

use bulkhead_core::ids::{SmmuId, Vmid};
use bulkhead_dma::flush::{Command, Invalidate, SyncWitness, Work};
use bulkhead_smmu::{
    Error, Invalidation, Mark, Smmu, Synced, Ticket,
    model::{Model, Mutant, Mutation},
};

use crate::told::told;

/// What is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// CMD_TLBI_S2_IPA.
    NoTlbi,
    /// CMD_TLBI_S12_VMALL.
    NoTlbiOfContext,
    /// CMD_SYNC.
    NoSync,
    /// All barriers, the driver's too.
    NoBarrier,
    /// The barrier before a call returns.
    NoBarrierAfterLoad,
    /// To order the stores to the tables before the commands: they are ordered after the SYNC.
    NoBarrierForTables,
    /// The last page of a flush.
    OnePageShort,
    /// To flush the way to a table that was unlinked.
    LeafOnly,
    /// To wait for the SYNC: a batch counts as flushed when its commands are still to be sent.
    RefillBeforeSync,
}

impl Fault {
    /// What it does to the driver.
    pub fn mutation(self) -> Mutation {
        match self {
            Self::NoTlbi => Mutation::DropCommand(0x2a),
            Self::NoTlbiOfContext => Mutation::DropCommand(0x28),
            Self::NoSync => Mutation::DropCommand(0x46),
            Self::NoBarrier => Mutation::DropBarriers,
            _ => Mutation::None,
        }
    }
}

/// One SMMU.
pub struct Walker {
    /// The driver.
    pub smmu: Smmu<Mutant<Model>>,
    fault: Fault,
    /// Commands that were not sent when they should have been.
    held: Vec<Invalidation>,
}

/// A completed CMD_SYNC, or a lie.
pub enum Witness {
    Real(Synced),
    Forged(Vmid),
}

/// A submission, or none.
pub enum Pass {
    Sent(Ticket),
    Held(Vmid),
}

impl SyncWitness for Witness {
    fn smmu(&self) -> SmmuId {
        match self {
            Self::Real(synced) => synced.smmu(),
            Self::Forged(_) => SmmuId(0),
        }
    }

    fn vmid(&self) -> Vmid {
        match self {
            Self::Real(synced) => synced.vmid(),
            Self::Forged(vmid) => *vmid,
        }
    }
}

impl Walker {
    /// With what `fault` leaves out.
    pub fn new(smmu: Smmu<Mutant<Model>>, fault: Fault) -> Self {
        Self { smmu, fault, held: Vec::new() }
    }

    fn told(&self, command: Command, is_leaf: bool) -> Invalidation {
        told(command, is_leaf || self.fault == Fault::LeafOnly, self.fault == Fault::OnePageShort)
    }
}

impl Invalidate for Walker {
    type Ticket = Pass;
    type Witness = Witness;
    type Error = Error;

    fn submit(&mut self, work: &Work<'_>) -> Result<Pass, Error> {
        let is_leaf = work.is_leaf();
        if self.fault == Fault::RefillBeforeSync {
            let late = work.single().into_iter().chain(work.commands().filter(|_| work.single().is_none()));
            let late: Vec<Invalidation> = late.map(|command| self.told(command, is_leaf)).collect();
            let due = mem::replace(&mut self.held, late);
            if !due.is_empty() {
                let sent = self.smmu.submit_all(work.vmid(), due.into_iter());
                let done = sent.and_then(|ticket| self.smmu.wait(ticket));
                let _ = done.map_err(|failed| self.smmu.reason(&failed))?;
            }
            return Ok(Pass::Held(work.vmid()));
        }
        let ticket = match work.single() {
            Some(command) => self.smmu.submit(work.vmid(), self.told(command, is_leaf), Mark::NEVER),
            None => {
                let all: Vec<Invalidation> = work.commands().map(|command| self.told(command, is_leaf)).collect();
                self.smmu.submit_all(work.vmid(), all.into_iter())
            }
        };
        ticket.map(Pass::Sent).map_err(|failed| self.smmu.reason(&failed))
    }

    fn wait(&mut self, pass: Pass) -> Result<Witness, Error> {
        match pass {
            Pass::Sent(ticket) => self.smmu.wait(ticket).map(Witness::Real).map_err(|failed| self.smmu.reason(&failed)),
            Pass::Held(vmid) => Ok(Witness::Forged(vmid)),
        }
    }
}
