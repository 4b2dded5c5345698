//! Stream table entries: abort, stage 2, or a guest's stage 1 under our stage 2. Bypass cannot be said.

use bulkhead_core::{
    addr::{Ipa, PAGE_SIZE, PhysAddr},
    ids::Vmid,
    stage1::ContextTable,
    stage2::{IPA_BITS_MAX, IPA_BITS_MIN, OUTPUT_BITS_MAX, S2Config, root_pages},
};
use tock_registers::register_bitfields;

use crate::features::Features;

/// Size of a stream table entry in bytes.
pub const STE_BYTES: u64 = 64;
/// 64-bit words of a stream table entry.
pub const STE_WORDS: usize = 8;

// IHI 0070 5.2. Word n holds bits 64n to 64n + 63. `CONFIG` has no value for
// bypass (0b100) nor for stage 1 alone (0b101) on purpose.
register_bitfields![u64,
    pub(crate) STE0 [
        V OFFSET(0) NUMBITS(1) [],
        CONFIG OFFSET(1) NUMBITS(3) [Abort = 0b000, Stage2 = 0b110, Nested = 0b111]
    ],
    pub(crate) STE1 [
        S1DSS OFFSET(0) NUMBITS(2) [Substream0 = 0b10],
        S1CIR OFFSET(2) NUMBITS(2) [],
        S1COR OFFSET(4) NUMBITS(2) [],
        S1CSH OFFSET(6) NUMBITS(2) [],
        MEV OFFSET(19) NUMBITS(1) [],
        S2FWB OFFSET(25) NUMBITS(1) [],
        S1STALLD OFFSET(27) NUMBITS(1) [],
        EATS OFFSET(28) NUMBITS(2) [],
        STRW OFFSET(30) NUMBITS(2) [],
        MTCFG OFFSET(36) NUMBITS(1) [],
        SHCFG OFFSET(44) NUMBITS(2) [Incoming = 0b01]
    ],
    pub(crate) STE2 [
        S2VMID OFFSET(0) NUMBITS(16) [],
        S2T0SZ OFFSET(32) NUMBITS(6) [],
        S2SL0 OFFSET(38) NUMBITS(2) [Level2 = 0, Level1 = 1, Level0 = 2],
        S2IR0 OFFSET(40) NUMBITS(2) [NonCacheable = 0, WriteBack = 1],
        S2OR0 OFFSET(42) NUMBITS(2) [NonCacheable = 0, WriteBack = 1],
        S2SH0 OFFSET(44) NUMBITS(2) [Outer = 2, Inner = 3],
        S2TG OFFSET(46) NUMBITS(2) [Granule4K = 0],
        S2PS OFFSET(48) NUMBITS(3) [],
        S2AA64 OFFSET(51) NUMBITS(1) [],
        S2ENDI OFFSET(52) NUMBITS(1) [],
        S2AFFD OFFSET(53) NUMBITS(1) [],
        S2PTW OFFSET(54) NUMBITS(1) [],
        S2HD OFFSET(55) NUMBITS(1) [],
        S2HA OFFSET(56) NUMBITS(1) [],
        S2S OFFSET(57) NUMBITS(1) [],
        S2R OFFSET(58) NUMBITS(1) []
    ]
];

/// STE.S2TTB in word 3, for addresses of up to 48 bits (the 4 KiB granule's).
pub(crate) const S2TTB: u64 = 0x0000_ffff_ffff_f000;

/// STE.S1ContextPtr in word 0, for addresses of up to 52 bits.
pub(crate) const S1_CONTEXT: u64 = 0x000f_ffff_ffff_ffc0;

