//! The command queue's consumer and the event queue's producer.

use super::{
    Failure, State, Violation,
    regs::{CR0_CMDQEN, CR0_EVENTQEN, Regs},
};

/// An invalidation that takes effect at the next CMD_SYNC.
#[derive(Clone, Copy, Debug)]
pub(super) enum Invalidation {
    Stream { stream: u32, is_leaf: bool },
    Streams { first: u32, log2: u32 },
    AllConfig,
    Vmid(u16),
    Ipa { vmid: u16, start: u64, bytes: u64, is_leaf: bool },
    Contexts { stream: u32 },
    Stage1 { vmid: u16 },
    Asid { vmid: u16, asid: u16 },
    Va { vmid: u16, asid: Option<u16>, start: u64, bytes: u64, is_leaf: bool },
    AllTlb,
}

const CERROR_ILL: u8 = 1;
const CERROR_ABT: u8 = 2;
const OVERFLOW: u32 = 1 << 31;
const EVENTQ_ABT_ERR: u32 = 1 << 2;
const RES0_COMMAND_LOW: u64 = 0xffff_f800 & !0xffff_f000 | 0x700;

/// Bytes that a TLBI by address covers (4.4.1.1).
fn range_bytes(low: u64, high: u64, has_ranges: bool) -> Result<u64, u8> {
    let (tg, ttl) = (high >> 10 & 3, high >> 8 & 3);
    let (num, scale) = (low >> 12 & 31, low >> 20 & 31);
    let has_fields = (ttl, num, scale) != (0, 0, 0);
    // TG = 0: no range, and the other fields are RES0. TG for 4 KiB alone is modelled.
    match tg {
        0 if !has_fields => Ok(4096),
        1 if has_fields && has_ranges => Ok((4096 * (num + 1)) << scale),
        _ => Err(CERROR_ILL),
    }
}

impl State {
    fn is_halted(&self) -> bool {
        (self.regs.gerror ^ self.regs.gerrorn) & 1 != 0
    }

    pub(super) fn write_cmdq_prod(&mut self, value: u32) {
        let log2 = Regs::log2(self.regs.cmdq_base);
        let mask = (2u32 << log2) - 1;
        if value & !mask != 0 {
            self.reserved64("CMDQ_PROD", u64::from(value & !mask));
        }
        if self.regs.cr0ack & CR0_CMDQEN == 0 {
            self.regs.cmdq_prod = value;
            return;
        }
        let old = self.regs.cmdq_prod & mask;
        let added = value.wrapping_sub(old) & mask;
        let waiting = old.wrapping_sub(self.regs.cmdq_cons) & mask;
        if added + waiting > 1 << log2 {
            self.violations.push(Violation::QueueIndex { register: "CMDQ_PROD", value });
        }
        let start = Regs::queue_start(self.regs.cmdq_base, 16);
        for step in 0..added {
            let index = old.wrapping_add(step) & (mask >> 1);
            let at = start + u64::from(index) * 16;
            if !self.memory.is_published(at) || !self.memory.is_published(at + 8) {
                self.violations.push(Violation::CommandNotPublished { index });
            }
        }
        self.regs.cmdq_prod = value & mask;
        self.command_delay = self.config.lag;
        if self.config.lag == 0 {
            self.run_commands();
        }
    }

    pub(super) fn run_commands(&mut self) {
        let log2 = Regs::log2(self.regs.cmdq_base);
        let mask = (2u32 << log2) - 1;
        let start = Regs::queue_start(self.regs.cmdq_base, 16);
        while self.regs.cr0ack & CR0_CMDQEN != 0
            && !self.is_halted()
            && !self.has_failed(Failure::StuckQueue)
            && (self.regs.cmdq_cons ^ self.regs.cmdq_prod) & mask != 0
        {
            let index = self.regs.cmdq_cons & (mask >> 1);
            let at = start + u64::from(index) * 16;
            let words = self.memory.device_read(at).zip(self.memory.device_read(at + 8));
            let done = match words {
                None => Err(CERROR_ABT),
                Some((low, high)) => self.execute(low, high),
            };
            match done {
                Ok(()) => self.regs.cmdq_cons = self.regs.cmdq_cons.wrapping_add(1) & mask,
                Err(code) => {
                    let read = self.regs.cmdq_cons & mask;
                    self.regs.cmdq_cons = read | u32::from(code) << 24;
                    self.regs.gerror ^= 1;
                }
            }
        }
    }

