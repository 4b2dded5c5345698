//! The distributor's registers (GICD, IHI 0069 12.9).

use super::{Effects, Read, SHARED, Vgic, state::Scope};
use crate::mmio::Width;

const CTLR: u64 = 0x0;
const TYPER: u64 = 0x4;
pub(super) const IIDR: u64 = 0x8;
const IROUTER: u64 = 0x6000;
const IROUTER_FIRST: u64 = IROUTER + 8 * 32;
const IROUTER_END: u64 = IROUTER + 8 * 64;

/// GICD_CTLR: ARE and DS are RAO/WI, there is one Security state.
const CTLR_ARE_DS: u64 = 1 << 4 | 1 << 6;
const CTLR_RWP: u64 = 1 << 31;
/// 64 INTIDs (ITLinesNumber 1), 10 bits of INTID, affinity 3 valid; no LPIs, no message SPIs, no range selector.
const TYPER_VALUE: u64 = 1 | 9 << 19 | 1 << 24;
/// Implementer Arm (JEP106 0x43b), ProductID 0x42: no known erratum's.
pub(super) const IIDR_VALUE: u64 = 0x42 << 24 | 0x43b;

/// The set and clear registers and their kin: one bit an interrupt, 32 a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BitRegister {
    Group,
    SetEnable,
    ClearEnable,
    SetPending,
    ClearPending,
    SetActive,
    ClearActive,
}

impl BitRegister {
    /// The register family at `offset` and the number in it.
    pub(super) const fn decode(offset: u64) -> Option<(Self, u64)> {
        let register = match offset & !0x7f {
            0x080 => Self::Group,
            0x100 => Self::SetEnable,
            0x180 => Self::ClearEnable,
            0x200 => Self::SetPending,
            0x280 => Self::ClearPending,
            0x300 => Self::SetActive,
            0x380 => Self::ClearActive,
            _ => return None,
        };
        Some((register, (offset & 0x7f) / 4))
    }
}

/// Identification registers at the end of GICD and GICR (IHI 0069 12.1.2): GICv3, Arm.
pub(super) const fn identification(offset: u64) -> u64 {
    match offset {
        0xffd0 => 0x44,
        0xffe0 => 0x92,
        0xffe4 => 0xb4,
        0xffe8 => 0x3b,
        0xfff0 => 0x0d,
        0xfff4 => 0xf0,
        0xfff8 => 0x05,
        0xfffc => 0xb1,
        _ => 0,
    }
}

impl Vgic {
    /// `vcpu` reads GICD at `offset`. Unknown registers and forbidden sizes read 0.
    pub fn dist_read(&mut self, vcpu: usize, offset: u64, width: Width) -> Read {
        if !width.is_aligned(offset) {
            return Read::Value(0);
        }
        if (IROUTER_FIRST..IROUTER_END).contains(&offset) {
            let route = self.route.get(spi_of(offset)).copied().unwrap_or(0);
            let is_allowed = matches!(width, Width::Word | Width::Double);
            return Read::Value(if is_allowed { width.extract(route, offset & 7) } else { 0 });
        }
        if (0x420..0x440).contains(&offset) && matches!(width, Width::Byte | Width::Word) {
            return Read::Value(read_bytes(&self.spi_priority, offset - 0x420, width));
        }
        if width != Width::Word {
            return Read::Value(0);
        }
        if let Some((register, number)) = BitRegister::decode(offset) {
            return if number == 1 { self.read_bits(vcpu, Scope::Shared, register, offset) } else { Read::Value(0) };
        }
        Read::Value(match offset {
            CTLR => {
                let rwp = if self.dist_rwp == 0 { 0 } else { CTLR_RWP };
                u64::from(self.group_enable) | CTLR_ARE_DS | rwp
            }
            TYPER => TYPER_VALUE,
            IIDR => IIDR_VALUE,
            0xc08 => config_word((self.spi.edge >> 32) & 0xffff),
            0xc0c => config_word((self.spi.edge >> 48) & 0xffff),
            _ => identification(offset),
        })
    }

