//! The redistributors' registers (GICR, IHI 0069 12.10 to 12.11).

use super::{
    Effects, PRIVATE, Read, Vgic,
    dist::{BitRegister, IIDR_VALUE, config_word, identification, read_bytes, write_bytes},
    state::Scope,
};
use crate::mmio::Width;
use bulkhead_core::{ids::Mpidr, vplat::vcpu_mpidr};

/// The SGI frame follows the RD frame.
const SGI_FRAME: u64 = 0x1_0000;
const CTLR: u64 = 0x0;
const IIDR: u64 = 0x4;
const TYPER: u64 = 0x8;
const WAKER: u64 = 0x14;
const CTLR_RWP: u64 = 1 << 3;
const WAKER_PROCESSOR_SLEEP: u64 = 1 << 1;
const WAKER_CHILDREN_ASLEEP: u64 = 1 << 2;
const TYPER_LAST: u64 = 1 << 4;

impl Vgic {
    /// `vcpu` reads the redistributor of `target` at `offset` (RD frame, then SGI frame).
    pub fn redist_read(&mut self, vcpu: usize, target: usize, offset: u64, width: Width) -> Read {
        if target >= self.vcpu_count() || !width.is_aligned(offset) {
            return Read::Value(0);
        }
        let Some(sgi) = offset.checked_sub(SGI_FRAME) else {
            return Read::Value(self.rd_read(target, offset, width));
        };
        let Some(cpu) = self.cpus.get(target) else { return Read::Value(0) };
        if (0x400..0x420).contains(&sgi) && matches!(width, Width::Byte | Width::Word) {
            return Read::Value(read_bytes(&cpu.priority, sgi - 0x400, width));
        }
        if width != Width::Word {
            return Read::Value(0);
        }
        let edge = cpu.bank.edge;
        match (BitRegister::decode(sgi), sgi) {
            (Some((register, 0)), _) => self.read_bits(vcpu, Scope::Private(target), register, offset),
            (None, 0xc00) => Read::Value(config_word(edge & 0xffff)),
            (None, 0xc04) => Read::Value(config_word(edge >> 16 & 0xffff)),
            _ => Read::Value(0),
        }
    }

    /// `vcpu` writes the redistributor of `target` at `offset`.
    pub fn redist_write(&mut self, vcpu: usize, target: usize, offset: u64, width: Width, value: u64) -> Effects {
        let _ = vcpu;
        if target >= self.vcpu_count() || !width.is_aligned(offset) {
            return Effects::default();
        }
        let scope = Scope::Private(target);
        let Some(sgi) = offset.checked_sub(SGI_FRAME) else {
            if offset == WAKER && width == Width::Word {
                self.set_asleep(target, value & WAKER_PROCESSOR_SLEEP != 0);
            }
            return Effects::default();
        };
        if (0x400..0x420).contains(&sgi) && matches!(width, Width::Byte | Width::Word) {
            if let Some(cpu) = self.cpus.get_mut(target) {
                write_bytes(&mut cpu.priority, sgi - 0x400, width, value);
            }
            return self.touch(scope, PRIVATE);
        }
        if width != Width::Word {
            return Effects::default();
        }
        match (BitRegister::decode(sgi), sgi) {
            (Some((register, 0)), _) => self.write_bits(scope, register, value & PRIVATE),
            (None, 0xc04) => self.write_config(scope, 16, value),
            _ => Effects::default(),
        }
    }

    fn rd_read(&self, target: usize, offset: u64, width: Width) -> u64 {
        let Some(cpu) = self.cpus.get(target) else { return 0 };
        if (TYPER..TYPER + 8).contains(&offset) {
            return match width {
                Width::Word | Width::Double => width.extract(self.typer(target), offset - TYPER),
                _ => 0,
            };
        }
        match (width, offset) {
            (Width::Word, CTLR) if cpu.rwp => CTLR_RWP,
            (Width::Word, IIDR) => IIDR_VALUE,
            (Width::Word, WAKER) if cpu.is_asleep => WAKER_PROCESSOR_SLEEP | WAKER_CHILDREN_ASLEEP,
            (Width::Word, _) => identification(offset),
            _ => 0,
        }
    }

    /// GICR_TYPER: affinity, processor number, whether it is the last; no LPIs.
    fn typer(&self, target: usize) -> u64 {
        let affinity = u64::from(Mpidr::new(vcpu_mpidr(target)).packed());
        let last = if target + 1 == self.vcpu_count() { TYPER_LAST } else { 0 };
        affinity << 32 | (target as u64) << 8 | last
    }

    fn set_asleep(&mut self, target: usize, is_asleep: bool) {
        if let Some(cpu) = self.cpus.get_mut(target) {
            cpu.is_asleep = is_asleep;
        }
        self.recompute_routes();
    }
}
