//! The register file: what can be written when, what it takes, and when it takes effect.

use std::vec::Vec;

use super::{Failure, ModelConfig, State, Violation};
use crate::registers::{QUEUE_BASE_ADDR, STRTAB_BASE_ADDR, offset};

pub(super) const CR0_SMMUEN: u32 = 1;
pub(super) const CR0_EVENTQEN: u32 = 1 << 2;
pub(super) const CR0_CMDQEN: u32 = 1 << 3;
pub(super) const CR0_ATSCHK: u32 = 1 << 4;
const GBPA_ABORT: u32 = 1 << 20;
const GBPA_UPDATE: u32 = 1 << 31;
const ALLOCATE: u64 = 1 << 62;

pub(super) struct Regs {
    /// What was written, and what has taken effect.
    pub(super) cr0: u32,
    pub(super) cr0ack: u32,
    cr0_delay: u32,
    cr1: u32,
    pub(super) cr2: u32,
    gbpa: u32,
    gbpa_pending: Option<(u32, u32)>,
    irq_ctrl: u32,
    irq_ctrlack: u32,
    irq_delay: u32,
    pub(super) gerror: u32,
    pub(super) gerrorn: u32,
    irq_cfg0: [u64; 3],
    pub(super) strtab_base: u64,
    pub(super) strtab_cfg: u32,
    pub(super) cmdq_base: u64,
    pub(super) cmdq_prod: u32,
    pub(super) cmdq_cons: u32,
    pub(super) eventq_base: u64,
    pub(super) eventq_prod: u32,
    pub(super) eventq_cons: u32,
}

impl Regs {
    pub(super) fn new(config: &ModelConfig) -> Self {
        let on = config.is_left_on;
        let cr0 = if on { CR0_SMMUEN | CR0_EVENTQEN | CR0_CMDQEN } else { 0 };
        let firmware = 0xff00_0000;
        Self {
            cr0,
            cr0ack: cr0,
            cr0_delay: 0,
            cr1: 0,
            cr2: 0,
            // Reset value: SHCFG is "incoming", ABORT is 0.
            gbpa: 0x1000,
            gbpa_pending: None,
            irq_ctrl: if on { 0b101 } else { 0 },
            irq_ctrlack: if on { 0b101 } else { 0 },
            irq_delay: 0,
            gerror: if on { 0b100 } else { 0 },
            gerrorn: 0,
            irq_cfg0: [if on { firmware } else { 0 }; 3],
            strtab_base: if on { firmware } else { 0 },
            strtab_cfg: if on { 6 } else { 0 },
            cmdq_base: if on { firmware | 5 } else { 0 },
            cmdq_prod: if on { 3 } else { 0 },
            cmdq_cons: if on { 3 } else { 0 },
            eventq_base: if on { firmware | 5 } else { 0 },
            eventq_prod: if on { 7 | 1 << 31 } else { 0 },
            eventq_cons: if on { 5 } else { 0 },
        }
    }

    pub(super) const fn is_enabled(&self) -> bool {
        self.cr0ack & CR0_SMMUEN != 0
    }

    pub(super) const fn is_aborting(&self) -> bool {
        self.gbpa & GBPA_ABORT != 0
    }

    /// Base-2 logarithm of the entries of a queue, from its base register.
    pub(super) const fn log2(base: u64) -> u32 {
        (base & 31) as u32
    }

    /// Where the hardware takes a queue of `2^log2` entries of `entry_bytes` to be.
    pub(super) const fn queue_start(base: u64, entry_bytes: u64) -> u64 {
        (base & QUEUE_BASE_ADDR) & !((entry_bytes << Self::log2(base)) - 1)
    }
}

impl State {
    pub(super) fn has_failed(&self, failure: Failure) -> bool {
        self.failures.contains(&failure)
    }

