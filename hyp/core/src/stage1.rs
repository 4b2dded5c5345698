//! Stage 1 of an SMMU as a guest may have it under our stage 2: what its stream table entries and commands say, once they
//! were checked. Between the virtual SMMU, which makes these values, and the physical one, which acts on them.

use crate::addr::Ipa;

/// What a guest wants done with the transactions of one of its streams (STE.V and STE.Config, IHI 0070 5.2).
///
/// Whatever it is, our stage 2 is in force where anything passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamConfig {
    /// The entry is not valid, or is one that the guest may not have: aborted, recorded as C_BAD_STE.
    Invalid,
    /// Config = 0b000: aborted, nothing recorded.
    Abort,
    /// Config = 0b100 in the guest's eyes: no stage 1.
    Bypass,
    /// Config = 0b101 in the guest's eyes: its stage 1.
    Stage1(ContextTable),
}

/// Where a stream's context descriptor lies: one, no substreams (S1CDMax = 0, S1Fmt = 0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContextTable {
    /// STE.S1ContextPtr, a multiple of 64 bytes. The hardware translates it by stage 2 at each fetch.
    pub at: Ipa,
    /// STE.S1CIR, 0 to 3: inner cacheability of fetches.
    pub inner: u8,
    /// STE.S1COR, 0 to 3: outer cacheability.
    pub outer: u8,
    /// STE.S1CSH, 0, 2 or 3: shareability.
    pub shareability: u8,
}

/// Translations of a guest's stage 1 that are to be forgotten, of one VMID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage1Flush {
    /// CMD_TLBI_NH_ALL: everything.
    All,
    /// CMD_TLBI_NH_ASID: everything but global entries of one ASID.
    Asid(u16),
    /// CMD_TLBI_NH_VA and CMD_TLBI_NH_VAA, of a page or of a range.
    Pages(Stage1Pages),
}

/// Pages of a guest's stage 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage1Pages {
    /// The ASID; `None` for all of them (VAA).
    pub asid: Option<u16>,
    /// First address, a multiple of 4 KiB.
    pub first: u64,
    /// Pages of 4 KiB, at least 1.
    pub pages: u64,
    /// Whether entries above the last level may stay cached.
    pub is_leaf: bool,
}