    fn execute(&mut self, low: u64, high: u64) -> Result<(), u8> {
        let opcode = low.to_le_bytes()[0];
        if let Some(refusal) = self.refusals.iter_mut().find(|refusal| refusal.0 == opcode && refusal.2 != 0) {
            refusal.2 -= 1;
            return Err(refusal.1);
        }
        let id = self.config.id;
        let stream = u32::try_from(low >> 32).unwrap_or(u32::MAX);
        let vmid = u16::try_from(low >> 32 & 0xffff).unwrap_or(u16::MAX);
        let has_vmid16 = id.idr0 & 1 << 18 != 0;
        let check = |is_ok: bool| if is_ok { Ok(()) } else { Err(CERROR_ILL) };
        let asid = u16::try_from(low >> 48).unwrap_or(u16::MAX);
        let asid_check = || check(id.idr0 & 1 << 12 != 0 || asid <= 0xff);
        let vmid_check = || check(has_vmid16 || vmid <= 0xff);
        match opcode {
            // CMD_PREFETCH_CONFIG: a hint.
            0x01 => {}
            0x03 => {
                check(low & (RES0_COMMAND_LOW | 0xffff_f000) == 0 && high & !1 == 0)?;
                let is_leaf = high & 1 != 0;
                self.invalidations.push(Invalidation::Stream { stream, is_leaf });
            }
            0x04 => {
                check(low & (RES0_COMMAND_LOW | 0xffff_f000) == 0 && high & !31 == 0)?;
                let range = u32::try_from(high & 31).unwrap_or(31);
                self.invalidations.push(if range == 31 {
                    Invalidation::AllConfig
                } else {
                    Invalidation::Streams { first: stream >> (range + 1) << (range + 1), log2: range + 1 }
                });
            }
            // Stage 1 (4.3.3, 4.3.4, 4.4.2): CERROR_ILL where there is none.
            0x05 | 0x06 | 0x10..=0x13 if id.idr0 & 1 << 1 == 0 => return Err(CERROR_ILL),
            0x06 => {
                check(low & (RES0_COMMAND_LOW | 0xffff_f000) == 0 && high == 0)?;
                self.invalidations.push(Invalidation::Contexts { stream });
            }
            0x10 => {
                check(low & !0xffff_0000_00ff == 0 && high == 0)?;
                vmid_check()?;
                self.invalidations.push(Invalidation::Stage1 { vmid });
            }
            0x11 => {
                check(low & 0xffff_ff00 == 0 && high == 0)?;
                vmid_check()?;
                asid_check()?;
                self.invalidations.push(Invalidation::Asid { vmid, asid });
            }
            0x12 | 0x13 => {
                let is_all = opcode == 0x13;
                check(high & 0xf0 == 0 && high & 0xe == 0 && low & 0xfe0e_0f00 == 0 && (!is_all || asid == 0))?;
                vmid_check()?;
                asid_check()?;
                let bytes = range_bytes(low, high, id.idr3 & 1 << 10 != 0)?;
                let (start, is_leaf) = (high & !0xfff, high & 1 != 0);
                let asid = (!is_all).then_some(asid);
                self.invalidations.push(Invalidation::Va { vmid, asid, start, bytes, is_leaf });
            }
            0x20 => check(id.idr0 & 1 << 9 != 0 && low & !0xff == 0 && high == 0)?,
            0x28 => {
                check(low & !0xffff_0000_00ff == 0 && high == 0)?;
                vmid_check()?;
                self.invalidations.push(Invalidation::Vmid(vmid));
            }
            0x2a => {
                check(high & 0xfff0_0000_0000_00fe == 0 && low & 0xffff_0000_fe0e_0f00 == 0)?;
                let bytes = range_bytes(low, high, id.idr3 & 1 << 10 != 0)?;
                vmid_check()?;
                let start = high & 0x000f_ffff_ffff_f000;
                let is_leaf = high & 1 != 0;
                self.invalidations.push(Invalidation::Ipa { vmid, start, bytes, is_leaf });
            }
            0x30 => {
                check(low & !0xff == 0 && high == 0)?;
                self.invalidations.push(Invalidation::AllTlb);
            }
            0x46 => {
                // CS = SIG_NONE. An MSI would be written untranslated.
                if low >> 12 & 3 == 1 {
                    self.note(Violation::ForeignMsi);
                }
                check(low & !0xff == 0 && high == 0)?;
                self.complete_invalidations();
            }
            _ => return Err(CERROR_ILL),
        }
        *self.executed.entry(opcode).or_default() += 1;
        Ok(())
    }