    pub(super) fn read_register32(&mut self, at: u32) -> u32 {
        let id = self.config.id;
        match at {
            offset::IDR0 => id.idr0,
            offset::IDR1 => id.idr1,
            offset::IDR3 => id.idr3,
            offset::IDR5 => id.idr5,
            offset::AIDR => id.aidr,
            offset::CR0 => self.regs.cr0,
            offset::CR0ACK => {
                self.settle_cr0(false);
                self.regs.cr0ack
            }
            offset::CR1 => self.regs.cr1,
            offset::CR2 => self.regs.cr2,
            offset::GBPA => {
                self.settle_gbpa();
                let busy = if self.regs.gbpa_pending.is_some() { GBPA_UPDATE } else { 0 };
                self.regs.gbpa | busy
            }
            offset::IRQ_CTRL => self.regs.irq_ctrl,
            offset::IRQ_CTRLACK => {
                if !self.has_failed(Failure::StuckIrqCtrl) {
                    if self.regs.irq_delay == 0 {
                        self.regs.irq_ctrlack = self.regs.irq_ctrl;
                    }
                    self.regs.irq_delay = self.regs.irq_delay.saturating_sub(1);
                }
                self.regs.irq_ctrlack
            }
            offset::GERROR => self.regs.gerror,
            offset::GERRORN => self.regs.gerrorn,
            offset::STRTAB_BASE_CFG => self.regs.strtab_cfg,
            offset::CMDQ_PROD => self.regs.cmdq_prod,
            offset::CMDQ_CONS => {
                if self.has_failed(Failure::WildCons) {
                    return self.regs.cmdq_prod.wrapping_add(5);
                }
                if self.command_delay == 0 {
                    self.run_commands();
                }
                self.command_delay = self.command_delay.saturating_sub(1);
                self.regs.cmdq_cons
            }
            offset::EVENTQ_PROD => self.regs.eventq_prod,
            offset::EVENTQ_CONS => self.regs.eventq_cons,
            _ => {
                self.register_violation(at, "not a 32-bit register");
                0
            }
        }
    }

    pub(super) fn read_register64(&mut self, at: u32) -> u64 {
        match at {
            offset::STRTAB_BASE => self.regs.strtab_base,
            offset::CMDQ_BASE => self.regs.cmdq_base,
            offset::EVENTQ_BASE => self.regs.eventq_base,
            offset::GERROR_IRQ_CFG0 => self.regs.irq_cfg0[0],
            offset::EVENTQ_IRQ_CFG0 => self.regs.irq_cfg0[1],
            offset::PRIQ_IRQ_CFG0 => self.regs.irq_cfg0[2],
            _ => {
                self.register_violation(at, "not a 64-bit register");
                0
            }
        }
    }

    pub(super) fn write_register32(&mut self, at: u32, value: u32) {
        let cr0 = self.regs.cr0 | self.regs.cr0ack;
        match at {
            offset::CR0 => self.write_cr0(value),
            offset::CR1 => {
                self.reserved("CR1", value & !0xfff);
                self.guard("CR1", cr0 & (CR0_SMMUEN | CR0_EVENTQEN | CR0_CMDQEN) != 0);
                self.regs.cr1 = value & 0xfff;
            }
            offset::CR2 => {
                let has_broadcast = self.config.id.idr0 & 1 << 5 != 0;
                self.reserved("CR2", value & !if has_broadcast { 0b110 } else { 0b010 });
                self.guard("CR2", cr0 & CR0_SMMUEN != 0);
                self.regs.cr2 = value;
            }
            offset::GBPA => self.write_gbpa(value),
            offset::IRQ_CTRL => {
                self.reserved("IRQ_CTRL", value & !0b111);
                self.guard("IRQ_CTRL", self.regs.irq_ctrl != self.regs.irq_ctrlack);
                let has_msi = self.config.id.idr0 & 1 << 13 != 0;
                if value != 0 && has_msi && self.regs.irq_cfg0[..2] != [0, 0] {
                    self.violations.push(Violation::ForeignMsi);
                }
                self.regs.irq_ctrl = value & 0b111;
                self.regs.irq_delay = self.config.lag;
            }
            offset::GERRORN => self.write_gerrorn(value),
            offset::STRTAB_BASE_CFG => {
                self.reserved("STRTAB_BASE_CFG", value & !0x307ff);
                self.guard("STRTAB_BASE_CFG", cr0 & CR0_SMMUEN != 0);
                self.regs.strtab_cfg = value & 0x307ff;
            }
            offset::CMDQ_PROD => self.write_cmdq_prod(value),
            offset::CMDQ_CONS => {
                self.guard("CMDQ_CONS", cr0 & CR0_CMDQEN != 0);
                self.regs.cmdq_cons = value;
            }
            offset::EVENTQ_PROD => {
                self.guard("EVENTQ_PROD", cr0 & CR0_EVENTQEN != 0);
                self.regs.eventq_prod = value;
            }
            offset::EVENTQ_CONS => self.write_eventq_cons(value),
            _ => self.register_violation(at, "not a 32-bit register that can be written"),
        }
    }

