//! The end of a batch: what was unmapped is flushed, and tables that were unlinked are free again.

use super::{Domain, arena::Arena, arena::NONE};
use crate::flush::{FlushError, Invalidate, Live, Scope, Switch, retire};

impl Domain {
    /// Whether something waits for a flush.
    pub const fn is_flushed(&self) -> bool {
        self.batch.is_empty()
    }

    /// Whether a flush failed: nothing that was unmapped since, or is, will ever be flushed.
    pub const fn is_quarantined(&self) -> bool {
        self.batch.is_quarantined()
    }

    /// A change of the kind of flush that the last one made, once: for the trace.
    pub const fn take_switch(&mut self) -> Option<Switch> {
        self.policy.take_switch()
    }

    /// Has every SMMU of `walkers` forget what was unmapped, as the domain pays least, with one CMD_SYNC each. Nothing is
    /// done where nothing was. The stores to the table are visible to the SMMUs: the caller's barrier comes before.
    ///
    /// On error the domain is quarantined.
    pub fn flush<I: Invalidate>(
        &mut self,
        arena: &mut Arena<'_>,
        walkers: &mut [I],
    ) -> Result<(), FlushError<I::Error>> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let live = Live { entries: self.live };
        // No mode of the policy puts a flush off here.
        let scope = self.policy.decide(&mut self.batch, live, 0).unwrap_or(Scope::Context);
        let flushed = retire(self.policy.close(&mut self.batch, scope), walkers)
            .and_then(|epoch| Ok(self.batch.accept(&epoch)?));
        if let Err(error) = flushed {
            self.batch.quarantine();
            self.policy.note_failure();
            return Err(error);
        }
        // All of them were unlinked before the batch was closed.
        arena.give_list(core::mem::replace(&mut self.retired, NONE));
        Ok(())
    }
}
