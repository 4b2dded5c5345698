//! What the guest's stream table says of a stream (IHI 0070 3.3, 5.1, 5.2).

use bulkhead_core::{
    addr::Ipa,
    stage1::{ContextTable, StreamConfig},
    vplat::DEVICES_MAX,
};
use heapless::Vec;

use super::{
    Host, HostFailed, STREAM_BITS, Vsmmu,
    registers::{CR0, GBPA, STRTAB_BASE_CFG, offset},
};
use crate::memory::{GuestMemory, Word};

/// Bits 51:6 of STRTAB_BASE and of a level-1 descriptor.
const TABLE: u64 = 0x000f_ffff_ffff_ffc0;
/// Bits 55:6 of an entry's first word.
const CONTEXT: u64 = 0x00ff_ffff_ffff_ffc0;

impl Vsmmu {
    /// Has the host treat the VM's streams from `first` to `last` as the guest wants it now, `is_enabled` or not (SMMUEN).
    /// The number of streams.
    pub(super) fn configure(
        &self,
        first: u32,
        last: u32,
        is_enabled: bool,
        memory: &mut impl GuestMemory,
        host: &mut impl Host,
    ) -> Result<u32, HostFailed> {
        let streams: Vec<u32, DEVICES_MAX> =
            host.streams().filter(|stream| (first..=last).contains(stream)).take(DEVICES_MAX).collect();
        let mut count = 0;
        for stream in streams {
            let config = match is_enabled {
                true => self.find(stream, memory).unwrap_or(StreamConfig::Invalid),
                false if self.is_aborting() => StreamConfig::Abort,
                false => StreamConfig::Bypass,
            };
            host.configure(stream, &config)?;
            count += 1;
        }
        Ok(count)
    }

    /// Whether the SMMU translates (CR0ACK.SMMUEN).
    pub(super) fn is_enabled(&self) -> bool {
        self.registers.fields::<CR0::Register>(offset::CR0ACK).is_set(CR0::SMMUEN)
    }

    fn is_aborting(&self) -> bool {
        self.registers.fields::<GBPA::Register>(offset::GBPA).is_set(GBPA::ABORT)
    }

    /// The stream's entry; `None` if there is none, or not in RAM.
    fn find(&self, stream: u32, memory: &mut impl GuestMemory) -> Option<StreamConfig> {
        let cfg = self.registers.fields::<STRTAB_BASE_CFG::Register>(offset::STRTAB_BASE_CFG);
        let log2 = cfg.read(STRTAB_BASE_CFG::LOG2SIZE).min(STREAM_BITS);
        if stream >> log2 != 0 {
            return None;
        }
        let base = self.registers.double(offset::STRTAB_BASE) & TABLE;
        let at = if cfg.matches_all(STRTAB_BASE_CFG::FMT::TwoLevel) {
            // Other values are reserved, and behave as 6.
            let split = match cfg.read(STRTAB_BASE_CFG::SPLIT) {
                split @ (8 | 10) => split,
                _ => 6,
            };
            // The table is aligned to its size, or to 64 bytes.
            let size_log2 = (log2.saturating_sub(split) + 3).max(6);
            let at = aligned(base, size_log2) + (u64::from(stream >> split) << 3);
            let descriptor = memory.words(Ipa::new(at), 1)?.first()?.get();
            let span = match descriptor.to_le_bytes()[0] & 0x1f {
                span @ 1..=11 => u32::from(span) - 1,
                _ => return None,
            };
            let place = u64::from(stream & ((1 << split) - 1));
            if place >> span != 0 {
                return None;
            }
            aligned(descriptor & TABLE, span + 6) + (place << 6)
        } else {
            aligned(base, log2 + 6) + (u64::from(stream) << 6)
        };
        let [low, high] = memory.words(Ipa::new(at), 2)? else { return None };
        Some(decode(low.get(), high.get(), self.ability.oas_bits))
    }
}

/// What the first two words of an entry say. Nothing else of it is looked at.
///
/// Ignored without substreams and stage 2: S1Fmt, S1CDMax, S1DSS, all of S2; without ATS: EATS; without stalls, EL2 and
/// overrides of attributes what would be RES0, but for those that would make the entry ILLEGAL.
fn decode(low: u64, high: u64, oas_bits: u8) -> StreamConfig {
    if low & 1 == 0 {
        return StreamConfig::Invalid;
    }
    match low >> 1 & 7 {
        0..=3 => StreamConfig::Abort,
        4 => StreamConfig::Bypass,
        5 if low & CONTEXT < 1 << oas_bits.min(48) => StreamConfig::Stage1(ContextTable {
            at: Ipa::new(low & CONTEXT),
            inner: bits(high, 2),
            outer: bits(high, 4),
            shareability: match bits(high, 6) {
                1 => 0,
                shareability => shareability,
            },
        }),
        _ => StreamConfig::Invalid,
    }
}

/// Two bits of an entry's second word.
fn bits(word: u64, at: u32) -> u8 {
    (word >> at).to_le_bytes()[0] & 3
}

/// `base` aligned to 2^`log2` bytes.
fn aligned(base: u64, log2: u32) -> u64 {
    base & !((1 << log2) - 1)
}
