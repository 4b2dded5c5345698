//! A guest's stage 1 under stage 2: its context descriptor, its tables, and what comes out of them (IHI 0070 5.4).
//!
//! Modelled are VMSAv8-64 tables of 4 KiB pages behind TTB0, without updates by the SMMU: another descriptor is bad.

use bulkhead_core::{
    addr::{Iova, PhysAddr},
    ids::StreamId,
};

use super::{Caching, DmaAccess, State, Violation, entry::Stage2, tlb::Rights, tlb_both::Both, walk::Fault};
use crate::event::{Class, Reason};

/// What a context descriptor says.
struct Context {
    asid: u16,
    root: u64,
    va_bits: u32,
    /// Level of the root table.
    level: u32,
    ipa_bits: u32,
    /// AFFD.
    ignores_access_flags: bool,
    /// R.
    is_recording: bool,
    /// EPD0.
    is_disabled: bool,
}

/// AF and nG of a descriptor.
const ACCESS_FLAG: u64 = 1 << 10;
const NOT_GLOBAL: u64 = 1 << 11;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

impl State {
    /// Both stages of a transaction.
    pub(super) fn translate_both(
        &mut self,
        stream: StreamId,
        s2: &Stage2,
        context: u64,
        iova: Iova,
        access: DmaAccess,
    ) -> Result<u64, Fault> {
        let descriptor = self.fetch_context(stream, s2, context, iova)?;
        let bad = Fault { is_stage1: true, ..Fault::new(Reason::BadCd) };
        let context = self.decode_context(&descriptor).ok_or(bad)?;
        let found = match self.tlb_both.find(s2.vmid, context.asid, iova.as_u64()) {
            Some(found) => found,
            None => self.walk_both(stream, s2, &context, iova)?,
        };
        if !found.stage1.allow(access) {
            return Err(context.fault(Reason::Permission));
        }
        if !found.stage2.allow(access) {
            return Err(Fault { ipa: Some(found.ipa), ..Fault::new(Reason::Permission) });
        }
        Ok(found.output)
    }

    /// The context descriptor as the SMMU has it, cached by stream.
    fn fetch_context(&mut self, stream: StreamId, s2: &Stage2, at: u64, iova: Iova) -> Result<[u64; 8], Fault> {
        if let Some(words) = self.configs.context(stream.0) {
            return Ok(words);
        }
        let physical = self.fetch_from(stream, s2, at, Class::ContextDescriptor, iova)?;
        let mut words = [0; 8];
        for (word, step) in words.iter_mut().zip((0u64..).step_by(8)) {
            let fault = Fault { is_stage1: true, fetch_addr: physical, ..Fault::new(Reason::CdFetch) };
            *word = self.memory.device_read(physical + step).ok_or(fault)?;
        }
        if words[0] & 1 << 31 != 0 || self.config.caching == Caching::Whole {
            self.configs.keep_context(stream.0, words);
        }
        Ok(words)
    }

    /// Where the SMMU reads what the guest has at `ipa`, which has to be the guest's own.
    fn fetch_from(&mut self, stream: StreamId, s2: &Stage2, ipa: u64, class: Class, iova: Iova) -> Result<u64, Fault> {
        let found = self.translate_stage2(s2, ipa, DmaAccess::Read);
        let at = found.map_err(|fault| Fault { class, ipa: Some(ipa), ..fault })?;
        if !self.ledger.may_reach(stream.0, at) {
            self.note(Violation::Foreign { stream, iova, reached: PhysAddr::new(at) });
        }
        Ok(at)
    }