    /// `vcpu` writes GICD at `offset`. Unknown registers and forbidden sizes are ignored.
    pub fn dist_write(&mut self, vcpu: usize, offset: u64, width: Width, value: u64) -> Effects {
        let _ = vcpu;
        if !width.is_aligned(offset) {
            return Effects::default();
        }
        if (IROUTER_FIRST..IROUTER_END).contains(&offset) {
            let spi = spi_of(offset);
            let old = self.route.get(spi).copied().unwrap_or(0);
            return match width {
                Width::Word | Width::Double => self.set_route(spi, width.insert(old, offset & 7, value)),
                _ => Effects::default(),
            };
        }
        if (0x420..0x440).contains(&offset) && matches!(width, Width::Byte | Width::Word) {
            write_bytes(&mut self.spi_priority, offset - 0x420, width, value);
            return self.touch(Scope::Shared, SHARED);
        }
        if width != Width::Word {
            return Effects::default();
        }
        if let Some((register, number)) = BitRegister::decode(offset) {
            let set = if number == 1 { (value & 0xffff_ffff) << 32 } else { 0 };
            return self.write_bits(Scope::Shared, register, set);
        }
        match offset {
            CTLR => self.write_group_enable((value & 3) as u32),
            0xc08 => self.write_config(Scope::Shared, 32, value),
            0xc0c => self.write_config(Scope::Shared, 48, value),
            _ => Effects::default(),
        }
    }

    fn write_group_enable(&mut self, enable: u32) -> Effects {
        let cleared = self.group_enable & !enable;
        let changed = self.group_enable ^ enable;
        self.group_enable = enable;
        if changed == 0 {
            return Effects::default();
        }
        let mut kick = 0;
        if cleared != 0 {
            for (vcpu, cpu) in self.cpus.iter().enumerate() {
                kick |= if cpu.resident == 0 { 0 } else { 1 << vcpu };
            }
            self.dist_rwp |= kick;
            self.recall(kick);
        }
        for vcpu in 0..self.vcpu_count() {
            if self.ready(vcpu) != 0
                && let Some(cpu) = self.cpus.get_mut(vcpu)
            {
                cpu.is_dirty = true;
                kick |= 1 << vcpu;
            }
        }
        Effects::kick(kick)
    }

    /// A word of a bit register, for `vcpu`.
    pub(super) fn read_bits(&mut self, vcpu: usize, scope: Scope, register: BitRegister, offset: u64) -> Read {
        let bank = *self.bank(scope);
        let (mut pending, mut active) = (bank.pending(), 0);
        let is_state = !matches!(register, BitRegister::Group | BitRegister::SetEnable | BitRegister::ClearEnable);
        if is_state && let Some(kick) = self.wait_for_holders(vcpu, scope, offset) {
            return Read::Retry(kick);
        }
        for (number, cpu) in self.cpus.iter().enumerate() {
            if scope == Scope::Shared || scope == Scope::Private(number) {
                active |= cpu.active | (cpu.lr_active & !cpu.cancel_active);
                pending |= cpu.lr_pending & !cpu.cancel_pending;
            }
        }
        let set = match register {
            BitRegister::Group => bank.group1,
            BitRegister::SetEnable | BitRegister::ClearEnable => bank.enabled,
            BitRegister::SetPending | BitRegister::ClearPending => pending,
            BitRegister::SetActive | BitRegister::ClearActive => active,
        };
        Read::Value(match scope {
            Scope::Private(_) => set & 0xffff_ffff,
            Scope::Shared => set >> 32,
        })
    }

