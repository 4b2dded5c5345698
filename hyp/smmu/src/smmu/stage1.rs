//! Flushes of a guest's stage 1, one CMD_SYNC for all that it gathered (IHI 0070 4.3.4, 4.4.2).

use bulkhead_core::{
    ids::{StreamId, Vmid},
    stage1::{Stage1Flush, Stage1Pages},
};

use super::{Smmu, flush::place};
use crate::{
    cmdq::Sent,
    command::Command,
    error::Error,
    platform::Platform,
    ticket::{Failed, Ticket},
};

/// The command for `flush`; more than it where it cannot be said in one: never less.
#[inline(always)]
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
#[inline(always)]
fn span(pages: u64) -> Option<(u8, u8)> {
    let scale = pages.trailing_zeros().min(31);
    let num = (pages >> scale).checked_sub(1).filter(|num| *num < 32)?;
    Some((u8::try_from(num).ok()?, u8::try_from(scale).ok()?))
}

impl<P: Platform> Smmu<P> {
    /// Has the context descriptor of a stream forgotten, with what is cached of it, by the next
    /// [`submit_stage1`](Self::submit_stage1) of its VM: not before its ticket is redeemed.
    pub fn forget_context(&mut self, stream: StreamId) -> Result<(), Error> {
        let known = self.known_mut(stream)?;
        known.is_context_stale = true;
        self.stale_contexts |= 1 << place(known.s2.vmid);
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
    #[inline(never)]
    pub fn submit_stage1(&mut self, vmid: Vmid, flushes: impl Iterator<Item = Stage1Flush>) -> Result<Ticket, Failed> {
        let has_ranges = self.features.has_range_invalidation;
        let mut commands = flushes.map(|flush| command(vmid, flush, has_ranges).encode());
        let stale = self.streams.iter().filter(|known| known.s2.vmid == vmid && known.is_context_stale).count();
        let (first, second) = (commands.next(), commands.next());
        let sent = match (first, second) {
            (None, _) if stale == 0 => return Ok(self.ticket(vmid, self.cmdq.position(), true)),
            (Some(only), None) if stale == 0 => {
                let sent = self.cmdq.send(&mut self.platform, only);
                sent.map(|sent| (sent.start, sent.is_complete))
            }
            _ => self.send_batch(vmid, stale, [first, second].into_iter().flatten().chain(commands)),
        };
        match sent {
            Ok((start, is_complete)) => Ok(self.ticket(vmid, start, is_complete)),
            Err(error) => Err(self.fail(vmid, error)),
        }
    }

    /// The same for one flush, where nothing has to be looked at first: nothing else is due, and the queue has room at once.
    /// `None`: nothing was done.
    #[inline(always)]
    pub fn submit_stage1_at_once(&mut self, vmid: Vmid, flush: Stage1Flush) -> Option<Ticket> {
        if self.stale_contexts >> place(vmid) & 1 != 0 {
            return None;
        }
        let command = command(vmid, flush, self.features.has_range_invalidation).encode();
        let Sent { start, is_complete } = self.cmdq.send_in_lap(&mut self.platform, command)?;
        Some(Ticket { smmu: self.id, vmid, start, count: 2, is_complete, since_us: Ticket::NEVER })
    }

    /// Sends the `stale` contexts of `vmid` and `commands`: where they start, and whether they are complete.
    fn send_batch(
        &mut self,
        vmid: Vmid,
        stale: usize,
        mut commands: impl Iterator<Item = [u64; 2]>,
    ) -> Result<(u64, bool), Error> {
        let Self { cmdq, platform, streams, stale_contexts, .. } = self;
        let start = cmdq.begin(platform)?;
        *stale_contexts &= !(1 << place(vmid));
        let capacity = cmdq.capacity() as u64;
        let is_few = (stale as u64) < capacity;
        // Contexts first: what is walked between the two finds the new descriptor.
        for known in streams.iter_mut().filter(|known| known.s2.vmid == vmid && known.is_context_stale) {
            known.is_context_stale = false;
            if is_few {
                cmdq.push(platform, Command::CfgiCdAll { stream: known.id }.encode());
            }
        }
        if !is_few {
            cmdq.push(platform, Command::CfgiAll.encode());
        }
        let contexts = cmdq.position();
        let fits = commands.all(|command| {
            let fits = cmdq.position().wrapping_sub(start) != capacity;
            if fits {
                cmdq.push(platform, command);
            }
            fits
        });
        if !fits {
            cmdq.rewind(contexts);
            cmdq.push(platform, Command::TlbiNhAll { vmid }.encode());
        }
        cmdq.finish(platform, start);
        cmdq.count_batch(start, contexts.wrapping_sub(start));
        Ok((start, cmdq.is_drained(platform)))
    }
}
