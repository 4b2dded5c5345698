//! What the guest's stream table says of a stream (IHI 0070 3.3, 5.1, 5.2).

use core::sync::atomic::AtomicU64;

use bulkhead_core::{
    addr::Ipa,
    stage1::{ContextTable, StreamConfig},
    vplat::DEVICES_MAX,
};
use heapless::Vec;

use super::{
    Host, HostFailed, STREAM_BITS, Vsmmu,
    registers::{CR0, CR2, GBPA, STRTAB_BASE_CFG, offset},
};
use crate::memory::{GuestMemory, Word};

/// Bits 55:6 of STRTAB_BASE, of a level-1 descriptor, and of an entry's first word.
const ADDRESS: u64 = 0x00ff_ffff_ffff_ffc0;
/// STE.S1STALLD in an entry's second word.
const S1STALLD: u64 = 1 << 27;
/// Events' numbers (7.3).
const C_BAD_STREAMID: u64 = 0x02;
const F_STE_FETCH: u64 = 0x03;
const C_BAD_STE: u64 = 0x04;

/// Why a stream has no entry.
enum Missing {
    /// Its number is past the table, or its descriptor names none.
    Stream,
    /// The access to this address was aborted.
    Fetch(u64),
}

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
        let mut streams = Vec::<u32, DEVICES_MAX>::new();
        for stream in host.streams().filter(|stream| (first..=last).contains(stream)) {
            // Those of a VM are no more than that.
            let _ = streams.push(stream);
        }
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

    /// What the stream's entry says.
    fn find(&self, stream: u32, memory: &mut impl GuestMemory) -> Result<StreamConfig, Missing> {
        let cfg = self.registers.fields::<STRTAB_BASE_CFG::Register>(offset::STRTAB_BASE_CFG);
        // The base is aligned to what the register says, the range is that of the StreamIDs that there are.
        let log2 = cfg.read(STRTAB_BASE_CFG::LOG2SIZE);
        if stream >> log2.min(STREAM_BITS) != 0 {
            return Err(Missing::Stream);
        }
        let base = self.registers.double(offset::STRTAB_BASE);
        let at = if cfg.matches_all(STRTAB_BASE_CFG::FMT::TwoLevel) {
            // Other values are reserved, and behave as 6.
            let split = match cfg.read(STRTAB_BASE_CFG::SPLIT) {
                split @ (8 | 10) => split,
                _ => 6,
            };
            let [descriptor] =
                fetch(memory, aligned(base, log2.saturating_sub(split).max(3) + 3) + entry(stream >> split, 3))?;
            let span = u32::from(descriptor.to_le_bytes()[0] & 0x1f).wrapping_sub(1);
            let place = stream & ((1 << split) - 1);
            // A span of 0 has wrapped; one past the split is out of bounds, and so are the reserved ones.
            if span > split || place >> span != 0 {
                return Err(Missing::Stream);
            }
            aligned(descriptor, span + 6) + entry(place, 6)
        } else {
            aligned(base, log2 + 6) + entry(stream, 6)
        };
        let [low, high] = fetch(memory, at)?;
        Ok(decode(low, high, self.ability.oas_bits))
    }

    /// `event` of a stream of the VM as its own SMMU would have recorded it. Without an entry the hardware has one that is
    /// not valid; the reason is looked for anew. `None` where CR2.RECINVSID = 0 says that nothing is to be recorded.
    pub(super) fn explain(&self, mut event: [u64; 4], memory: &mut impl GuestMemory) -> Option<[u64; 4]> {
        let stream = u32::try_from(event[0] >> 32).ok()?;
        if event[0] & 0xff != C_BAD_STE {
            return Some(event);
        }
        match self.find(stream, memory) {
            Ok(_) => {}
            Err(Missing::Stream) => {
                self.registers.fields::<CR2::Register>(offset::CR2).is_set(CR2::RECINVSID).then_some(())?;
                event[0] ^= C_BAD_STE ^ C_BAD_STREAMID;
            }
            Err(Missing::Fetch(at)) => {
                event[0] ^= C_BAD_STE ^ F_STE_FETCH;
                event[3] = at;
            }
        }
        Some(event)
    }
}

/// `N` words at `at`, each read once.
fn fetch<const N: usize>(memory: &mut impl GuestMemory, at: u64) -> Result<[u64; N], Missing> {
    let words = memory.words(Ipa::new(at), N).and_then(|words| words.first_chunk());
    words.map(|words: &[AtomicU64; N]| words.each_ref().map(Word::get)).ok_or(Missing::Fetch(at))
}

/// Where an entry of 2^`log2` bytes is in its table.
fn entry(place: u32, log2: u32) -> u64 {
    u64::from(place) << log2
}

/// What the first two words of an entry say. Nothing else of it is looked at.
///
/// Ignored: S1Fmt, S1CDMax and S1DSS without substreams, EATS without ATS; RES0 what is of stage 2, EL2 and overrides.
///
/// What is ILLEGAL: stage 2, a stall disabled where there is none, a context descriptor past the output addresses.
fn decode(low: u64, high: u64, oas_bits: u8) -> StreamConfig {
    if low & 1 == 0 {
        return StreamConfig::Invalid;
    }
    match low >> 1 & 7 {
        0..=3 => StreamConfig::Abort,
        4 => StreamConfig::Bypass,
        5 if high & S1STALLD == 0 && low & ADDRESS < 1 << oas_bits.min(48) => StreamConfig::Stage1(ContextTable {
            at: Ipa::new(low & ADDRESS),
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

/// The address of a table that is aligned to 2^`log2` bytes.
fn aligned(register: u64, log2: u32) -> u64 {
    register & ADDRESS & u64::MAX.checked_shl(log2).unwrap_or_default()
}
