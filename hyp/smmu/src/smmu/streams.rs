//! A stream's life: attach, silence, detach, quarantine; and the flushes of a VMID (security rules 1, 3-8).

use bulkhead_core::{
    addr::{AddrRange, Iova, Ipa, PAGE_SIZE},
    ids::{StreamId, Vmid},
    stage1::StreamConfig,
    stage2::S2Config,
};
use heapless::Vec;

use super::{Flushed, MAX_STREAMS, Past, Smmu, Stream, StreamState};
use crate::{
    command::Command,
    error::Error,
    platform::Platform,
    ste::{Recording, Ste},
};

/// Commands in one flush of a range; a range that needs more is flushed as a whole VMID.
const RANGE_COMMANDS: usize = 16;

impl<P: Platform> Smmu<P> {
    /// Gives `stream` to the VM of `s2`: its transactions are translated by that table from now on, and by nothing
    /// else until [`configure`](Self::configure) says so.
    ///
    /// Refused, with nothing changed, when the stream has an owner, this one included ("one stream, one VM"), when the
    /// SMMU cannot walk the table, or when the VMID is in use with another. If the SMMU does not answer, the stream is
    /// left quarantined.
    pub fn attach(&mut self, stream: StreamId, s2: &S2Config) -> Result<(), Error> {
        self.attach_as(s2, &self.fresh(stream))
    }

    /// As [`attach`](Self::attach), for a stream that stood by or was taken out: as heard or silent as it was then.
    pub fn attach_again(&mut self, stream: StreamId, s2: &S2Config) -> Result<(), Error> {
        let past = self.past.iter().find(|past| past.id == stream).copied();
        self.attach_as(s2, &past.unwrap_or_else(|| self.fresh(stream)))
    }

    fn fresh(&self, stream: StreamId) -> Past {
        Past { id: stream, state: StreamState::Attached, faults: 0, budget: self.config.budget() }
    }

    #[inline(never)]
    fn attach_as(&mut self, s2: &S2Config, past: &Past) -> Result<(), Error> {
        let Past { id: stream, state, faults, budget } = *past;
        if let Some(known) = self.streams.iter().find(|known| known.id == stream) {
            return Err(match known.state {
                StreamState::Quarantined => Error::StreamQuarantined { stream },
                _ => Error::StreamOwned { stream, owner: known.s2.vmid },
            });
        }
        let last = self.table.last_stream();
        if stream.0 > last {
            return Err(Error::StreamOutOfRange { stream, last });
        }
        let recording = if state == StreamState::Attached { Recording::On } else { Recording::Off };
        let ste = Ste::stage2(s2, &self.features, recording)?;
        let mut peers = self.streams.iter().filter(|known| known.s2.vmid == s2.vmid);
        if let Some(other) = peers.clone().find(|known| known.s2 != *s2) {
            return Err(Error::VmidConflict { vmid: s2.vmid, root: other.s2.root });
        }
        if let Some(bad) = peers.clone().find(|known| known.state == StreamState::Quarantined) {
            return Err(Error::StreamQuarantined { stream: bad.id });
        }
        let is_first = peers.next().is_none();
        let full = Error::Full { what: "attached stream", capacity: MAX_STREAMS };
        if self.streams.is_full() {
            return Err(full);
        }
        if is_first {
            // Whatever a table of an earlier user of this VMID left is gone before the VMID is used again (rule 7).
            let _flushed = self.flush_vmid_now(s2.vmid)?;
        }
        let known = Stream {
            id: stream,
            s2: *s2,
            state: StreamState::Quarantined,
            config: StreamConfig::Bypass,
            had_stage1: false,
            is_context_stale: false,
            faults,
            budget,
        };
        self.streams.push(known).map_err(|_| full)?;
        // An aborted one is in abort by now: a store would have it recorded once more.
        let written = if state == StreamState::Aborted { Ok(()) } else { self.write_entry(stream, &ste) };
        match written {
            Ok(()) => {
                self.set_state(stream, state);
                self.counters.attaches += 1;
                Ok(())
            }
            Err(error) if matches!(error, Error::NoMemory { .. } | Error::BadMemory { .. } | Error::Full { .. }) => {
                // Nothing was written.
                self.streams.retain(|known| known.id != stream);
                Err(error)
            }
            Err(error) => {
                self.invalidate_entry(stream);
                Err(error)
            }
        }
    }

