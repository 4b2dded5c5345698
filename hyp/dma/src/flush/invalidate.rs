//! The seam to the SMMUs' drivers, and the one way from a closed batch to its proof.

use bulkhead_core::{
    ids::{SmmuId, Vmid},
    machine::SMMUS_MAX,
};
use heapless::Vec;
use thiserror::Error;

use super::{
    batch::Work,
    epoch::{Epoch, EpochError},
    policy::Scope,
};

/// Proof that one SMMU completed a CMD_SYNC behind the commands of a ticket.
///
/// To be implemented only for what a driver makes after that.
pub trait SyncWitness {
    /// The SMMU.
    fn smmu(&self) -> SmmuId;
    /// Whose translations it dropped.
    fn vmid(&self) -> Vmid;
}

/// One SMMU, as a flush sees it.
pub trait Invalidate {
    /// What a submission is waited for with.
    type Ticket;
    /// What a completed wait yields.
    type Witness: SyncWitness;
    /// Why it could not.
    type Error;

    /// Sends every command of `work` and one CMD_SYNC, with one write of PROD. Every store to the tables made before
    /// is ordered before the commands. May answer with the ticket of another's submission that began after those
    /// stores and covers `work`: a second waiter rides on the first one's SYNC.
    fn submit(&mut self, work: &Work<'_>) -> Result<Self::Ticket, Self::Error>;

    /// Waits, bounded, until the SYNC of `ticket` is complete. On error the streams of the VM are quarantined.
    fn wait(&mut self, ticket: Self::Ticket) -> Result<Self::Witness, Self::Error>;
}

impl<I: Invalidate + ?Sized> Invalidate for &mut I {
    type Ticket = I::Ticket;
    type Witness = I::Witness;
    type Error = I::Error;

    fn submit(&mut self, work: &Work<'_>) -> Result<I::Ticket, I::Error> {
        (**self).submit(work)
    }
    fn wait(&mut self, ticket: I::Ticket) -> Result<I::Witness, I::Error> {
        (**self).wait(ticket)
    }
}

/// Why a batch was not flushed. What it holds stays unflushed: [`super::Batch::quarantine`] is called for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum FlushError<E> {
    /// An SMMU did not do it.
    #[error("an smmu did not flush: {0}")]
    Smmu(E),
    /// The SMMUs that did it are not those that had to.
    #[error(transparent)]
    Epoch(EpochError),
}

impl<E> From<EpochError> for FlushError<E> {
    fn from(error: EpochError) -> Self {
        Self::Epoch(error)
    }
}

/// Has every SMMU of `walkers` do `work`, all of them before the first is waited for.
#[inline]
pub fn retire<I: Invalidate>(mut work: Work<'_>, walkers: &mut [I]) -> Result<Epoch, FlushError<I::Error>> {
    if work.scope() != Scope::Nothing {
        match walkers {
            // By `match`: `?` would have tickets and witnesses copied, byte by byte.
            [only] => match only.submit(&work) {
                Ok(ticket) => match only.wait(ticket) {
                    Ok(witness) => work.flight.synced(witness.smmu(), witness.vmid())?,
                    Err(error) => return Err(FlushError::Smmu(error)),
                },
                Err(error) => return Err(FlushError::Smmu(error)),
            },
            several => {
                let mut tickets: Vec<I::Ticket, SMMUS_MAX> = Vec::new();
                for walker in several.iter_mut().take(SMMUS_MAX) {
                    // As many places as walkers are taken.
                    let _ = tickets.push(walker.submit(&work).map_err(FlushError::Smmu)?);
                }
                for (walker, ticket) in several.iter_mut().zip(tickets) {
                    let witness = walker.wait(ticket).map_err(FlushError::Smmu)?;
                    work.flight.synced(witness.smmu(), witness.vmid())?;
                }
            }
        }
    }
    Ok(work.flight.settle()?)
}
