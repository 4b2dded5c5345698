//! Instruction and data aborts of a guest (ISS of classes 0x20 and 0x24).

use crate::addr::Ipa;

/// Why the walk ended (xFSC).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// An address past a table's size.
    AddressSize,
    /// Nothing is mapped.
    Translation,
    /// The access flag is clear.
    AccessFlag,
    /// The mapping does not allow it.
    Permission,
    /// The bus answered with an error.
    External,
    /// An exclusive or atomic access to memory that has none.
    UnsupportedExclusive,
    /// Alignment.
    Alignment,
    /// Another code.
    Other(u8),
}

impl FaultKind {
    const fn decode(code: u8) -> Self {
        match code {
            0x00..=0x03 => Self::AddressSize,
            0x04..=0x07 => Self::Translation,
            0x08..=0x0b => Self::AccessFlag,
            0x0c..=0x0f => Self::Permission,
            0x10 | 0x14..=0x17 => Self::External,
            0x21 => Self::Alignment,
            0x35 => Self::UnsupportedExclusive,
            other => Self::Other(other),
        }
    }

    /// Whether HPFAR_EL2 holds the address: after a permission fault, for a walk alone (DDI 0487).
    const fn has_ipa(self, is_table_walk: bool) -> bool {
        match self {
            Self::AddressSize | Self::Translation | Self::AccessFlag => true,
            Self::Permission => is_table_walk,
            _ => false,
        }
    }
}

/// A load or store of one general register, as the syndrome describes it (ISV = 1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// 1, 2, 4 or 8.
    pub size_bytes: u8,
    /// General register, 31 for xzr.
    pub register: u8,
    /// A load extends the sign.
    pub is_signed: bool,
    /// The register is 64 bits wide, else 32.
    pub is_64_bit: bool,
}

/// An abort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Abort {
    /// Why.
    pub kind: FaultKind,
    /// The guest-physical address, where the registers tell it; its low 12 bits come from `virtual_address`.
    pub ipa: Option<Ipa>,
    /// FAR_EL2: what the guest's instruction used.
    pub virtual_address: u64,
    /// A store, or a cache maintenance instruction.
    pub is_write: bool,
    /// The access was a walk of the guest's own table.
    pub is_table_walk: bool,
    /// A cache maintenance or address translation instruction.
    pub is_cache_maintenance: bool,
    /// What was transferred; `None` where the syndrome does not say (pairs, writeback, exclusives, vectors).
    pub transfer: Option<Transfer>,
}

impl Abort {
    #[inline]
    pub(super) fn decode(iss: u32, far: u64, hpfar: u64) -> Self {
        let kind = FaultKind::decode(iss.to_le_bytes()[0] & 0x3f);
        let is_far_valid = iss >> 10 & 1 == 0;
        let is_table_walk = iss >> 7 & 1 == 1;
        // HPFAR_EL2.FIPA, bits 43:4, is the IPA's page; a walk's address within the page is not recorded.
        let page = (hpfar & 0x0fff_ffff_fff0) << 8;
        let offset = if is_table_walk { 0 } else { far & 0xfff };
        let transfer = (iss >> 24 & 1 == 1).then(|| Transfer {
            size_bytes: 1 << (iss >> 22 & 3),
            register: iss.to_le_bytes()[2] & 0x1f,
            is_signed: iss >> 21 & 1 == 1,
            is_64_bit: iss >> 15 & 1 == 1,
        });
        Self {
            kind,
            ipa: (is_far_valid && kind.has_ipa(is_table_walk)).then_some(Ipa::new(page | offset)),
            virtual_address: far,
            is_write: iss >> 6 & 1 == 1,
            is_table_walk,
            is_cache_maintenance: iss >> 8 & 1 == 1,
            transfer,
        }
    }
}