    /// `None` for one that is not valid, ILLEGAL, or not modelled.
    fn decode_context(&self, words: &[u64; 8]) -> Option<Context> {
        let word = words[0];
        let bit = |at: u32| word >> at & 1 == 1;
        let id = self.config.id;
        let has_terminate_only = id.idr0 & 1 << 26 != 0;
        let (is_valid, is_aarch64, stalls, aborts) = (bit(31), bit(41), bit(44), bit(46));
        if !is_valid || !is_aarch64 || stalls || !aborts && has_terminate_only {
            return None;
        }
        // TG0, ENDI, HD, HA; TTB1 is off.
        if word >> 6 & 3 != 0 || bit(15) || bit(42) || bit(43) || !bit(30) {
            return None;
        }
        let asid = u16::try_from(word >> 48).ok()?;
        if id.idr0 & 1 << 12 == 0 && asid > 0xff {
            return None;
        }
        let sizes = [32, 36, 40, 42, 44, 48, 48, 48];
        let oas_bits = sizes[(id.idr5 & 7) as usize];
        let ipa_bits = sizes[(word >> 32 & 7) as usize].min(oas_bits);
        let t0sz = u32::try_from(word & 63).ok().filter(|t0sz| (16..=39).contains(t0sz))?;
        let va_bits = 64 - t0sz;
        // A level resolves 9 bits above the 12 of a page.
        let level = 4 - (va_bits - 12).div_ceil(9);
        // The table's address is aligned to its size by the SMMU.
        let table_bytes = 8u64 << (va_bits - (39 - 9 * level));
        let root = words[1] & 0x000f_ffff_ffff_fff0 & !(table_bytes - 1);
        (root >> ipa_bits == 0).then_some(Context {
            asid,
            root,
            va_bits,
            level,
            ipa_bits,
            ignores_access_flags: bit(35),
            is_recording: bit(45),
            is_disabled: bit(14),
        })
    }

    fn walk_both(&mut self, stream: StreamId, s2: &Stage2, context: &Context, iova: Iova) -> Result<Both, Fault> {
        let va = iova.as_u64();
        if va >> context.va_bits != 0 || context.is_disabled {
            return Err(context.fault(Reason::Translation));
        }
        // Physical address of the table, once it is known.
        let mut table = None;
        let mut next = context.root;
        for level in context.level..=3 {
            let bytes = 1u64 << (39 - 9 * level);
            if level != 3
                && let Some(cached) = self.tlb_both.find_walk(s2.vmid, context.asid, va, bytes)
            {
                table = Some(cached);
                continue;
            }
            let index = va / bytes % 512;
            let base = match table.take() {
                Some(base) => base,
                None => self.fetch_from(stream, s2, next, Class::TableWalk, iova)?,
            };
            let at = base + index * 8;
            let Some(descriptor) = self.memory.device_read(at) else {
                let class = Class::TableWalk;
                return Err(Fault { class, fetch_addr: at, ..context.fault(Reason::WalkAbort) });
            };
            let output = descriptor & ADDRESS;
            let is_leaf = matches!((descriptor & 3, level), (1, 1 | 2) | (3, 3));
            if !is_leaf && (descriptor & 3 != 3 || level == 3) {
                return Err(context.fault(Reason::Translation));
            }
            if output >> context.ipa_bits != 0 {
                return Err(context.fault(Reason::AddressSize));
            }
            if is_leaf {
                return self.finish_walk(s2, context, va, bytes, descriptor);
            }
            next = output;
            let below = self.fetch_from(stream, s2, next, Class::TableWalk, iova)?;
            self.tlb_both.insert_walk(s2.vmid, context.asid, va, bytes, below);
            table = Some(below);
        }
        Err(context.fault(Reason::Translation))
    }

    /// Stage 2 of what a leaf puts out, and both in the TLB.
    fn finish_walk(
        &mut self,
        s2: &Stage2,
        context: &Context,
        va: u64,
        bytes: u64,
        descriptor: u64,
    ) -> Result<Both, Fault> {
        if descriptor & ACCESS_FLAG == 0 && !context.ignores_access_flags {
            return Err(context.fault(Reason::AccessFlag));
        }
        let ipa = descriptor & ADDRESS & !(bytes - 1) | va & (bytes - 1);
        let hit = self.look_up_stage2(s2, ipa).map_err(|fault| Fault { ipa: Some(ipa), ..fault })?;
        // AP[1]: EL0 may, as a device's transactions are unprivileged; AP[2]: nobody may write.
        let read = descriptor & 1 << 6 != 0;
        let stage1 = Rights { read, write: read && descriptor & 1 << 7 == 0 };
        let size = bytes.min(hit.bytes);
        let mask = !(size - 1);
        let entry = Both { bytes: size, ipa: ipa & mask, output: hit.output & mask, stage1, stage2: hit.rights };
        let asid = (descriptor & NOT_GLOBAL != 0).then_some(context.asid);
        self.tlb_both.insert(s2.vmid, asid, va, entry);
        Ok(Both { ipa, output: hit.output, ..entry })
    }
}

impl Context {
    const fn fault(&self, reason: Reason) -> Fault {
        Fault { is_stage1: true, is_quiet: !self.is_recording, ..Fault::new(reason) }
    }
}
