//! Flushes of a guest's stage 1, one CMD_SYNC for all that it gathered (IHI 0070 4.3.4, 4.4.2).

use bulkhead_core::{
    ids::{StreamId, Vmid},
    stage1::{Stage1Flush, Stage1Pages},
};

use super::Smmu;
use crate::{
    command::Command,
    error::Error,
    platform::Platform,
    ticket::{Failed, Ticket},
};

/// The command for `flush`; more than it where it cannot be said in one: never less.
fn command(vmid: Vmid, flush: Stage1Flush, has_ranges: bool) -> Command {
    match flush {
        Stage1Flush::All => Command::TlbiNhAll { vmid },
        Stage1Flush::Asid(asid) => Command::TlbiNhAsid { vmid, asid },
        Stage1Flush::Pages(Stage1Pages { asid, first, pages, is_leaf }) => match span(pages) {
            Some((num, scale)) if has_ranges || pages == 1 => {
                Command::TlbiNhVa { vmid, asid, va: first, num, scale, is_leaf }
            }
            // By ASID would leave global entries.
            _ => Command::TlbiNhAll { vmid },
        },
    }
}

/// NUM and SCALE of exactly `pages` pages: `(num + 1) << scale`.
fn span(pages: u64) -> Option<(u8, u8)> {
    let scale = pages.trailing_zeros().min(31);
    let num = (pages >> scale).checked_sub(1).filter(|num| *num < 32)?;
    Some((u8::try_from(num).ok()?, u8::try_from(scale).ok()?))
}

impl<P: Platform> Smmu<P> {
    /// Has the context descriptor of a stream forgotten, with what is cached of it, by the next
    /// [`submit_stage1`](Self::submit_stage1) of its VM: not before its ticket is redeemed.
    pub fn forget_context(&mut self, stream: StreamId) -> Result<(), Error> {
        self.known_mut(stream)?.is_context_stale = true;
        Ok(())
    }

    /// Sends what has to be forgotten of the stage 1 of `vmid`, context descriptors included, and one CMD_SYNC by one
    /// write of PROD.
    ///
    /// - A range goes as one command if its pages are `(num + 1) << scale` and the SMMU has ranges; else it is a flush of
    ///   everything of stage 1, and so is more than a queue-full.
    /// - With nothing to send the ticket is complete: every earlier one was for its own SYNC.
    ///
    /// Else as [`submit_all`](Self::submit_all). The ticket proves nothing for pages that were taken out of stage 2.
    pub fn submit_stage1(
        &mut self,
        vmid: Vmid,
        flushes: impl Iterator<Item = Stage1Flush> + Clone,
    ) -> Result<Ticket, Failed> {
        let has_ranges = self.features.has_range_invalidation;
        let mut tlb = flushes.map(|flush| command(vmid, flush, has_ranges));
        let capacity = self.cmdq.capacity();
        let stale = self.streams.iter().filter(|known| known.s2.vmid == vmid && known.is_context_stale);
        let configuration = stale.clone().count();
        let is_single = configuration == 0 && tlb.clone().nth(1).is_none();
        let sent = if is_single {
            let Some(only) = tlb.next() else { return Ok(self.ticket(vmid, self.cmdq.position(), true)) };
            self.cmdq.send(&mut self.platform, only.encode()).map(|sent| (sent.start, sent.is_complete))
        } else {
            // In this order: what walks between the two finds the new descriptor.
            let few = configuration < capacity;
            let one = (!few).then_some(Command::CfgiAll);
            let each = stale.filter(|_| few).map(|known| Command::CfgiCdAll { stream: known.id });
            let contexts = one.into_iter().chain(each);
            let configuration = if few { configuration } else { 1 };
            let is_full = tlb.clone().nth(capacity - configuration).is_some();
            let all = is_full.then_some(Command::TlbiNhAll { vmid });
            let commands = contexts.chain(all).chain(tlb.filter(|_| !is_full));
            self.cmdq.send_all(&mut self.platform, commands).map(|start| {
                self.cmdq.count_batch(start, configuration as u64);
                (start, self.cmdq.is_drained(&mut self.platform))
            })
        };
        match sent {
            Ok((start, is_complete)) => {
                for known in self.streams.iter_mut().filter(|known| known.s2.vmid == vmid) {
                    known.is_context_stale = false;
                }
                Ok(self.ticket(vmid, start, is_complete))
            }
            Err(error) => Err(self.fail(vmid, error)),
        }
    }
}
