//! What an SMMU can do, read once from its ID registers, or why it is refused.

use core::fmt;

use crate::registers::{AIDR, IDR0, IDR1, IDR3, IDR5};

/// Why an SMMU cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[repr(u64)]
pub enum FeatureError {
    /// IDR0.S2P is 0.
    #[error("the smmu has no stage 2 (IDR0 {idr0:#x})")]
    NoStage2 {
        /// IDR0.
        idr0: u32,
    },
    /// IDR0.TTF does not offer VMSAv8-64 tables.
    #[error("the smmu does not walk aarch64 tables (IDR0 {idr0:#x})")]
    NoAarch64Tables {
        /// IDR0.
        idr0: u32,
    },
    /// IDR0.TTENDIAN offers big-endian tables alone, or is reserved.
    #[error("the smmu does not walk little-endian tables (IDR0 {idr0:#x})")]
    NoLittleEndian {
        /// IDR0.
        idr0: u32,
    },
    /// IDR5.GRAN4K is 0.
    #[error("the smmu has no 4 KiB granule (IDR5 {idr5:#x})")]
    NoGranule4K {
        /// IDR5.
        idr5: u32,
    },
    /// IDR5.OAS is reserved.
    #[error("the smmu's output address size is unknown (IDR5 {idr5:#x})")]
    UnknownOas {
        /// IDR5.
        idr5: u32,
    },
    /// Memory that has to be mapped lies beyond what the SMMU can put out.
    #[error("the smmu puts out {oas_bits} address bits, {needed_bits} are needed")]
    OasTooSmall {
        /// What it puts out.
        oas_bits: u8,
        /// What is needed.
        needed_bits: u8,
    },
    /// IDR0.STALL_MODEL forces faults to stall: one faulting device would hold up its neighbours.
    #[error("the smmu stalls faulting transactions and cannot be told not to (IDR0 {idr0:#x})")]
    ForcedStall {
        /// IDR0.
        idr0: u32,
    },
    /// A queue is smaller than one batch of commands or one page of events.
    #[error("the smmu's {queue} queue holds 2^{log2} entries, 2^{needed_log2} are needed")]
    QueueTooSmall {
        /// "command" or "event".
        queue: &'static str,
        /// Base-2 logarithm of its largest size.
        log2: u8,
        /// Base-2 logarithm of the size needed.
        needed_log2: u8,
    },
    /// The tables or queues are at addresses that hardware fixed (IDR1.TABLES_PRESET, QUEUES_PRESET).
    #[error("the smmu's tables or queues have preset addresses (IDR1 {idr1:#x})")]
    Preset {
        /// IDR1.
        idr1: u32,
    },
    /// AIDR names an architecture other than SMMUv3.
    #[error("not an smmuv3 (AIDR {aidr:#x})")]
    NotV3 {
        /// AIDR.
        aidr: u32,
    },
}

/// The ID registers, as read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdRegisters {
    /// IDR0.
    pub idr0: u32,
    /// IDR1.
    pub idr1: u32,
    /// IDR3.
    pub idr3: u32,
    /// IDR5.
    pub idr5: u32,
    /// AIDR.
    pub aidr: u32,
}

/// What an SMMU offers. Its existence is the proof that the SMMU can isolate: see [`FeatureError`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// Stage 1 exists (and may be nested under our stage 2).
    pub has_stage1: bool,
    /// ASIDs have 16 bits, else 8.
    pub has_asid16: bool,
    /// The stream table may have two levels.
    pub has_two_level_table: bool,
    /// Bits of a StreamID, 0 to 32.
    pub sid_bits: u8,
    /// VMIDs have 16 bits, else 8.
    pub has_vmid16: bool,
    /// The SMMU's own accesses are coherent with the CPUs' caches.
    pub is_coherent: bool,
    /// TLBI commands may carry a range.
    pub has_range_invalidation: bool,
    /// Level of support for changing a block's size in place, 0 to 2.
    pub bbm_level: u8,
    /// Access flags of leaves are set by the SMMU (IDR0.HTTU), in tables that are coherent with the CPUs.
    pub has_access_flag_update: bool,
    /// Takes part in the CPUs' broadcast TLB maintenance.
    pub has_broadcast_tlb: bool,
    /// The EL2 translation regime exists.
    pub has_hyp: bool,
    /// PCIe ATS exists.
    pub has_ats: bool,
    /// The PRI queue exists.
    pub has_pri: bool,
    /// Interrupts may be sent as MSIs.
    pub has_msi: bool,
    /// Memory types of transactions may be overridden.
    pub has_type_override: bool,
    /// IDR0.STALL_MODEL: 0 stall and terminate, 1 terminate alone.
    pub stall_model: u8,
    /// Faults are always reported to the device (IDR0.TERM_MODEL).
    pub is_terminate_only: bool,
    /// Base-2 logarithm of the largest command queue, in commands.
    pub cmdq_log2: u8,
    /// Base-2 logarithm of the largest event queue, in events.
    pub eventq_log2: u8,
    /// Output address size in bits.
    pub oas_bits: u8,
    /// Minor version of the architecture, 0 for SMMUv3.0.
    pub minor_version: u8,
}

impl Features {
    /// Base-2 logarithm of the smallest command queue that the driver works with.
    pub const CMDQ_MIN_LOG2: u8 = 4;
    /// Base-2 logarithm of the smallest event queue that the driver works with.
    pub const EVENTQ_MIN_LOG2: u8 = 4;