    /// The vCPUs whose list registers must be read before a state can be told; `None` when it can be told now.
    fn wait_for_holders(&mut self, vcpu: usize, scope: Scope, offset: u64) -> Option<u8> {
        let holders = self.holders(scope, u64::MAX);
        let register = match scope {
            Scope::Shared => offset,
            Scope::Private(target) => offset | (target as u64 + 1) << 32,
        };
        let wait = &mut self.cpus.get_mut(vcpu)?.wait;
        if wait.register != register {
            *wait = super::bank::Wait { register, asked: 0, done: 0 };
        }
        let missing = holders & !wait.done;
        if missing == 0 {
            *wait = super::bank::Wait::default();
            return None;
        }
        wait.asked |= missing;
        Some(self.recall(missing))
    }

    pub(super) fn write_bits(&mut self, scope: Scope, register: BitRegister, set: u64) -> Effects {
        match register {
            BitRegister::Group => {
                let mask = if scope == Scope::Shared { SHARED } else { super::PRIVATE };
                let bank = self.bank_mut(scope);
                let changed = (bank.group1 ^ set) & mask;
                bank.group1 ^= changed;
                self.touch(scope, changed)
            }
            BitRegister::SetEnable => self.set_enable(scope, set),
            BitRegister::ClearEnable => self.clear_enable(scope, set),
            BitRegister::SetPending => self.set_pending(scope, set),
            BitRegister::ClearPending => self.clear_pending(scope, set),
            BitRegister::SetActive => self.set_active(scope, set),
            BitRegister::ClearActive => self.clear_active(scope, set),
        }
    }

    /// ICFGR: 16 interrupts from `first` on, two bits each, of which the upper says "edge".
    pub(super) fn write_config(&mut self, scope: Scope, first: u32, value: u64) -> Effects {
        let mut edge = 0u64;
        for n in 0..16 {
            edge |= (value >> (2 * n + 1) & 1) << n;
        }
        let mask = 0xffff_u64.checked_shl(first).unwrap_or(0);
        let bank = self.bank_mut(scope);
        bank.edge = (bank.edge & !mask) | (edge.checked_shl(first).unwrap_or(0) & mask);
        self.touch(scope, mask)
    }

    /// Something other than the state of `set` has changed: list registers that hold it are written anew at the next
    /// flush, and it may be somebody's now.
    pub(super) fn touch(&mut self, scope: Scope, set: u64) -> Effects {
        for (vcpu, cpu) in self.cpus.iter_mut().enumerate() {
            if scope == Scope::Shared || scope == Scope::Private(vcpu) {
                cpu.is_dirty |= cpu.resident & set != 0;
            }
        }
        Effects::kick(self.wake(scope, set))
    }
}

/// The SPI, from 0, whose IROUTER is at `offset`.
const fn spi_of(offset: u64) -> usize {
    (((offset - IROUTER_FIRST) / 8) & 31) as usize
}

/// ICFGR's word for 16 interrupts, bit n of `edge` for the n-th.
pub(super) fn config_word(edge: u64) -> u64 {
    (0..16).fold(0, |word, n| word | (edge >> n & 1) << (2 * n + 1))
}

/// `width` bytes of priorities.
pub(super) fn read_bytes(bytes: &[u8; 32], offset: u64, width: Width) -> u64 {
    let lanes = bytes.iter().zip(0u64..).filter_map(|(&byte, n)| Some((byte, n.checked_sub(offset)?)));
    lanes
        .take_while(|&(_, lane)| lane < width.bytes())
        .fold(0, |value, (byte, lane)| width.insert(value, 0, value | u64::from(byte) << (8 * lane)))
}

/// Priorities have five bits, as the virtual CPU interface has at least (ICH_VTR_EL2.PRIbits).
pub(super) fn write_bytes(bytes: &mut [u8; 32], offset: u64, width: Width, value: u64) {
    for (byte, n) in bytes.iter_mut().zip(0..) {
        if let Some(lane) = u64::checked_sub(n, offset).filter(|&lane| lane < width.bytes()) {
            *byte = (width.extract(value, lane) & 0xf8) as u8;
        }
    }
}
