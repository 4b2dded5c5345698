//! The register file: what there is, what it holds after reset, who may write what when (IHI 0070 chapter 6).

mod rules;

use tock_registers::{LocalRegisterCopy, register_bitfields};

use super::{Ability, STREAM_BITS, queue::Queue};
use rules::RULES;

/// Offsets in bytes. Those of the event queue's indices are in page 1, 64 KiB further up.
pub mod offset {
    pub const IDR0: usize = 0x0;
    pub const IDR1: usize = 0x4;
    pub const IDR3: usize = 0xc;
    pub const IDR5: usize = 0x14;
    pub const CR0: usize = 0x20;
    pub const CR0ACK: usize = 0x24;
    pub const CR1: usize = 0x28;
    pub const CR2: usize = 0x2c;
    pub const GBPA: usize = 0x44;
    pub const IRQ_CTRL: usize = 0x50;
    pub const IRQ_CTRLACK: usize = 0x54;
    pub const GERROR: usize = 0x60;
    pub const GERRORN: usize = 0x64;
    pub const GERROR_IRQ_CFG0: usize = 0x68;
    pub const GERROR_IRQ_CFG1: usize = 0x70;
    pub const GERROR_IRQ_CFG2: usize = 0x74;
    pub const STRTAB_BASE: usize = 0x80;
    pub const STRTAB_BASE_CFG: usize = 0x88;
    pub const CMDQ_BASE: usize = 0x90;
    pub const CMDQ_PROD: usize = 0x98;
    pub const CMDQ_CONS: usize = 0x9c;
    pub const EVENTQ_BASE: usize = 0xa0;
    pub const EVENTQ_PROD: usize = 0xa8;
    pub const EVENTQ_CONS: usize = 0xac;
    pub const EVENTQ_IRQ_CFG0: usize = 0xb0;
    pub const EVENTQ_IRQ_CFG1: usize = 0xb8;
    pub const EVENTQ_IRQ_CFG2: usize = 0xbc;
    /// One past the last that is kept.
    pub const END: usize = 0xc0;
}

register_bitfields![u32,
    IDR0 [
        S1P OFFSET(1) NUMBITS(1) [],
        TTF OFFSET(2) NUMBITS(2) [Aarch64 = 2],
        COHACC OFFSET(4) NUMBITS(1) [],
        ASID16 OFFSET(12) NUMBITS(1) [],
        MSI OFFSET(13) NUMBITS(1) [],
        TTENDIAN OFFSET(21) NUMBITS(2) [Little = 2],
        STALL_MODEL OFFSET(24) NUMBITS(2) [Terminate = 1],
        TERM_MODEL OFFSET(26) NUMBITS(1) [],
        ST_LEVEL OFFSET(27) NUMBITS(2) [TwoLevel = 1]
    ],
    IDR1 [
        SIDSIZE OFFSET(0) NUMBITS(6) [],
        EVENTQS OFFSET(16) NUMBITS(5) [],
        CMDQS OFFSET(21) NUMBITS(5) []
    ],
    IDR3 [
        RIL OFFSET(10) NUMBITS(1) []
    ],
    IDR5 [
        OAS OFFSET(0) NUMBITS(3) [],
        GRAN4K OFFSET(4) NUMBITS(1) []
    ],
    /// CR0ACK has the same layout.
    pub CR0 [
        SMMUEN OFFSET(0) NUMBITS(1) [],
        EVENTQEN OFFSET(2) NUMBITS(1) [],
        CMDQEN OFFSET(3) NUMBITS(1) []
    ],
    pub CR2 [
        RECINVSID OFFSET(1) NUMBITS(1) []
    ],
    pub GBPA [
        ABORT OFFSET(20) NUMBITS(1) [],
        UPDATE OFFSET(31) NUMBITS(1) []
    ],
    /// IRQ_CTRLACK has the same layout.
    pub IRQ_CTRL [
        GERROR OFFSET(0) NUMBITS(1) [],
        EVENTQ OFFSET(2) NUMBITS(1) []
    ],
    pub STRTAB_BASE_CFG [
        LOG2SIZE OFFSET(0) NUMBITS(6) [],
        SPLIT OFFSET(6) NUMBITS(5) [],
        FMT OFFSET(16) NUMBITS(2) [TwoLevel = 1]
    ],
    pub CMDQ_CONS [
        ERR OFFSET(24) NUMBITS(7) [Illegal = 1, Abort = 2]
    ]
];

