//! Reading events and global errors, with a budget for each stream (security rule 17).

use super::{Polled, Smmu, StreamInfo};
use crate::{
    budget::Verdict,
    event::Event,
    evtq::Next,
    gerror::{Gerror, GerrorReport},
    platform::Platform,
};

impl<P: Platform> Smmu<P> {
    /// Reads at most `limit` events and hands those within their stream's budget to `report`, with what is known of
    /// the stream (`None`: it has no owner).
    ///
    /// A stream that runs out of its budget is silenced, see [`Smmu::silence`]; what it records until then is counted
    /// as dropped. Streams that no VM ever had have one budget, and who exhausts it is silenced if it has an entry. Call
    /// again while [`Polled::has_more`].
    pub fn poll_events(&mut self, limit: u32, mut report: impl FnMut(&Event, Option<&StreamInfo>)) -> Polled {
        let mut polled = Polled::default();
        let now_us = self.platform.now_us();
        while polled.seen < limit {
            let Next::Event(event) = self.evtq.next(&mut self.platform) else {
                break;
            };
            polled.seen += 1;
            let known = self.streams.iter_mut().find(|known| known.id == event.stream);
            let (verdict, info) = match known {
                Some(known) => {
                    known.faults += 1;
                    (known.budget.take(now_us), Some(known.info()))
                }
                None => {
                    let past = self.past.iter_mut().find(|past| past.id == event.stream);
                    (past.map_or(&mut self.stray_budget, |past| &mut past.budget).take(now_us), None)
                }
            };
            if verdict == Verdict::Report {
                polled.reported += 1;
                report(&event, info.as_ref());
            } else {
                self.counters.events_dropped += 1;
            }
            // A full list is no loss: a stream that goes on is caught in its next window.
            if verdict == Verdict::Silence && (info.is_some() || self.table.find(event.stream).is_some()) {
                let _ = polled.silenced.push(event.stream);
            }
        }
        self.counters.events += u64::from(polled.seen);
        (polled.has_overflowed, polled.has_more) = self.evtq.release(&mut self.platform);
        self.counters.overflows += u64::from(polled.has_overflowed);
        for index in 0..polled.silenced.len() {
            if let Some(stream) = polled.silenced.get(index).copied()
                && let Err(error) = self.silence(stream)
            {
                polled.error = Some(error);
            }
        }
        polled
    }

    /// Reads, acknowledges and tells the global errors. `None` when there are none.
    ///
    /// An error of the command queue is left to the wait that it stopped.
    pub fn handle_gerror(&mut self) -> Option<GerrorReport> {
        let active = Gerror::active(&mut self.platform).difference(Gerror::CMDQ_ERR);
        if active.is_empty() {
            return None;
        }
        self.counters.global_errors += 1;
        Gerror::acknowledge(&mut self.platform, active);
        Some(GerrorReport::new(active))
    }
}
