//! Which words a guest may write, which of their bits, and when (IHI 0070 6.3).

use super::offset;

/// A register is written only while none of `bits` is set at `at`, nor in the acknowledgement behind it.
#[derive(Clone, Copy)]
pub struct Guard {
    /// CR0 or IRQ_CTRL.
    pub at: u8,
    pub bits: u32,
}

impl Guard {
    const NONE: Self = Self { at: 0x20, bits: 0 };
    const SMMU_OFF: Self = Self { at: 0x20, bits: 1 << 0 };
    const EVENTQ_OFF: Self = Self { at: 0x20, bits: 1 << 2 };
    const CMDQ_OFF: Self = Self { at: 0x20, bits: 1 << 3 };
    const GERROR_IRQ_OFF: Self = Self { at: 0x50, bits: 1 << 0 };
    const EVENTQ_IRQ_OFF: Self = Self { at: 0x50, bits: 1 << 2 };
}

/// One word that a guest may write, with no other effect.
pub struct Rule {
    pub at: u8,
    pub mask: u32,
    pub guard: Guard,
}

const fn rule(at: usize, mask: u32, guard: Guard) -> Rule {
    assert!(at < 0x100 && at.is_multiple_of(4));
    Rule { at: at.to_le_bytes()[0], mask, guard }
}

/// The attributes of our walks are the machine's, so CR1 is kept and not looked at. Addresses end with bit 55; bit 62 of a
/// base is the allocation hint.
pub const RULES: [Rule; 21] = [
    rule(offset::EVENTQ_CONS, 0x800f_ffff, Guard::NONE),
    rule(offset::GERRORN, 0x1b5, Guard::NONE),
    rule(offset::CR1, 0xfff, Guard::NONE),
    rule(offset::CR2, 0b010, Guard::SMMU_OFF),
    rule(offset::GERROR_IRQ_CFG0, 0xffff_fffc, Guard::GERROR_IRQ_OFF),
    rule(offset::GERROR_IRQ_CFG0 + 4, 0x00ff_ffff, Guard::GERROR_IRQ_OFF),
    rule(offset::GERROR_IRQ_CFG1, 0xffff_ffff, Guard::GERROR_IRQ_OFF),
    rule(offset::GERROR_IRQ_CFG2, 0x3f, Guard::GERROR_IRQ_OFF),
    rule(offset::STRTAB_BASE, 0xffff_ffc0, Guard::SMMU_OFF),
    rule(offset::STRTAB_BASE + 4, 0x40ff_ffff, Guard::SMMU_OFF),
    rule(offset::STRTAB_BASE_CFG, 0x0003_07ff, Guard::SMMU_OFF),
    rule(offset::CMDQ_BASE, 0xffff_ffff, Guard::CMDQ_OFF),
    rule(offset::CMDQ_BASE + 4, 0x40ff_ffff, Guard::CMDQ_OFF),
    rule(offset::CMDQ_CONS, 0x7f0f_ffff, Guard::CMDQ_OFF),
    rule(offset::EVENTQ_BASE, 0xffff_ffff, Guard::EVENTQ_OFF),
    rule(offset::EVENTQ_BASE + 4, 0x40ff_ffff, Guard::EVENTQ_OFF),
    rule(offset::EVENTQ_PROD, 0x800f_ffff, Guard::EVENTQ_OFF),
    rule(offset::EVENTQ_IRQ_CFG0, 0xffff_fffc, Guard::EVENTQ_IRQ_OFF),
    rule(offset::EVENTQ_IRQ_CFG0 + 4, 0x00ff_ffff, Guard::EVENTQ_IRQ_OFF),
    rule(offset::EVENTQ_IRQ_CFG1, 0xffff_ffff, Guard::EVENTQ_IRQ_OFF),
    rule(offset::EVENTQ_IRQ_CFG2, 0x3f, Guard::EVENTQ_IRQ_OFF),
];
