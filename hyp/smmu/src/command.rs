//! Commands to the SMMU and their 128-bit encodings (IHI 0070 chapter 4).

use core::fmt;

use bulkhead_core::{
    addr::Ipa,
    ids::{StreamId, Vmid},
};

/// Size of a command in bytes.
pub const COMMAND_BYTES: u64 = 16;

/// One command. Only what the driver sends; those of ATS and PRI come with their users.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// CMD_CFGI_STE: forgets the cached entry of one stream, and its level-1 descriptor unless `is_leaf`.
    CfgiSte {
        /// The stream.
        stream: StreamId,
        /// Whether the level-1 descriptor may stay cached.
        is_leaf: bool,
    },
    /// CMD_CFGI_ALL: forgets every cached configuration structure.
    CfgiAll,
    /// CMD_CFGI_CD_ALL: forgets the cached context descriptors of one stream.
    CfgiCdAll {
        /// The stream.
        stream: StreamId,
    },
    /// CMD_TLBI_NH_ALL: forgets every stage-1 translation of a VMID.
    TlbiNhAll {
        /// The VMID.
        vmid: Vmid,
    },
    /// CMD_TLBI_NH_ASID: forgets the stage-1 translations of an ASID of a VMID, global ones excepted.
    TlbiNhAsid {
        /// The VMID.
        vmid: Vmid,
        /// The ASID.
        asid: u16,
    },
    /// CMD_TLBI_NH_VA, of an ASID and of global entries; without an ASID CMD_TLBI_NH_VAA, of all ASIDs. One page, or,
    /// where IDR3.RIL is 1, `(num + 1) << scale` pages of 4 KiB.
    TlbiNhVa {
        /// The VMID.
        vmid: Vmid,
        /// The ASID.
        asid: Option<u16>,
        /// First address.
        va: u64,
        /// Pages in units of 2^scale, less one: 0 to 31.
        num: u8,
        /// Base-2 logarithm of the unit in pages: 0 to 31.
        scale: u8,
        /// Whether entries above the last level may stay cached.
        is_leaf: bool,
    },
    /// CMD_TLBI_EL2_ALL: forgets every translation of the EL2 regime.
    TlbiEl2All,
    /// CMD_TLBI_S12_VMALL: forgets every translation of a VMID, both stages.
    TlbiS12Vmall {
        /// The VMID.
        vmid: Vmid,
    },
    /// CMD_TLBI_S2_IPA: forgets the stage-2 translation of one page of a VMID.
    TlbiS2Ipa {
        /// The VMID.
        vmid: Vmid,
        /// Any address in the page.
        ipa: Ipa,
        /// Whether entries above the last level may stay cached.
        is_leaf: bool,
    },
    /// CMD_TLBI_S2_IPA with a range, where IDR3.RIL is 1: `(num + 1) << scale` pages of 4 KiB.
    TlbiS2IpaRange {
        /// The VMID.
        vmid: Vmid,
        /// First address.
        ipa: Ipa,
        /// Pages in units of 2^scale, less one: 0 to 31.
        num: u8,
        /// Base-2 logarithm of the unit in pages: 0 to 31.
        scale: u8,
        /// Whether entries above the last level may stay cached.
        is_leaf: bool,
    },
    /// CMD_TLBI_NSNH_ALL: forgets every Non-secure translation that is not EL2's.
    TlbiNsnhAll,
    /// CMD_SYNC with CS = SIG_NONE: complete when CONS has moved past it.
    Sync,
}

/// A command's kind, as counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Of configuration caches.
    Configuration,
    /// Of TLBs.
    Tlb,
    /// CMD_SYNC.
    Sync,
}

impl Command {
    const OP_CFGI_STE: u64 = 0x03;
    const OP_CFGI_ALL: u64 = 0x04;
    const OP_CFGI_CD_ALL: u64 = 0x06;
    const OP_TLBI_NH_ALL: u64 = 0x10;
    const OP_TLBI_NH_ASID: u64 = 0x11;
    const OP_TLBI_NH_VA: u64 = 0x12;
    const OP_TLBI_NH_VAA: u64 = 0x13;
    const OP_TLBI_EL2_ALL: u64 = 0x20;
    pub(crate) const OP_TLBI_S12_VMALL: u64 = 0x28;
    pub(crate) const OP_TLBI_S2_IPA: u64 = 0x2a;
    const OP_TLBI_NSNH_ALL: u64 = 0x30;
    const OP_SYNC: u64 = 0x46;

    /// Range of CMD_CFGI_STE_RANGE that makes it CMD_CFGI_ALL (4.3.2).
    const RANGE_ALL: u64 = 31;
    /// TG of the 4 KiB granule in a range command (4.4.1.1).
    const TG_4K: u64 = 0b01 << 10;
    pub(crate) const IPA_MASK: u64 = 0x000f_ffff_ffff_f000;
    const VA_MASK: u64 = 0xffff_ffff_ffff_f000;

