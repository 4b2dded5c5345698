//! Why a transaction was aborted: numbers, names, meanings (IHI 0070 7.3).

/// Why a transaction was aborted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// F_UUT: a transaction of an unsupported kind.
    UnsupportedTransaction,
    /// C_BAD_STREAMID: past the stream table, or no level-2 table there.
    BadStreamId,
    /// F_STE_FETCH: the entry could not be read.
    SteFetch,
    /// C_BAD_STE: the entry is not valid.
    BadSte,
    /// F_BAD_ATS_TREQ: an ATS request where ATS is off.
    BadAtsRequest,
    /// F_STREAM_DISABLED: no substream given where one is needed.
    StreamDisabled,
    /// F_TRANSL_FORBIDDEN: an ATS-translated transaction where ATS is off.
    TranslatedForbidden,
    /// C_BAD_SUBSTREAMID: a PASID where there are none.
    BadSubstreamId,
    /// F_CD_FETCH.
    CdFetch,
    /// C_BAD_CD.
    BadCd,
    /// F_WALK_EABT: a table could not be read.
    WalkAbort,
    /// F_TRANSLATION: nothing is mapped there.
    Translation,
    /// F_ADDR_SIZE: an address past the end.
    AddressSize,
    /// F_ACCESS: the access flag is clear.
    AccessFlag,
    /// F_PERMISSION: the mapping does not allow it.
    Permission,
    /// F_TLB_CONFLICT.
    TlbConflict,
    /// F_CFG_CONFLICT.
    ConfigConflict,
    /// E_PAGE_REQUEST.
    PageRequest,
    /// F_VMS_FETCH.
    VmsFetch,
    /// A number that the driver does not know.
    Unknown(u8),
}

impl Reason {
    /// The reason of an event record with this number.
    pub const fn from_number(number: u8) -> Self {
        match number {
            0x01 => Self::UnsupportedTransaction,
            0x02 => Self::BadStreamId,
            0x03 => Self::SteFetch,
            0x04 => Self::BadSte,
            0x05 => Self::BadAtsRequest,
            0x06 => Self::StreamDisabled,
            0x07 => Self::TranslatedForbidden,
            0x08 => Self::BadSubstreamId,
            0x09 => Self::CdFetch,
            0x0a => Self::BadCd,
            0x0b => Self::WalkAbort,
            0x10 => Self::Translation,
            0x11 => Self::AddressSize,
            0x12 => Self::AccessFlag,
            0x13 => Self::Permission,
            0x20 => Self::TlbConflict,
            0x21 => Self::ConfigConflict,
            0x24 => Self::PageRequest,
            0x25 => Self::VmsFetch,
            other => Self::Unknown(other),
        }
    }

    /// The number of the event record.
    pub const fn number(self) -> u8 {
        match self {
            Self::UnsupportedTransaction => 0x01,
            Self::BadStreamId => 0x02,
            Self::SteFetch => 0x03,
            Self::BadSte => 0x04,
            Self::BadAtsRequest => 0x05,
            Self::StreamDisabled => 0x06,
            Self::TranslatedForbidden => 0x07,
            Self::BadSubstreamId => 0x08,
            Self::CdFetch => 0x09,
            Self::BadCd => 0x0a,
            Self::WalkAbort => 0x0b,
            Self::Translation => 0x10,
            Self::AddressSize => 0x11,
            Self::AccessFlag => 0x12,
            Self::Permission => 0x13,
            Self::TlbConflict => 0x20,
            Self::ConfigConflict => 0x21,
            Self::PageRequest => 0x24,
            Self::VmsFetch => 0x25,
            Self::Unknown(number) => number,
        }
    }

    /// Name in the specification.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnsupportedTransaction => "F_UUT",
            Self::BadStreamId => "C_BAD_STREAMID",
            Self::SteFetch => "F_STE_FETCH",
            Self::BadSte => "C_BAD_STE",
            Self::BadAtsRequest => "F_BAD_ATS_TREQ",
            Self::StreamDisabled => "F_STREAM_DISABLED",
            Self::TranslatedForbidden => "F_TRANSL_FORBIDDEN",
            Self::BadSubstreamId => "C_BAD_SUBSTREAMID",
            Self::CdFetch => "F_CD_FETCH",
            Self::BadCd => "C_BAD_CD",
            Self::WalkAbort => "F_WALK_EABT",
            Self::Translation => "F_TRANSLATION",
            Self::AddressSize => "F_ADDR_SIZE",
            Self::AccessFlag => "F_ACCESS",
            Self::Permission => "F_PERMISSION",
            Self::TlbConflict => "F_TLB_CONFLICT",
            Self::ConfigConflict => "F_CFG_CONFLICT",
            Self::PageRequest => "E_PAGE_REQUEST",
            Self::VmsFetch => "F_VMS_FETCH",
            Self::Unknown(_) => "unknown event",
        }
    }

    /// What it means, in a few plain words.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::UnsupportedTransaction => "a kind of transaction that is not supported",
            Self::BadStreamId | Self::BadSte => "the device is in no VM",
            Self::SteFetch => "the stream table could not be read",
            Self::BadAtsRequest | Self::TranslatedForbidden => "ATS is off",
            Self::StreamDisabled => "the stream is disabled",
            Self::BadSubstreamId => "PASIDs are off",
            Self::CdFetch | Self::BadCd => "bad context descriptor",
            Self::WalkAbort => "a translation table could not be read",
            Self::Translation => "nothing is mapped there",
            Self::AddressSize => "past the end of the address space",
            Self::AccessFlag => "access flag clear",
            Self::Permission => "not allowed there",
            Self::TlbConflict | Self::ConfigConflict => "conflicting entries",
            Self::PageRequest => "page request",
            Self::VmsFetch => "the VM structure could not be read",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Whether word 2 holds the input address (7.3).
    pub(super) const fn has_address(self) -> bool {
        matches!(
            self,
            Self::UnsupportedTransaction
                | Self::BadAtsRequest
                | Self::TranslatedForbidden
                | Self::WalkAbort
                | Self::Translation
                | Self::AddressSize
                | Self::AccessFlag
                | Self::Permission
                | Self::TlbConflict
                | Self::PageRequest
        )
    }

    /// Whether word 1 holds the access and the class, and S2 says which stage (7.3.12 to 7.3.16).
    pub(super) const fn is_translation_fault(self) -> bool {
        matches!(self, Self::WalkAbort | Self::Translation | Self::AddressSize | Self::AccessFlag | Self::Permission)
    }
}
