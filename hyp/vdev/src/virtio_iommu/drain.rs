//! The request queue: taken in bounded turns, flushed once, then published.

use super::{
    Next, VirtioIommu,
    chain::{Answer, Chain},
    domains::{Domains, Failed},
    probe,
    queue::Broken,
    request::{Request, Status, TAIL_BYTES},
    serve::{Step, Work},
    transport::{feature, interrupt},
};
use crate::dmamap::GuestMemory;

/// Most requests, or steps of a long one, of one call.
pub const REQUESTS_MAX: usize = 64;
/// Requests' worth of work that a change of domain is: some CMD_SYNCs of the SMMU, each waited for.
const CHANGE_WORK: usize = 8;

/// A request that is not finished.
#[derive(Debug)]
pub struct Pending {
    head: u16,
    answer: Answer,
    work: Work,
}

impl From<Failed> for Broken {
    fn from(_: Failed) -> Self {
        Self
    }
}

impl VirtioIommu {
    /// The request queue is notified.
    pub(super) fn drain(&mut self, memory: &mut impl GuestMemory, domains: &mut impl Domains) -> Next {
        if !self.transport.is_live() || !self.requests.is_ready {
            return Next::Done;
        }
        let outcome = self.serve_some(memory, domains).and_then(|next| {
            self.publish(memory, domains)?;
            Ok(next)
        });
        outcome.unwrap_or_else(|Broken| {
            self.transport.break_down();
            Next::Done
        })
    }

    fn serve_some(&mut self, memory: &mut impl GuestMemory, domains: &mut impl Domains) -> Result<Next, Broken> {
        let mut left = REQUESTS_MAX;
        while left > 0 {
            let (work, pending) = match self.pending.take() {
                Some(pending) => (1, Some(pending)),
                None if self.requests.waiting(memory)? == 0 => return Ok(Next::Done),
                None => self.serve_next(memory, domains)?,
            };
            left = left.saturating_sub(work);
            let Some(Pending { head, answer, work }) = pending else { continue };
            match work.step(domains)? {
                Step::Done(status) => self.finish(memory, head, &answer, status)?,
                Step::More(work) => {
                    self.pending = Some(Pending { head, answer, work });
                    return Ok(Next::More);
                }
            }
        }
        Ok(if self.requests.waiting(memory)? == 0 { Next::Done } else { Next::More })
    }

    /// Takes a request, which waits, and answers it: the work that it was, and what it left to do.
    fn serve_next(
        &mut self,
        memory: &mut impl GuestMemory,
        domains: &mut impl Domains,
    ) -> Result<(usize, Option<Pending>), Broken> {
        let head = self.requests.take(memory)?;
        let buffer =
            Chain::read(&self.requests, memory, head).filter(|chain| chain.answer.bytes() >= TAIL_BYTES as u64);
        let request = buffer.as_ref().and_then(|chain| Request::decode(chain.request()));
        let (Some(Chain { answer, .. }), Some(request)) = (buffer, request) else {
            self.give_back(memory, head)?;
            return Ok((1, None));
        };
        let cost = if matches!(request, Request::Attach { .. } | Request::Detach { .. }) { CHANGE_WORK } else { 1 };
        if let Request::Probe { endpoint } = request
            && self.transport.has(feature::PROBE)
        {
            self.probe(memory, head, &answer, endpoint)?;
            return Ok((cost, None));
        }
        match self.begin(request, domains)? {
            Some(Step::Done(status)) => self.finish(memory, head, &answer, status)?,
            Some(Step::More(work)) => return Ok((cost, Some(Pending { head, answer, work }))),
            None => self.give_back(memory, head)?,
        }
        Ok((cost, None))
    }

    /// Answers with a status.
    fn finish(
        &mut self,
        memory: &mut impl GuestMemory,
        head: u16,
        answer: &Answer,
        status: Status,
    ) -> Result<(), Broken> {
        self.answer(memory, head, answer, &status.tail(), status)
    }

    /// Answers with properties and a status; with zeros for properties where the status is not OK.
    fn probe(
        &mut self,
        memory: &mut impl GuestMemory,
        head: u16,
        answer: &Answer,
        endpoint: u32,
    ) -> Result<(), Broken> {
        const LIST: usize = probe::BYTES as usize;
        let room = usize::try_from(answer.bytes().saturating_sub(TAIL_BYTES as u64)).unwrap_or(LIST).min(LIST);
        let status = match (self.has_endpoint(endpoint), room < LIST) {
            (false, _) => Status::Noent,
            (true, true) => Status::Inval,
            (true, false) => Status::Ok,
        };
        let list = if status == Status::Ok { probe::properties(&self.ability) } else { [0; LIST] };
        let mut text = [0; LIST + TAIL_BYTES];
        let whole = list.into_iter().take(room).chain(status.tail());
        text.iter_mut().zip(whole).for_each(|(place, byte)| *place = byte);
        self.answer(memory, head, answer, text.get(..room + TAIL_BYTES).unwrap_or(&text), status)
    }

    fn answer(
        &mut self,
        memory: &mut impl GuestMemory,
        head: u16,
        answer: &Answer,
        text: &[u8],
        status: Status,
    ) -> Result<(), Broken> {
        self.tally.requests = self.tally.requests.wrapping_add(1);
        self.tally.refused = self.tally.refused.wrapping_add(u64::from(status != Status::Ok));
        let written = answer.write(memory, 0, text).and_then(|()| u32::try_from(text.len()).ok());
        self.requests.fill(memory, head, written.unwrap_or(0))
    }

    /// Gives back what is no request: nothing written.
    fn give_back(&mut self, memory: &mut impl GuestMemory, head: u16) -> Result<(), Broken> {
        self.tally.requests = self.tally.requests.wrapping_add(1);
        self.tally.refused = self.tally.refused.wrapping_add(1);
        self.requests.fill(memory, head, 0)
    }

    /// Flushes, and only then tells the driver.
    fn publish(&mut self, memory: &mut impl GuestMemory, domains: &mut impl Domains) -> Result<(), Broken> {
        if !self.requests.has_filled() {
            return Ok(());
        }
        domains.sync()?;
        if self.requests.publish(memory)? {
            self.transport.interrupt |= interrupt::USED;
        }
        Ok(())
    }
}