    pub(super) fn write_register64(&mut self, at: u32, value: u64) {
        let cr0 = self.regs.cr0 | self.regs.cr0ack;
        let kept = if self.has_failed(Failure::ShortBases) { value & 0xffff_ffff } else { value };
        match at {
            offset::STRTAB_BASE => {
                self.reserved64("STRTAB_BASE", value & !(STRTAB_BASE_ADDR | ALLOCATE));
                self.guard("STRTAB_BASE", cr0 & CR0_SMMUEN != 0);
                self.regs.strtab_base = kept;
                self.configs.forget_tables();
            }
            offset::CMDQ_BASE => {
                self.reserved64("CMDQ_BASE", value & !(QUEUE_BASE_ADDR | ALLOCATE | 31));
                self.guard("CMDQ_BASE", cr0 & CR0_CMDQEN != 0);
                self.regs.cmdq_base = kept;
            }
            offset::EVENTQ_BASE => {
                self.reserved64("EVENTQ_BASE", value & !(QUEUE_BASE_ADDR | ALLOCATE | 31));
                self.guard("EVENTQ_BASE", cr0 & CR0_EVENTQEN != 0);
                self.regs.eventq_base = kept;
            }
            offset::GERROR_IRQ_CFG0 | offset::EVENTQ_IRQ_CFG0 | offset::PRIQ_IRQ_CFG0 => {
                if self.config.id.idr0 & 1 << 13 == 0 {
                    self.register_violation(at, "there are no MSIs");
                }
                self.guard("IRQ_CFG0", self.regs.irq_ctrl | self.regs.irq_ctrlack != 0);
                let index = match at {
                    offset::GERROR_IRQ_CFG0 => 0,
                    offset::EVENTQ_IRQ_CFG0 => 1,
                    _ => 2,
                };
                self.regs.irq_cfg0[index] = value;
            }
            _ => self.register_violation(at, "not a 64-bit register that can be written"),
        }
    }

    fn write_cr0(&mut self, value: u32) {
        let has_ats = self.config.id.idr0 & 1 << 10 != 0;
        let known = CR0_SMMUEN | CR0_EVENTQEN | CR0_CMDQEN | if has_ats { CR0_ATSCHK } else { 0 };
        self.reserved("CR0", value & !known);
        self.guard("CR0", self.regs.cr0 != self.regs.cr0ack);
        let rising = value & !self.regs.cr0ack;
        self.check_bases(rising);
        self.regs.cr0 = value & known;
        self.regs.cr0_delay = self.config.lag;
        if self.config.lag == 0 {
            self.settle_cr0(true);
        }
    }

    fn settle_cr0(&mut self, is_write: bool) {
        if self.has_failed(Failure::StuckCr0) {
            return;
        }
        if self.regs.cr0_delay != 0 && !is_write {
            self.regs.cr0_delay -= 1;
            return;
        }
        let (old, new) = (self.regs.cr0ack, self.regs.cr0);
        if old & !new & CR0_SMMUEN != 0 && !self.regs.is_aborting() {
            self.violations.push(Violation::DisabledIntoBypass);
        }
        self.regs.cr0ack = new;
        self.arm();
        if !old & new & CR0_CMDQEN != 0 {
            self.run_commands();
        }
    }