    /// Takes `stream` away from its VM: abort, forgotten by the SMMU, and its VMID's translations flushed.
    ///
    /// `Ok` proves that the stream reaches nothing any more, and that no cached translation of its VM is left. After
    /// an error the stream is quarantined, its VM's memory has to be kept, and the call can be made again.
    pub fn detach(&mut self, stream: StreamId) -> Result<Flushed, Error> {
        let known = self.known(stream)?;
        let (vmid, state) = (known.s2.vmid, known.state);
        let written = if state == StreamState::Aborted { Ok(()) } else { self.write_entry(stream, &Ste::abort()) };
        let taken = written.and_then(|()| self.flush_vmid_now(vmid));
        match taken {
            Ok(flushed) => {
                self.streams.retain(|known| known.id != stream);
                self.cmdq.set_nested(self.streams.iter().any(|known| known.had_stage1));
                self.counters.detaches += 1;
                Ok(flushed)
            }
            Err(error) => {
                self.invalidate_entry(stream);
                self.set_state(stream, StreamState::Quarantined);
                Err(error)
            }
        }
    }

    /// As [`detach`](Self::detach), for a stream that its VM may attach anew, elsewhere: its budget and its silence are
    /// kept until [`stand_by`](Self::stand_by). Else who is silenced would attach itself again, and not be.
    pub fn take_out(&mut self, stream: StreamId) -> Result<Flushed, Error> {
        let Stream { state, faults, budget, .. } = *self.known(stream)?;
        let flushed = self.detach(stream)?;
        // A quarantine ends with the detach.
        let state = if state == StreamState::Quarantined { StreamState::Attached } else { state };
        self.keep(Past { id: stream, state, faults, budget });
        Ok(flushed)
    }

    fn keep(&mut self, past: Past) {
        self.past.retain(|known| known.id != past.id);
        if self.past.is_full() {
            let _ = self.past.swap_remove(0);
        }
        let _ = self.past.push(past);
    }

    /// Makes ready a stream that its VM is to attach by and by: it has an entry of its own, in abort, what it does is
    /// recorded, and its budget is full.
    pub fn stand_by(&mut self, stream: StreamId) -> Result<(), Error> {
        if let Some(known) = self.find_stream(stream) {
            return Err(Error::StreamOwned { stream, owner: known.vmid });
        }
        self.keep(self.fresh(stream));
        self.write_entry(stream, &Ste::invalid())
    }

    /// Puts `stream` in silent abort at once. An attached stream stays its VM's, until it is detached; one without an
    /// owner has an entry of its own from now on, so that what its device does is not even recorded.
    pub fn quarantine(&mut self, stream: StreamId) -> Result<(), Error> {
        match self.write_entry(stream, &Ste::abort()) {
            Ok(()) => {
                if self.state(stream) != Some(StreamState::Quarantined) {
                    self.set_state(stream, StreamState::Aborted);
                }
                Ok(())
            }
            Err(error) => {
                self.invalidate_entry(stream);
                self.set_state(stream, StreamState::Quarantined);
                Err(error)
            }
        }
    }

    /// Makes a stream that floods the event queue quiet. First its faults are aborted without a record (S2R = 0) and
    /// what it does within its VM's memory goes on; when that did not help, and where a guest's stage 1 decides what is
    /// recorded, everything it does is aborted (rule 17). One without an owner, which is in abort, is not recorded any more.
    pub fn silence(&mut self, stream: StreamId) -> Result<StreamState, Error> {
        let Ok(known) = self.known(stream) else {
            if let Some(past) = self.past.iter_mut().find(|past| past.id == stream) {
                past.state = match past.state {
                    StreamState::Attached => StreamState::Silenced,
                    _ => StreamState::Aborted,
                };
            }
            self.quarantine(stream)?;
            return Ok(StreamState::Aborted);
        };
        if known.state != StreamState::Attached || matches!(known.config, StreamConfig::Stage1(_)) {
            self.quarantine(stream)?;
            return Ok(self.known(stream)?.state);
        }
        let quiet = self.entry(known, &known.config, StreamState::Silenced)?;
        self.rewrite(stream, &quiet, StreamState::Silenced)
    }

    /// Records a silenced stream's faults again.
    pub fn unsilence(&mut self, stream: StreamId) -> Result<StreamState, Error> {
        let known = self.known(stream)?;
        if known.state != StreamState::Silenced {
            return Ok(known.state);
        }
        let loud = self.entry(known, &known.config, StreamState::Attached)?;
        self.rewrite(stream, &loud, StreamState::Attached)
    }