/// Why a translation cannot be put into a stream table entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[repr(u64)]
pub enum SteError {
    /// The input size is not one that a single root table at level 1 covers, or past what the SMMU takes in.
    #[error("a table for {ipa_bits} address bits: {min} to {max} are possible")]
    IpaBits {
        /// Asked for.
        ipa_bits: u8,
        /// Fewest bits.
        min: u8,
        /// Most bits.
        max: u8,
    },
    /// The root table is not page-aligned, is zero, or lies past the output address size.
    #[error("a root table at {root} is not on a page below 2^{oas_bits}")]
    Root {
        /// Asked for.
        root: PhysAddr,
        /// Output address size in bits.
        oas_bits: u8,
    },
    /// The SMMU has 8-bit VMIDs.
    #[error("vmid {} is past the smmu's last, {max}", vmid.as_u16())]
    Vmid {
        /// Asked for.
        vmid: Vmid,
        /// Highest possible.
        max: u16,
    },
    /// IDR0.S1P is 0.
    #[error("the smmu has no stage 1")]
    NoStage1,
    /// The context descriptor is not on a multiple of 64 bytes of what stage 2 takes in.
    #[error("a context descriptor at {at}, not a multiple of 64 below 2^{ipa_bits}")]
    Context {
        /// Asked for.
        at: Ipa,
        /// Bits of an address that stage 2 takes in.
        ipa_bits: u8,
    },
}

/// Checks that an SMMU with `features` can walk `config`'s table: 4 KiB granule, its root aligned to its size.
pub fn check(config: &S2Config, features: &Features) -> Result<(), SteError> {
    // IAS is at least OAS (3.4), and what devices put out is guest-physical.
    let (min, max) = (IPA_BITS_MIN, IPA_BITS_MAX.min(features.oas_bits));
    if !(min..=max).contains(&config.ipa_bits) {
        return Err(SteError::IpaBits { ipa_bits: config.ipa_bits, min, max });
    }
    let oas_bits = features.oas_bits.min(OUTPUT_BITS_MAX);
    let root = config.root.as_u64();
    let size_bytes = root_pages(config.ipa_bits) * PAGE_SIZE;
    if root == 0 || root & !S2TTB != 0 || root & (size_bytes - 1) != 0 || root >> oas_bits != 0 {
        return Err(SteError::Root { root: config.root, oas_bits });
    }
    if config.vmid.as_u16() > features.max_vmid() {
        return Err(SteError::Vmid { vmid: config.vmid, max: features.max_vmid() });
    }
    Ok(())
}

/// STE.S2PS: the largest encoded size that neither the table nor the SMMU exceeds (5.2; 52 bits would need a larger
/// granule or S2DS). What the table holds beyond it is an address size fault, never memory.
fn output_size(config: &S2Config, features: &Features) -> u64 {
    match config.output_bits.min(features.oas_bits) {
        0..36 => 0,
        36..40 => 1,
        40..42 => 2,
        42..44 => 3,
        44..48 => 4,
        _ => 5,
    }
}

/// What becomes of a transaction that faults at stage 2. It is aborted either way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recording {
    /// An event is recorded.
    On,
    /// Nothing is recorded: for a stream over its fault budget.
    Off,
}

/// A stream table entry. There is no way to make one that lets a transaction through untranslated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ste([u64; STE_WORDS]);

impl Ste {
    /// Word 0 of an entry that is not valid: every transaction is aborted, an event is recorded.
    pub const INVALID_WORD: u64 = 0;

    /// Every transaction is aborted and recorded as C_BAD_STE.
    pub fn invalid() -> Self {
        Self([Self::INVALID_WORD; STE_WORDS])
    }

    /// Every transaction is aborted and nothing is recorded (5.2, Config = 0b000).
    pub fn abort() -> Self {
        let mut words = [0; STE_WORDS];
        words[0] = (STE0::V::SET + STE0::CONFIG::Abort).into();
        Self(words)
    }

