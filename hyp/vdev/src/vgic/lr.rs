//! List registers: the encoding of ICH_LR<n>_EL2 and the set of them.

use tock_registers::{LocalRegisterCopy, register_bitfields};

register_bitfields! {u64,
    /// ICH_LR<n>_EL2 (IHI 0069 12.4.9).
    pub(super) LR [
        VINTID OFFSET(0) NUMBITS(32) [],
        /// Physical INTID, when HW is 1.
        PINTID OFFSET(32) NUMBITS(13) [],
        /// A maintenance interrupt on deactivation, when HW is 0.
        EOI OFFSET(41) NUMBITS(1) [],
        PRIORITY OFFSET(48) NUMBITS(8) [],
        GROUP1 OFFSET(60) NUMBITS(1) [],
        HW OFFSET(61) NUMBITS(1) [],
        STATE OFFSET(62) NUMBITS(2) [
            Invalid = 0b00,
            Pending = 0b01,
            Active = 0b10,
            PendingAndActive = 0b11
        ],
    ]
}

/// ICH_HCR_EL2 bits that [`Vgic::flush`](super::Vgic::flush) asks for (IHI 0069 12.4.8), beside En.
pub mod hcr {
    /// En: the virtual CPU interface is on. Always wanted.
    pub const EN: u64 = 1 << 0;
    /// LRENPIE: maintenance interrupt when the guest ends an interrupt that is in no list register.
    pub const LRENPIE: u64 = 1 << 2;
    /// NPIE: maintenance interrupt when no list register is pending.
    pub const NPIE: u64 = 1 << 3;
    /// TDIR: trap writes to ICC_DIR_EL1 (hand them to [`Vgic::deactivate`](super::super::Vgic::deactivate)).
    pub const TDIR: u64 = 1 << 14;
    /// First bit of EOIcount, 5 bits.
    pub const EOI_COUNT_SHIFT: u32 = 27;
}

/// Most list registers that the architecture has.
pub const LRS_MAX: usize = 16;

/// The list registers of one physical CPU, as EL2 read or will write them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListRegisters {
    /// ICH_LR0_EL2 and so on. EL2 reads those in `used` after an exit, before [`Vgic::sync`](super::Vgic::sync).
    pub lr: [u64; LRS_MAX],
    /// Bit n: ICH_LRn_EL2 holds an interrupt. Written by [`Vgic::flush`](super::Vgic::flush) alone.
    pub used: u16,
    /// ICH_HCR_EL2.EOIcount as read after the exit; matters only while LRENPIE was set, 0 otherwise.
    pub eoi_count: u8,
    count: u8,
}

impl ListRegisters {
    /// None in use; `count` are implemented (ICH_VTR_EL2.ListRegs + 1), taken as 1 to 16.
    pub const fn new(count: u8) -> Self {
        let count = if count == 0 {
            1
        } else if count > 16 {
            16
        } else {
            count
        };
        Self { lr: [0; LRS_MAX], used: 0, eoi_count: 0, count }
    }

    /// How many are implemented, 1 to 16.
    pub const fn count(&self) -> u8 {
        self.count
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        numbers(self.used).filter_map(|n| self.lr.get(n)).map(|&raw| Entry::from_raw(raw))
    }
}

/// The list registers of a mask such as [`ListRegisters::used`], from the lowest: by far most of them are not in use.
#[inline]
pub fn numbers(mask: u16) -> impl Iterator<Item = usize> {
    super::bits(mask.into()).map(|n| n as usize)
}

/// One list register's content, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Virtual INTID.
    pub intid: u32,
    /// Waiting to be acknowledged.
    pub pending: bool,
    /// Acknowledged, not yet deactivated.
    pub active: bool,
    /// Physical INTID that its deactivation deactivates.
    pub physical: Option<u16>,
    /// Whether its deactivation raises a maintenance interrupt. Not together with `physical`.
    pub eoi: bool,
    /// Group 1, not 0.
    pub group1: bool,
    /// Priority; lower is more urgent.
    pub priority: u8,
}

impl Entry {
    /// Decodes a raw list register.
    pub fn from_raw(raw: u64) -> Self {
        let lr = LocalRegisterCopy::<u64, LR::Register>::new(raw);
        let is_hw = lr.is_set(LR::HW);
        let state = lr.read(LR::STATE);
        Self {
            intid: (raw & 0xffff_ffff) as u32,
            pending: state & 1 != 0,
            active: state & 2 != 0,
            physical: is_hw.then_some((raw >> 32 & 0x1fff) as u16),
            eoi: !is_hw && lr.is_set(LR::EOI),
            group1: lr.is_set(LR::GROUP1),
            priority: (raw >> 48 & 0xff) as u8,
        }
    }

    /// Encodes it. A physical INTID and EOI exclude each other: the former wins.
    pub fn to_raw(self) -> u64 {
        let link = match self.physical {
            Some(physical) => LR::HW::SET + LR::PINTID.val(u64::from(physical)),
            None => LR::HW::CLEAR + LR::EOI.val(u64::from(self.eoi)),
        };
        let state = u64::from(self.pending) | u64::from(self.active) << 1;
        (LR::VINTID.val(u64::from(self.intid))
            + LR::PRIORITY.val(u64::from(self.priority))
            + LR::GROUP1.val(u64::from(self.group1))
            + LR::STATE.val(state)
            + link)
            .value
    }
}