    fn write_gbpa(&mut self, value: u32) {
        self.guard("GBPA", self.regs.gbpa_pending.is_some());
        if value & GBPA_UPDATE == 0 {
            self.register_violation(offset::GBPA, "written without UPDATE");
            return;
        }
        // MemAttr 3:0, MTCFG 4, ALLOCCFG 11:8, SHCFG 13:12, PRIVCFG 17:16, INSTCFG 19:18, ABORT 20.
        self.reserved("GBPA", value & !(0x001f_3f1f | GBPA_UPDATE));
        self.regs.gbpa_pending = Some((value & !GBPA_UPDATE, self.config.lag));
        if self.config.lag == 0 {
            self.settle_gbpa();
        }
    }

    fn settle_gbpa(&mut self) {
        if self.has_failed(Failure::StuckGbpa) {
            return;
        }
        if let Some((value, delay)) = &mut self.regs.gbpa_pending {
            if *delay == 0 {
                self.regs.gbpa = *value;
                self.regs.gbpa_pending = None;
                self.arm();
            } else {
                *delay -= 1;
            }
        }
    }

    fn arm(&mut self) {
        self.is_armed |= self.regs.is_aborting() && !self.regs.is_enabled();
    }

    fn write_gerrorn(&mut self, value: u32) {
        let toggled = value ^ self.regs.gerrorn;
        let active = self.regs.gerror ^ self.regs.gerrorn;
        if toggled & !active != 0 {
            self.violations.push(Violation::ErrorToggled { bits: toggled & !active });
        }
        self.regs.gerrorn = value;
        if toggled & active & 1 != 0 {
            self.run_commands();
        }
    }

    /// The bases of what is being enabled must be aligned to their whole size (6.3).
    fn check_bases(&mut self, rising: u32) {
        let mut needed: Vec<(&'static str, u64, u64)> = Vec::new();
        if rising & CR0_SMMUEN != 0 {
            let size = self.stream_table_bytes();
            needed.push(("stream table", self.regs.strtab_base & STRTAB_BASE_ADDR, size.max(64)));
        }
        if rising & CR0_CMDQEN != 0 {
            let base = self.regs.cmdq_base;
            needed.push(("command queue", base & QUEUE_BASE_ADDR, 16 << Regs::log2(base)));
        }
        if rising & CR0_EVENTQEN != 0 {
            let base = self.regs.eventq_base;
            needed.push(("event queue", base & QUEUE_BASE_ADDR, 32 << Regs::log2(base)));
        }
        for (what, base, alignment) in needed {
            if base & (alignment - 1) != 0 {
                self.violations.push(Violation::Misaligned { what, base, alignment });
            }
        }
        let (max_cmdq, max_eventq) = (self.config.id.idr1 >> 21 & 31, self.config.id.idr1 >> 16 & 31);
        if rising & CR0_CMDQEN != 0 && Regs::log2(self.regs.cmdq_base) > max_cmdq {
            self.violations.push(Violation::Reserved { what: "CMDQ_BASE.LOG2SIZE", value: self.regs.cmdq_base });
        }
        if rising & CR0_EVENTQEN != 0 && Regs::log2(self.regs.eventq_base) > max_eventq {
            self.violations.push(Violation::Reserved { what: "EVENTQ_BASE.LOG2SIZE", value: self.regs.eventq_base });
        }
    }

    fn reserved(&mut self, what: &'static str, bits: u32) {
        self.reserved64(what, bits.into());
    }

    pub(super) fn reserved64(&mut self, what: &'static str, bits: u64) {
        if bits != 0 {
            self.violations.push(Violation::Reserved { what, value: bits });
        }
    }

    fn guard(&mut self, register: &'static str, is_wrong: bool) {
        if is_wrong {
            self.violations.push(Violation::Guarded { register });
        }
    }

    fn register_violation(&mut self, offset: u32, what: &'static str) {
        self.violations.push(Violation::Register { offset, what });
    }
}