/// Base-2 logarithm of the command queue's size at most, in commands: one page. Linux wants more than 6.
pub const CMDQ_LOG2: u32 = 8;
/// Base-2 logarithm of the event queue's size at most, in events: one page.
pub const EVENTQ_LOG2: u32 = 7;
/// Bits of CR0 that exist here: no PRI queue, no ATS.
pub const CR0_MASK: u32 = 0b1101;
/// Bits of IRQ_CTRL that exist here.
pub const IRQ_CTRL_MASK: u32 = 0b101;
/// Bits 55:2 of the IRQ_CFG0 registers and of CMD_SYNC's MSIAddress.
pub const MESSAGE_ADDRESS: u64 = 0x00ff_ffff_ffff_fffc;

/// The words of both pages that are kept, by their offset in their page.
#[derive(Clone, Debug)]
pub struct Registers([u32; offset::END / 4]);

impl Registers {
    /// The word at `at`; 0 where none is.
    #[inline(always)]
    pub fn word(&self, at: usize) -> u32 {
        self.0.get(at / 4).copied().unwrap_or_default()
    }

    /// The 64-bit register at `at`.
    pub fn double(&self, at: usize) -> u64 {
        u64::from(self.word(at)) | u64::from(self.word(at + 4)) << 32
    }

    /// The word at `at` by its fields.
    #[inline(always)]
    pub fn fields<R: tock_registers::RegisterLongName>(&self, at: usize) -> LocalRegisterCopy<u32, R> {
        LocalRegisterCopy::new(self.word(at))
    }

    /// Stores a word.
    #[inline(always)]
    pub fn set(&mut self, at: usize, value: u32) {
        if let Some(word) = self.0.get_mut(at / 4) {
            *word = value;
        }
    }

    /// Stores the bits of `value` that a guest may write at `at` now.
    pub fn write(&mut self, at: usize, value: u32) {
        let rule = RULES.iter().find(|rule| usize::from(rule.at) == at);
        if let Some(rule) = rule
            && (self.word(rule.guard.at.into()) | self.word(usize::from(rule.guard.at) + 4)) & rule.guard.bits == 0
        {
            self.set(at, value & rule.mask);
            match at {
                offset::CMDQ_BASE..=offset::CMDQ_CONS => self.truncate(offset::CMDQ_BASE, CMDQ_LOG2),
                offset::EVENTQ_BASE..=offset::EVENTQ_CONS => self.truncate(offset::EVENTQ_BASE, EVENTQ_LOG2),
                _ => {}
            }
        }
    }

    /// Leaves of a queue's indices the bits that its size has (6.3, CMDQ_PROD): they are behind its base in both cases.
    fn truncate(&mut self, base: usize, log2_max: u32) {
        let unused = !Queue::new(self.word(base).into(), log2_max, 0).index(0x000f_ffff) & 0x000f_ffff;
        for index in [base + 8, base + 12] {
            self.set(index, self.word(index) & !unused);
        }
    }
}

/// What is there after reset. IIDR is 0: nobody's errata. So is AIDR: SMMUv3.0, with the features
/// that the other registers name.
pub fn reset_values(ability: &Ability) -> Registers {
    // IDR5.OAS: 32, 36, 40, 42, 44, 48 bits.
    let oas = match ability.oas_bits {
        0..=32 => 0,
        33..=36 => 1,
        37..=40 => 2,
        41..=42 => 3,
        43..=44 => 4,
        _ => 5,
    };
    let idr0 = IDR0::S1P::SET
        + IDR0::TTF::Aarch64
        + IDR0::COHACC::SET
        + IDR0::ASID16.val(ability.has_asid16.into())
        + IDR0::MSI::SET
        + IDR0::TTENDIAN::Little
        + IDR0::STALL_MODEL::Terminate
        + IDR0::TERM_MODEL.val(ability.is_terminate_only.into())
        + IDR0::ST_LEVEL::TwoLevel;
    let idr1 = IDR1::SIDSIZE.val(STREAM_BITS) + IDR1::EVENTQS.val(EVENTQ_LOG2) + IDR1::CMDQS.val(CMDQ_LOG2);
    let mut registers = Registers([0; offset::END / 4]);
    registers.set(offset::IDR0, idr0.into());
    registers.set(offset::IDR1, idr1.into());
    registers.set(offset::IDR3, IDR3::RIL.val(ability.has_range_invalidation.into()).into());
    registers.set(offset::IDR5, (IDR5::OAS.val(oas) + IDR5::GRAN4K::SET).into());
    registers
}