    /// Makes the SMMU forget every translation of `vmid`. After an error nothing may be reused, and the streams of
    /// `vmid` are quarantined.
    pub fn flush_vmid(&mut self, vmid: Vmid) -> Result<Flushed, Error> {
        self.flush_vmid_now(vmid).inspect_err(|_| self.quarantine_vmid(vmid))
    }

    /// Makes the SMMU forget the translations of `range` for `vmid`: by range commands where it has them, by page
    /// where they are few, by VMID else and where a guest's stage 1 was in use. After an error as [`flush_vmid`](Self::flush_vmid).
    pub fn flush_range(&mut self, vmid: Vmid, range: AddrRange<Iova>) -> Result<Flushed, Error> {
        let commands = if self.had_stage1(vmid) { None } else { self.range_commands(vmid, range) };
        let Some(commands) = commands else {
            return self.flush_vmid(vmid);
        };
        match self.cmdq.submit(&mut self.platform, &commands) {
            Ok(()) => {
                self.counters.range_flushes += 1;
                Ok(Flushed { vmid })
            }
            Err(error) => {
                self.quarantine_vmid(vmid);
                Err(error)
            }
        }
    }

    fn flush_vmid_now(&mut self, vmid: Vmid) -> Result<Flushed, Error> {
        self.cmdq.submit(&mut self.platform, &[Command::TlbiS12Vmall { vmid }])?;
        self.counters.vmid_flushes += 1;
        Ok(Flushed { vmid })
    }

    /// The commands that flush `range`, or `None` when a whole VMID is the cheaper way.
    fn range_commands(&self, vmid: Vmid, range: AddrRange<Iova>) -> Option<Vec<Command, RANGE_COMMANDS>> {
        let range = range.align_outward(PAGE_SIZE)?;
        let mut page = range.start().as_u64() / PAGE_SIZE;
        let mut pages = range.size_bytes() / PAGE_SIZE;
        let mut commands = Vec::new();
        while pages != 0 {
            let ipa = Ipa::new(page * PAGE_SIZE);
            // One range command clears (num + 1) << scale pages (4.4.1.1).
            let (command, done) = if self.features.has_range_invalidation && pages > 1 {
                let scale = u8::try_from(pages.trailing_zeros()).ok()?.min(31);
                let count = (pages >> scale).min(32);
                let num = u8::try_from(count - 1).ok()?;
                (Command::TlbiS2IpaRange { vmid, ipa, num, scale, is_leaf: false }, count << scale)
            } else {
                (Command::TlbiS2Ipa { vmid, ipa, is_leaf: false }, 1)
            };
            commands.push(command).ok()?;
            page += done;
            pages -= done;
        }
        Some(commands)
    }

    /// A flush of `vmid` did not finish: its streams are stopped as far as memory goes, and kept until a detach
    /// succeeds (rule 5).
    pub(super) fn quarantine_vmid(&mut self, vmid: Vmid) {
        for index in 0..self.streams.len() {
            let Some(known) = self.streams.get_mut(index).filter(|known| known.s2.vmid == vmid) else {
                continue;
            };
            known.state = StreamState::Quarantined;
            let stream = known.id;
            self.invalidate_entry(stream);
        }
    }

    pub(super) fn rewrite(&mut self, stream: StreamId, ste: &Ste, state: StreamState) -> Result<StreamState, Error> {
        match self.write_entry(stream, ste) {
            Ok(()) => {
                self.set_state(stream, state);
                Ok(state)
            }
            Err(error) => {
                self.invalidate_entry(stream);
                self.set_state(stream, StreamState::Quarantined);
                Err(error)
            }
        }
    }

    pub(super) fn known(&self, stream: StreamId) -> Result<&Stream, Error> {
        self.streams.iter().find(|known| known.id == stream).ok_or(Error::NotAttached { stream })
    }

    pub(super) fn known_mut(&mut self, stream: StreamId) -> Result<&mut Stream, Error> {
        self.streams.iter_mut().find(|known| known.id == stream).ok_or(Error::NotAttached { stream })
    }

    fn state(&self, stream: StreamId) -> Option<StreamState> {
        self.streams.iter().find(|known| known.id == stream).map(|known| known.state)
    }

    pub(super) fn set_state(&mut self, stream: StreamId, state: StreamState) {
        if let Some(known) = self.streams.iter_mut().find(|known| known.id == stream) {
            known.state = state;
        }
    }
}
