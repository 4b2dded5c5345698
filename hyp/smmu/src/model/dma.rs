//! A transaction's way through the SMMU: entry, TLB, walk, outcome (IHI 0070 3.3, 15).

use bulkhead_core::{
    addr::{Iova, PhysAddr},
    ids::StreamId,
};

use super::{
    DmaAccess, Outcome, State, Violation, config_cache::NoEntry, entry::Decoded, regs::CR0_ATSCHK, walk::Fault,
};
use crate::event::{Class, Event, Reason};

const RNW: u64 = 1 << 35;
const S2: u64 = 1 << 39;

impl State {
    /// The attacks, after a step of the driver.
    pub(super) fn step(&mut self) {
        for index in 0..self.attacks.len() {
            let attack = self.attacks[index];
            for access in [DmaAccess::Read, DmaAccess::Write] {
                self.transact(attack.stream, attack.iova, access, false);
            }
        }
    }

    /// One transaction, and whether it should have been let through.
    pub(super) fn transact(&mut self, stream: StreamId, iova: Iova, access: DmaAccess, is_recorded: bool) -> Outcome {
        let outcome = self.translate(stream, iova, access);
        match outcome {
            Outcome::Translated(reached) if !self.ledger.may_reach(stream.0, reached.as_u64()) => {
                self.note(Violation::Foreign { stream, iova, reached });
            }
            Outcome::Bypassed if self.is_armed => self.note(Violation::Untranslated { stream }),
            Outcome::Faulted(event) if is_recorded => self.record(event.raw),
            _ => {}
        }
        outcome
    }

    /// A transaction marked as translated: checked only with ATSCHK (5.2, STE.EATS).
    pub(super) fn transact_translated(&mut self, stream: StreamId, at: PhysAddr) -> Outcome {
        let has_ats = self.config.id.idr0 & 1 << 10 != 0;
        if !has_ats || !self.regs.is_enabled() {
            return Outcome::Aborted;
        }
        if self.regs.cr0ack & CR0_ATSCHK == 0 {
            self.note(Violation::Untranslated { stream });
            return Outcome::Bypassed;
        }
        match self.fetch_entry(stream.0).map(|entry| self.decode_entry(&entry)) {
            Ok(Ok(Some(_))) => {
                // EATS is 0 in every entry that decodes.
                let event = self.event(Reason::TranslatedForbidden, stream, at.as_u64(), 0, 0);
                self.record(event.raw);
                Outcome::Faulted(event)
            }
            _ => Outcome::Aborted,
        }
    }

    pub(super) fn note(&mut self, violation: Violation) {
        if !self.violations.contains(&violation) {
            self.violations.push(violation);
        }
    }

    fn translate(&mut self, stream: StreamId, iova: Iova, access: DmaAccess) -> Outcome {
        if !self.regs.is_enabled() {
            return if self.regs.is_aborting() { Outcome::Aborted } else { Outcome::Bypassed };
        }
        let records_bad_streams = self.regs.cr2 & 0b10 != 0;
        let entry = match self.fetch_entry(stream.0) {
            Ok(entry) => entry,
            Err(NoEntry::BadStream) if !records_bad_streams => return Outcome::Aborted,
            Err(NoEntry::BadStream) => {
                return Outcome::Faulted(self.event(Reason::BadStreamId, stream, 0, 0, 0));
            }
            Err(NoEntry::Fetch(at)) => {
                return Outcome::Faulted(self.event(Reason::SteFetch, stream, 0, 0, at));
            }
        };
        let (s2, context) = match self.decode_entry(&entry) {
            Ok(None) => return Outcome::Aborted,
            Ok(Some(Decoded::Unconfined)) => {
                if self.is_armed {
                    self.note(Violation::BypassEntry { stream });
                }
                return Outcome::Bypassed;
            }
            Ok(Some(Decoded::Stage2(s2, context))) => (s2, context),
            Err(what) => {
                // An invalid entry is how a stream is; a valid one with reserved values is a driver's mistake.
                if entry[0] & 1 != 0 {
                    self.note(Violation::Reserved { what, value: entry[0] });
                }
                return Outcome::Faulted(self.event(Reason::BadSte, stream, 0, 0, 0));
            }
        };
        let translated = match context {
            Some(context) => self.translate_both(stream, &s2, context, iova, access),
            None => self.translate_stage2(&s2, iova.as_u64(), access),
        };
        match translated {
            Ok(output) => Outcome::Translated(PhysAddr::new(output)),
            Err(fault) => self.fault(stream, iova, access, s2.is_recording, &fault),
        }
    }

    /// The event of a fault, if it is recorded: A, R and S say so of four kinds (5.5).
    fn fault(&self, stream: StreamId, iova: Iova, access: DmaAccess, is_recording: bool, fault: &Fault) -> Outcome {
        let reason = fault.reason;
        let is_suppressed = if fault.is_stage1 { fault.is_quiet } else { !is_recording };
        if is_suppressed && matches!(reason.number(), 0x10..=0x13) {
            return Outcome::Aborted;
        }
        let (word1, word2, word3) = match reason {
            Reason::BadCd => (0, 0, 0),
            Reason::CdFetch => (0, 0, fault.fetch_addr),
            _ => {
                let class = match fault.class {
                    Class::ContextDescriptor => 0,
                    Class::TableWalk => 1,
                    _ => 2,
                };
                let rnw = if access == DmaAccess::Read { RNW } else { 0 };
                let stage = if fault.is_stage1 { 0 } else { S2 };
                let ipa = if fault.is_stage1 { 0 } else { fault.ipa.unwrap_or(iova.as_u64()) & !0xfff };
                let word3 = if reason == Reason::WalkAbort { fault.fetch_addr } else { ipa };
                (rnw | stage | class << 40, iova.as_u64(), word3)
            }
        };
        Outcome::Faulted(self.event(reason, stream, word2, word1, word3))
    }

    fn event(&self, reason: Reason, stream: StreamId, word2: u64, word1: u64, word3: u64) -> Event {
        let word0 = u64::from(reason.number()) | u64::from(stream.0) << 32;
        Event::decode([word0, word1, word2, word3])
    }
}