    fn complete_invalidations(&mut self) {
        for invalidation in core::mem::take(&mut self.invalidations) {
            match invalidation {
                Invalidation::Stream { stream, is_leaf } => self.configs.forget(stream, is_leaf),
                Invalidation::Streams { first, log2 } => self.configs.forget_range(first, log2),
                Invalidation::AllConfig => self.configs.forget_all(),
                Invalidation::Vmid(vmid) => {
                    self.tlb.forget_vmid(vmid);
                    self.tlb_both.forget_vmid(vmid);
                }
                Invalidation::Ipa { vmid, start, bytes, is_leaf } => {
                    self.tlb.forget_range(vmid, start, bytes, is_leaf);
                }
                Invalidation::Contexts { stream } => self.configs.forget_contexts(stream),
                Invalidation::Stage1 { vmid } => self.tlb_both.forget_vmid(vmid),
                Invalidation::Asid { vmid, asid } => self.tlb_both.forget_asid(vmid, asid),
                Invalidation::Va { vmid, asid, start, bytes, is_leaf } => {
                    self.tlb_both.forget_range(vmid, asid, start, bytes, is_leaf);
                }
                Invalidation::AllTlb => {
                    self.tlb.forget_all();
                    self.tlb_both.forget_all();
                }
            }
        }
    }

    pub(super) fn write_eventq_cons(&mut self, value: u32) {
        let mask = (2u32 << Regs::log2(self.regs.eventq_base)) - 1;
        if self.regs.cr0ack & CR0_EVENTQEN != 0 {
            let had = self.regs.eventq_prod.wrapping_sub(self.regs.eventq_cons) & mask;
            let taken = value.wrapping_sub(self.regs.eventq_cons) & mask;
            let is_ack_wrong = (value ^ self.regs.eventq_prod) & (value ^ self.regs.eventq_cons) & OVERFLOW != 0;
            if taken > had || value & !(mask | OVERFLOW) != 0 || is_ack_wrong {
                self.violations.push(Violation::QueueIndex { register: "EVENTQ_CONS", value });
            }
        }
        self.regs.eventq_cons = value;
    }

    /// Records an event, or notes that there was no room.
    pub(super) fn record(&mut self, words: [u64; 4]) {
        if self.regs.cr0ack & CR0_EVENTQEN == 0 {
            return;
        }
        let log2 = Regs::log2(self.regs.eventq_base);
        let mask = (2u32 << log2) - 1;
        let (prod, cons) = (self.regs.eventq_prod, self.regs.eventq_cons);
        if prod.wrapping_sub(cons) & mask == 1 << log2 {
            // OVFLG is toggled once, until it is acknowledged (7.4).
            if (prod ^ cons) & OVERFLOW == 0 {
                self.regs.eventq_prod ^= OVERFLOW;
            }
            return;
        }
        let start = Regs::queue_start(self.regs.eventq_base, 32);
        let at = start + u64::from(prod & (mask >> 1)) * 32;
        let mut is_written = true;
        for (word, step) in words.into_iter().zip((0u64..).step_by(8)) {
            is_written &= self.memory.device_write(at + step, word);
        }
        if is_written {
            self.regs.eventq_prod = (prod & OVERFLOW) | (prod.wrapping_add(1) & mask);
        } else if (self.regs.gerror ^ self.regs.gerrorn) & EVENTQ_ABT_ERR == 0 {
            self.regs.gerror ^= EVENTQ_ABT_ERR;
        }
    }
}
