//! What a CPU or an SMMU must know to walk a tree: VTCR_EL2, VTTBR_EL2 and their likes in an STE.

use tock_registers::{LocalRegisterCopy, register_bitfields};

use super::{Stage2, root_level};
use crate::{
    addr::{Address, PhysAddr},
    ids::Vmid,
};

register_bitfields! [u64,
    /// VTCR_EL2 (DDI 0487). Bits 18:0 have the same places, from bit 32 of word 2, in an STE:
    /// S2T0SZ, S2SL0, S2IR0, S2OR0, S2SH0, S2TG, S2PS (IHI 0070 5.2).
    VTCR [
        T0SZ OFFSET(0) NUMBITS(6) [],
        SL0 OFFSET(6) NUMBITS(2) [],
        IRGN0 OFFSET(8) NUMBITS(2) [WriteBackAllocate = 0b01],
        ORGN0 OFFSET(10) NUMBITS(2) [WriteBackAllocate = 0b01],
        SH0 OFFSET(12) NUMBITS(2) [Inner = 0b11],
        TG0 OFFSET(14) NUMBITS(2) [FourKib = 0b00],
        PS OFFSET(16) NUMBITS(3) [],
        /// 16-bit VMIDs.
        VS OFFSET(19) NUMBITS(1) [],
        RES1 OFFSET(31) NUMBITS(1) [],
    ]
];

/// A tree, and how to walk it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct S2Config {
    /// The root table.
    pub root: PhysAddr,
    /// Bits of an input address, 31 to 39.
    pub ipa_bits: u8,
    /// Bits of an output address that the tree holds and the walker can put out, 32 to 48.
    pub output_bits: u8,
    /// Tag of the translations in TLBs.
    pub vmid: Vmid,
}

impl S2Config {
    /// How to walk `tree`, for the VM of `vmid`.
    pub fn of<A: Address>(tree: &Stage2<A>, vmid: Vmid) -> Self {
        Self { root: tree.root, ipa_bits: tree.input_bits, output_bits: tree.output_bits, vmid }
    }

    /// Bits 18:0 of VTCR_EL2 and of the STE's upper half of word 2: write-back, inner-shareable walks, 4 KiB granule.
    ///
    /// The output size is rounded down to one that has an encoding.
    pub fn walk_fields(&self) -> u32 {
        u32::try_from(self.vtcr().get()).unwrap_or(0)
    }

    /// VTCR_EL2; `is_vmid16` where VMIDs of 16 bits are used.
    pub fn vtcr_el2(&self, is_vmid16: bool) -> u64 {
        let mut vtcr = self.vtcr();
        vtcr.modify(VTCR::RES1::SET + VTCR::VS.val(u64::from(is_vmid16)));
        vtcr.get()
    }

    /// VTTBR_EL2: the root in bits 47:1, the VMID in 63:48.
    pub fn vttbr_el2(&self) -> u64 {
        u64::from(self.vmid.as_u16()) << 48 | self.root.as_u64()
    }

    /// SL0, for VTCR_EL2 and an STE alike: 1 for a root at level 1, 0 for concatenated tables at level 2.
    pub const fn sl0(&self) -> u8 {
        2 - root_level(self.ipa_bits)
    }

    fn vtcr(&self) -> LocalRegisterCopy<u64, VTCR::Register> {
        let mut vtcr = LocalRegisterCopy::new(0);
        vtcr.write(
            VTCR::T0SZ.val(64 - u64::from(self.ipa_bits))
                + VTCR::SL0.val(u64::from(self.sl0()))
                + VTCR::IRGN0::WriteBackAllocate
                + VTCR::ORGN0::WriteBackAllocate
                + VTCR::SH0::Inner
                + VTCR::TG0::FourKib
                + VTCR::PS.val(encoded_size(self.output_bits)),
        );
        vtcr
    }
}

/// The encoding of a physical address size (ID_AA64MMFR0_EL1.PARange, SMMU_IDR5.OAS), rounded down.
const fn encoded_size(bits: u8) -> u64 {
    match bits {
        0..36 => 0,
        36..40 => 1,
        40..42 => 2,
        42..44 => 3,
        44..48 => 4,
        _ => 5,
    }
}