    /// The two 64-bit words of the command, the lower first.
    #[inline(always)]
    pub const fn encode(self) -> [u64; 2] {
        match self {
            Self::CfgiSte { stream, is_leaf } => [Self::OP_CFGI_STE | (stream.0 as u64) << 32, is_leaf as u64],
            Self::CfgiAll => [Self::OP_CFGI_ALL, Self::RANGE_ALL],
            Self::CfgiCdAll { stream } => [Self::OP_CFGI_CD_ALL | (stream.0 as u64) << 32, 0],
            Self::TlbiNhAll { vmid } => [Self::OP_TLBI_NH_ALL | Self::vmid(vmid), 0],
            Self::TlbiNhAsid { vmid, asid } => [Self::OP_TLBI_NH_ASID | Self::vmid(vmid) | (asid as u64) << 48, 0],
            Self::TlbiNhVa { vmid, asid, va, num, scale, is_leaf } => {
                let operation = match asid {
                    Some(asid) => Self::OP_TLBI_NH_VA | (asid as u64) << 48,
                    None => Self::OP_TLBI_NH_VAA,
                };
                let span = Self::span(num, scale);
                // NUM, SCALE and TTL all zero with TG is reserved (4.4.1.1): one page goes without.
                let granule = if span == 0 { 0 } else { Self::TG_4K };
                [operation | Self::vmid(vmid) | span, (va & Self::VA_MASK) | granule | is_leaf as u64]
            }
            Self::TlbiEl2All => [Self::OP_TLBI_EL2_ALL, 0],
            Self::TlbiS12Vmall { vmid } => [Self::OP_TLBI_S12_VMALL | Self::vmid(vmid), 0],
            Self::TlbiS2Ipa { vmid, ipa, is_leaf } => {
                [Self::OP_TLBI_S2_IPA | Self::vmid(vmid), (ipa.as_u64() & Self::IPA_MASK) | is_leaf as u64]
            }
            Self::TlbiS2IpaRange { vmid, ipa, num, scale, is_leaf } => [
                Self::OP_TLBI_S2_IPA | Self::span(num, scale) | Self::vmid(vmid),
                (ipa.as_u64() & Self::IPA_MASK) | Self::TG_4K | is_leaf as u64,
            ],
            Self::TlbiNsnhAll => [Self::OP_TLBI_NSNH_ALL, 0],
            Self::Sync => [Self::OP_SYNC, 0],
        }
    }

    /// What the command is counted as.
    pub const fn kind(self) -> Kind {
        match self {
            Self::CfgiSte { .. } | Self::CfgiAll | Self::CfgiCdAll { .. } => Kind::Configuration,
            Self::TlbiNhAll { .. }
            | Self::TlbiNhAsid { .. }
            | Self::TlbiNhVa { .. }
            | Self::TlbiEl2All
            | Self::TlbiS12Vmall { .. }
            | Self::TlbiS2Ipa { .. }
            | Self::TlbiS2IpaRange { .. }
            | Self::TlbiNsnhAll => Kind::Tlb,
            Self::Sync => Kind::Sync,
        }
    }

    const fn vmid(vmid: Vmid) -> u64 {
        (vmid.as_u16() as u64) << 32
    }

    /// NUM and SCALE of a range.
    const fn span(num: u8, scale: u8) -> u64 {
        (num as u64 & 31) << 12 | (scale as u64 & 31) << 20
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CfgiSte { stream, is_leaf } => write!(f, "CMD_CFGI_STE of stream {stream}, leaf {is_leaf}"),
            Self::CfgiAll => f.write_str("CMD_CFGI_ALL"),
            Self::CfgiCdAll { stream } => write!(f, "CMD_CFGI_CD_ALL of stream {stream}"),
            Self::TlbiNhAll { vmid } => write!(f, "CMD_TLBI_NH_ALL of vmid {}", vmid.as_u16()),
            Self::TlbiNhAsid { vmid, asid } => {
                write!(f, "CMD_TLBI_NH_ASID of vmid {}, asid {asid:#x}", vmid.as_u16())
            }
            Self::TlbiNhVa { vmid, asid, va, num, scale, is_leaf } => {
                let (name, asid) = if let Some(asid) = asid { ("VA", *asid) } else { ("VAA", 0) };
                let vmid = vmid.as_u16();
                write!(
                    f,
                    "CMD_TLBI_NH_{name} of vmid {vmid}, asid {asid:#x}, from {va:#x}, num {num}, scale {scale}, leaf {is_leaf}"
                )
            }
            Self::TlbiEl2All => f.write_str("CMD_TLBI_EL2_ALL"),
            Self::TlbiS12Vmall { vmid } => write!(f, "CMD_TLBI_S12_VMALL of vmid {}", vmid.as_u16()),
            Self::TlbiS2Ipa { vmid, ipa, is_leaf } => {
                write!(f, "CMD_TLBI_S2_IPA of vmid {} at {ipa}, leaf {is_leaf}", vmid.as_u16())
            }
            Self::TlbiS2IpaRange { vmid, ipa, num, scale, is_leaf } => {
                let vmid = vmid.as_u16();
                write!(f, "CMD_TLBI_S2_IPA of vmid {vmid} from {ipa}, num {num}, scale {scale}, leaf {is_leaf}")
            }
            Self::TlbiNsnhAll => f.write_str("CMD_TLBI_NSNH_ALL"),
            Self::Sync => f.write_str("CMD_SYNC"),
        }
    }
}

#[cfg(test)]
mod tests;