    /// Transactions are translated by `config`'s table alone; stage 1, ATS and PASIDs are off.
    ///
    /// - S2S = 0, S2R by `recording`: a fault is aborted at once, never stalled (5.5). A stalled PCIe device would
    ///   hold up its neighbours.
    /// - S2AFFD = 0: a leaf with AF = 0 is one that a sampled load of a DMA map stored, or it is not ours and faults.
    /// - S2HA = 1 where the SMMU can: it sets the AF of such leaves (3.13.2). It writes nothing else to the table: all
    ///   other leaves have AF = 1 from the start, and S2HD = 0.
    /// - S2PTW = 1: does nothing without stage 1 (5.2); under a guest's stage 1 it keeps table walks off devices.
    /// - MTCFG = 0, SHCFG = incoming: attributes are the device's, combined with those of the table.
    pub fn stage2(config: &S2Config, features: &Features, recording: Recording) -> Result<Self, SteError> {
        check(config, features)?;
        let mut words = [0; STE_WORDS];
        words[0] = (STE0::V::SET + STE0::CONFIG::Stage2).into();
        words[1] = STE1::MEV::SET.into();
        if features.has_type_override {
            // RES0, with the effect of "incoming", where types cannot be overridden.
            words[1] |= u64::from(STE1::SHCFG::Incoming);
        }
        let walks = if features.is_coherent {
            STE2::S2IR0::WriteBack + STE2::S2OR0::WriteBack + STE2::S2SH0::Inner
        } else {
            STE2::S2IR0::NonCacheable + STE2::S2OR0::NonCacheable + STE2::S2SH0::Outer
        };
        let fields = STE2::S2VMID.val(u64::from(config.vmid.as_u16()))
            + STE2::S2T0SZ.val(64 - u64::from(config.ipa_bits))
            + STE2::S2SL0.val(u64::from(config.sl0()))
            + walks
            + STE2::S2TG::Granule4K
            + STE2::S2PS.val(output_size(config, features))
            + STE2::S2AA64::SET
            + STE2::S2PTW::SET
            + STE2::S2HA.val(u64::from(features.has_access_flag_update))
            + STE2::S2R.val(u64::from(recording == Recording::On));
        words[2] = fields.into();
        words[3] = config.root.as_u64() & S2TTB;
        Ok(Self(words))
    }

    /// Transactions are translated by the guest's stage 1, and what comes out of it by `config`'s table.
    ///
    /// The stage-2 half is that of [`stage2`](Self::stage2): what the guest's context descriptor and tables are fetched
    /// from is translated by it as well. Of the guest are S1ContextPtr, an IPA, and the attributes of the fetch.
    /// - S1CDMax = 0, S1Fmt = 0: one descriptor; a PASID is C_BAD_SUBSTREAMID. S1DSS, IGNORED then, says that what has
    ///   none uses that descriptor.
    /// - S1STALLD = 1 where the SMMU can stall (elsewhere it is ILLEGAL, 5.5): the guest's CD.S cannot hold a bus up.
    /// - STRW = 0: NS-EL1, with ASIDs, tagged by our VMID (3.17).
    /// - S2R = 1, which says nothing of stage 1: recording is CD.R, the guest's. Such a stream is made quiet by abort.
    pub fn nested(config: &S2Config, context: &ContextTable, features: &Features) -> Result<Self, SteError> {
        let Self(mut words) = Self::stage2(config, features, Recording::On)?;
        if !features.has_stage1 {
            return Err(SteError::NoStage1);
        }
        let ContextTable { at, inner, outer, shareability } = *context;
        let ipa_bits = config.ipa_bits;
        // Out of range it is CONSTRAINED UNPREDICTABLE what is fetched (3.4.3).
        if at.as_u64() & !S1_CONTEXT != 0 || at.as_u64() >> ipa_bits != 0 {
            return Err(SteError::Context { at, ipa_bits });
        }
        words[0] = u64::from(STE0::V::SET + STE0::CONFIG::Nested) | at.as_u64();
        let fields = STE1::S1DSS::Substream0
            + STE1::S1CIR.val(inner.into())
            + STE1::S1COR.val(outer.into())
            + STE1::S1CSH.val(shareability.into())
            + STE1::S1STALLD.val(u64::from(features.stall_model == 0));
        words[1] |= u64::from(fields);
        Ok(Self(words))
    }

    /// The eight 64-bit words.
    pub const fn words(&self) -> &[u64; STE_WORDS] {
        &self.0
    }
}

#[cfg(test)]
mod tests;
