//! An SMMU that walks a VM's tables, as a flush sees it: submit under the driver's lock, wait without it.

use bulkhead_core::{
    addr::{Ipa, PAGE_SIZE},
    ids::{SmmuId, Vmid},
};
use bulkhead_dma::flush::{Command, Invalidate, SyncWitness, Work};
use bulkhead_smmu::{Invalidation, Mark, Synced, Ticket};

use crate::smmu::{self, NotFlushed};

/// One SMMU of a VM, for one flush.
pub struct Walker {
    smmu: SmmuId,
    vmid: Vmid,
    mark: Mark,
}

/// A completed CMD_SYNC.
pub struct Witness(Synced);

impl SyncWitness for Witness {
    fn smmu(&self) -> SmmuId {
        self.0.smmu()
    }
    fn vmid(&self) -> Vmid {
        self.0.vmid()
    }
}

impl Walker {
    /// For a flush of what was stored before: the caller's `dsb` comes before this.
    pub fn new(smmu: SmmuId, vmid: Vmid) -> Self {
        Self { smmu, vmid, mark: smmu::mark(smmu) }
    }

    /// Apart, so that a flush of one command needs no room for this.
    #[inline(never)]
    fn submit_all(&self, what: impl Iterator<Item = Invalidation> + Clone) -> Result<Ticket, NotFlushed> {
        smmu::flush_with(self.smmu, |driver| {
            driver.submit_all(self.vmid, what).map_err(|failed| driver.reason(&failed))
        })
    }
}

impl Invalidate for Walker {
    type Ticket = Ticket;
    type Witness = Witness;
    type Error = NotFlushed;

    fn submit(&mut self, work: &Work<'_>) -> Result<Ticket, NotFlushed> {
        let is_leaf = work.is_leaf();
        let invalidation = |command| match command {
            Command::Page { page } => Invalidation::Page { ipa: address(page), is_leaf },
            Command::Range { page, num, scale } => Invalidation::Range { ipa: address(page), num, scale, is_leaf },
            Command::Context => Invalidation::Context,
        };
        match work.single() {
            Some(command) => {
                let what = invalidation(command);
                smmu::flush_with(self.smmu, |driver| {
                    driver.submit(self.vmid, what, self.mark).map_err(|failed| driver.reason(&failed))
                })
            }
            None => self.submit_all(work.commands().map(invalidation)),
        }
    }

    /// The lock is let go between two looks, so that others can submit meanwhile. The driver bounds the wait.
    fn wait(&mut self, ticket: Ticket) -> Result<Witness, NotFlushed> {
        smmu::wait(self.smmu, ticket).map(Witness)
    }
}

/// Stage 2 translates an IOVA as the SMMU's IPA.
fn address(page: u64) -> Ipa {
    Ipa::new(page.saturating_mul(PAGE_SIZE))
}