    /// Reads the features out of the ID registers.
    ///
    /// `needed_oas_bits` is the size in bits of the highest physical address that will be mapped: an SMMU that cannot
    /// put it out is refused (rule 11).
    pub fn from_idr(id: &IdRegisters, needed_oas_bits: u8) -> Result<Self, FeatureError> {
        let IdRegisters { idr0, idr1, idr3, idr5, aidr } = *id;
        if AIDR::MAJOR.read(aidr) != 0 {
            return Err(FeatureError::NotV3 { aidr });
        }
        if !IDR0::S2P.is_set(idr0) {
            return Err(FeatureError::NoStage2 { idr0 });
        }
        // 0b10 AArch64, 0b11 both; 0b01 is AArch32 alone.
        if IDR0::TTF.read(idr0) < 2 {
            return Err(FeatureError::NoAarch64Tables { idr0 });
        }
        if !matches!(IDR0::TTENDIAN.read(idr0), 0 | 2) {
            return Err(FeatureError::NoLittleEndian { idr0 });
        }
        if !IDR5::GRAN4K.is_set(idr5) {
            return Err(FeatureError::NoGranule4K { idr5 });
        }
        if IDR1::TABLES_PRESET.is_set(idr1) || IDR1::QUEUES_PRESET.is_set(idr1) {
            return Err(FeatureError::Preset { idr1 });
        }
        if IDR0::STALL_MODEL.read(idr0) == 2 {
            return Err(FeatureError::ForcedStall { idr0 });
        }
        let oas_bits = match IDR5::OAS.read(idr5) {
            0 => 32,
            1 => 36,
            2 => 40,
            3 => 42,
            4 => 44,
            5 => 48,
            6 => 52,
            _ => return Err(FeatureError::UnknownOas { idr5 }),
        };
        if oas_bits < needed_oas_bits {
            return Err(FeatureError::OasTooSmall { oas_bits, needed_bits: needed_oas_bits });
        }
        let cmdq_log2 = field(IDR1::CMDQS.read(idr1));
        let eventq_log2 = field(IDR1::EVENTQS.read(idr1));
        for (queue, log2, needed_log2) in
            [("command", cmdq_log2, Self::CMDQ_MIN_LOG2), ("event", eventq_log2, Self::EVENTQ_MIN_LOG2)]
        {
            if log2 < needed_log2 {
                return Err(FeatureError::QueueTooSmall { queue, log2, needed_log2 });
            }
        }
        Ok(Self {
            has_stage1: IDR0::S1P.is_set(idr0),
            has_asid16: IDR0::ASID16.is_set(idr0),
            has_two_level_table: IDR0::ST_LEVEL.read(idr0) == 1,
            sid_bits: field(IDR1::SIDSIZE.read(idr1).min(32)),
            has_vmid16: IDR0::VMID16.is_set(idr0),
            is_coherent: IDR0::COHACC.is_set(idr0),
            has_range_invalidation: IDR3::RIL.is_set(idr3),
            bbm_level: field(IDR3::BBML.read(idr3)),
            has_access_flag_update: IDR0::HTTU.read(idr0) != 0 && IDR0::COHACC.is_set(idr0),
            has_broadcast_tlb: IDR0::BTM.is_set(idr0),
            has_hyp: IDR0::HYP.is_set(idr0),
            has_ats: IDR0::ATS.is_set(idr0),
            has_pri: IDR0::PRI.is_set(idr0),
            has_msi: IDR0::MSI.is_set(idr0),
            has_type_override: IDR1::ATTR_TYPES_OVR.is_set(idr1),
            stall_model: field(IDR0::STALL_MODEL.read(idr0)),
            is_terminate_only: IDR0::TERM_MODEL.is_set(idr0),
            cmdq_log2,
            eventq_log2,
            oas_bits,
            minor_version: field(AIDR::MINOR.read(aidr)),
        })
    }

    /// The same SMMU treated as if its accesses were not coherent: runs the cache maintenance on any machine.
    #[must_use]
    pub fn forced_non_coherent(self) -> Self {
        Self { is_coherent: false, has_access_flag_update: false, ..self }
    }

    /// Highest VMID that the SMMU tells apart.
    pub const fn max_vmid(&self) -> u16 {
        if self.has_vmid16 { u16::MAX } else { 0xff }
    }
}

/// A field of at most 8 bits as a byte.
fn field(value: u32) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

impl fmt::Display for Features {
    /// One short line for the boot log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SMMUv3.{}: stage {}, {} address bits, {} stream bits in a {} table, VMID {}, {}",
            self.minor_version,
            if self.has_stage1 { "1+2" } else { "2" },
            self.oas_bits,
            self.sid_bits,
            if self.has_two_level_table { "2-level" } else { "linear" },
            if self.has_vmid16 { 16 } else { 8 },
            if self.is_coherent { "coherent" } else { "not coherent" },
        )?;
        for (is_there, name) in [
            (self.has_range_invalidation, "range invalidation"),
            (self.has_access_flag_update, "access flags"),
            (self.has_broadcast_tlb, "broadcast TLB"),
            (self.has_ats, "ATS (off)"),
            (self.has_pri, "PRI (off)"),
            (self.has_msi, "MSI (off)"),
            (self.stall_model != 1, "stall (off)"),
        ] {
            if is_there {
                write!(f, ", {name}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
