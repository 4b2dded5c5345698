//! A transaction's way through the SMMU: entry, TLB, walk, outcome (IHI 0070 3.3, 15).

use bulkhead_core::{
    addr::{Iova, PhysAddr},
    ids::StreamId,
};

use super::{
    DmaAccess, Outcome, State, Violation,
    config_cache::NoEntry,
    regs::CR0_ATSCHK,
    tlb::{Entry, Hit},
};
use crate::event::{Event, Reason};

/// Stage 2 as an entry has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stage2 {
    vmid: u16,
    pub(super) root: u64,
    ipa_bits: u32,
    /// Level of the root table.
    pub(super) level: u32,
    oas_bits: u32,
    is_recording: bool,
    /// S2HA.
    sets_access_flags: bool,
}

/// A valid entry; `None` in its place is abort.
pub(super) enum Decoded {
    Bypass,
    Stage2(Stage2),
}

/// Why a translation failed.
struct Fault {
    reason: Reason,
    fetch_addr: u64,
}

const fn fault(reason: Reason) -> Fault {
    Fault { reason, fetch_addr: 0 }
}

/// AF of a descriptor.
const ACCESS_FLAG: u64 = 1 << 10;
const RNW: u64 = 1 << 35;
const S2: u64 = 1 << 39;
const CLASS_INPUT: u64 = 2 << 40;

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

    fn note(&mut self, violation: Violation) {
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
        let s2 = match self.decode_entry(&entry) {
            Ok(None) => return Outcome::Aborted,
            Ok(Some(Decoded::Bypass)) => {
                if self.is_armed {
                    self.note(Violation::BypassEntry { stream });
                }
                return Outcome::Bypassed;
            }
            Ok(Some(Decoded::Stage2(s2))) => s2,
            Err(what) => {
                // An invalid entry is how a stream is; a valid one with reserved values is a driver's mistake.
                if entry[0] & 1 != 0 {
                    self.note(Violation::Reserved { what, value: entry[0] });
                }
                return Outcome::Faulted(self.event(Reason::BadSte, stream, 0, 0, 0));
            }
        };
        match self.translate_stage2(&s2, iova.as_u64(), access) {
            Ok(output) => Outcome::Translated(PhysAddr::new(output)),
            Err(_) if !s2.is_recording => Outcome::Aborted,
            Err(Fault { reason, fetch_addr }) => {
                let rnw = if access == DmaAccess::Read { RNW } else { 0 };
                let word3 = if reason == Reason::WalkAbort { fetch_addr } else { iova.as_u64() & !0xfff };
                let word1 = rnw | S2 | CLASS_INPUT;
                Outcome::Faulted(self.event(reason, stream, iova.as_u64(), word1, word3))
            }
        }
    }

    fn event(&self, reason: Reason, stream: StreamId, word2: u64, word1: u64, word3: u64) -> Event {
        let word0 = u64::from(reason.number()) | u64::from(stream.0) << 32;
        Event::decode([word0, word1, word2, word3])
    }

    /// What an entry says; `Err` names what makes it ILLEGAL or not valid (5.2).
    pub(super) fn decode_entry(&self, entry: &[u64; 8]) -> Result<Option<Decoded>, &'static str> {
        let id = self.config.id;
        let check = |is_ok: bool, what| if is_ok { Ok(()) } else { Err(what) };
        check(entry[0] & 1 != 0, "STE.V")?;
        match entry[0] >> 1 & 7 {
            0..=3 => return Ok(None),
            4 => return Ok(Some(Decoded::Bypass)),
            6 => {}
            _ => return Err("STE.Config: stage 1 is not modelled"),
        }
        check(entry[0] >> 4 == 0, "STE word 0")?;
        let has_type_override = id.idr1 & 1 << 27 != 0;
        let shcfg = 3 << 44;
        check(entry[1] & !(1 << 19 | shcfg) == 0, "STE word 1")?;
        check(has_type_override || entry[1] & shcfg == 0, "STE.SHCFG")?;
        let word = entry[2];
        check(word & 0xf800_0000_ffff_0000 == 0, "STE word 2")?;
        let vmid = u16::try_from(word & 0xffff).unwrap_or(0);
        check(id.idr0 & 1 << 18 != 0 || vmid <= 0xff, "STE.S2VMID")?;
        check(word >> 46 & 3 == 0, "STE.S2TG")?;
        check(word >> 51 & 1 == 1, "STE.S2AA64")?;
        check(word >> 52 & 1 == 0, "STE.S2ENDI")?;
        check(word >> 55 & 1 == 0, "STE.S2HD")?;
        let sets_access_flags = word >> 56 & 1 == 1;
        check(!sets_access_flags || id.idr0 & 3 << 6 != 0, "STE.S2HA without HTTU")?;
        // With tables that are not write-back cacheable it is IMPLEMENTATION DEFINED what becomes of an update (5.2).
        check(!sets_access_flags || word >> 40 & 0xf == 0b0101, "STE.S2HA without cacheable walks")?;
        check(word >> 57 & 1 == 0, "STE.S2S")?;
        let oas_bits = [32, 36, 40, 42, 44, 48, 52, 0][(id.idr5 & 7) as usize];
        let s2ps = [32, 36, 40, 42, 44, 48, 52, 0][(word >> 48 & 7) as usize];
        check(s2ps != 0 && s2ps <= oas_bits, "STE.S2PS")?;
        let t0sz = u32::try_from(word >> 32 & 63).unwrap_or(0);
        check((16..=39).contains(&t0sz), "STE.S2T0SZ")?;
        let ipa_bits = 64 - t0sz;
        check(ipa_bits <= oas_bits, "STE.S2T0SZ")?;
        // Up to 16 tables are concatenated at level 2 (DDI 0487 D8.2.2); at the other levels one root table is modelled.
        let (level, low, high) = match word >> 38 & 3 {
            0 => (2, 22, 34),
            1 => (1, 31, 39),
            2 => (0, 40, 48),
            _ => return Err("STE.S2SL0"),
        };
        check((low..=high).contains(&ipa_bits), "STE.S2SL0 with S2T0SZ")?;
        let root = entry[3];
        check(root & !0x0000_ffff_ffff_fff0 == 0 && root >> oas_bits == 0, "STE.S2TTB")?;
        let root_bytes = if level == 2 { 4096 << ipa_bits.saturating_sub(30) } else { 4096 };
        check(root & (root_bytes - 1) == 0, "STE.S2TTB's alignment")?;
        check(entry[4..].iter().all(|word| *word == 0), "STE words 4 to 7")?;
        let is_recording = word >> 58 & 1 == 1;
        let oas_bits = s2ps;
        Ok(Some(Decoded::Stage2(Stage2 { vmid, root, ipa_bits, level, oas_bits, is_recording, sets_access_flags })))
    }

    fn translate_stage2(&mut self, s2: &Stage2, input: u64, access: DmaAccess) -> Result<u64, Fault> {
        let hit = match self.tlb.find(s2.vmid, input) {
            Some(hit) => hit,
            None => self.walk(s2, input)?,
        };
        let is_allowed = match access {
            DmaAccess::Read => hit.is_readable,
            DmaAccess::Write => hit.is_writable,
        };
        if is_allowed { Ok(hit.output) } else { Err(fault(Reason::Permission)) }
    }

    fn walk(&mut self, s2: &Stage2, input: u64) -> Result<Hit, Fault> {
        if input >> s2.ipa_bits != 0 {
            return Err(fault(Reason::Translation));
        }
        let mut table = s2.root;
        for level in s2.level..=3 {
            // Bytes that one descriptor of this level covers.
            let bytes = 1u64 << (39 - 9 * level);
            if level != 3
                && let Some(next) = self.tlb.find_walk(s2.vmid, input, bytes)
            {
                table = next;
                continue;
            }
            let entries = if level == s2.level { u64::MAX } else { 512 };
            let at = table + (input / bytes % entries) * 8;
            let Some(descriptor) = self.memory.device_read(at) else {
                return Err(Fault { reason: Reason::WalkAbort, fetch_addr: at });
            };
            let output = descriptor & 0x0000_ffff_ffff_f000;
            match (descriptor & 3, level) {
                (3, 0..=2) => {
                    if output >> s2.oas_bits != 0 {
                        return Err(fault(Reason::AddressSize));
                    }
                    self.tlb.insert_walk(s2.vmid, input, bytes, output);
                    table = output;
                }
                (1, 1 | 2) | (3, 3) => {
                    if output >> s2.oas_bits != 0 {
                        return Err(fault(Reason::AddressSize));
                    }
                    if descriptor & ACCESS_FLAG == 0 {
                        if !s2.sets_access_flags {
                            return Err(fault(Reason::AccessFlag));
                        }
                        // An atomic update (3.13.2). Before the permission check: there it is UNKNOWN whether it happens.
                        if !self.memory.device_update(at, descriptor, descriptor | ACCESS_FLAG) {
                            // The leaf was taken out meanwhile: a new walk finds nothing.
                            return Err(fault(Reason::Translation));
                        }
                    }
                    let entry = Entry {
                        bytes,
                        output: output & !(bytes - 1),
                        is_readable: descriptor & 1 << 6 != 0,
                        is_writable: descriptor & 1 << 7 != 0,
                    };
                    self.tlb.insert(s2.vmid, input, entry);
                    return self.tlb.find(s2.vmid, input).ok_or(fault(Reason::Translation));
                }
                _ => return Err(fault(Reason::Translation)),
            }
        }
        Err(fault(Reason::Translation))
    }
}
