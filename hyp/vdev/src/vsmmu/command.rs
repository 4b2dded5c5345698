//! Commands, decoded from a copy (IHI 0070 chapter 4).

use bulkhead_core::stage1::{Stage1Flush, Stage1Pages};

use super::{Ability, registers::MESSAGE_ADDRESS};

/// Size of a command in bytes, as a logarithm.
pub const COMMAND_LOG2: u32 = 4;

/// One command that this SMMU knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// CMD_PREFETCH_CONFIG, CMD_PREFETCH_ADDR: hints.
    Prefetch,
    /// CMD_CFGI_*.
    Forget(Forget),
    /// CMD_TLBI_*.
    Flush(Stage1Flush),
    /// CMD_SYNC.
    Sync(Completion),
}

/// Configuration that changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Forget {
    /// CMD_CFGI_STE, CMD_CFGI_STE_RANGE and CMD_CFGI_ALL: of the streams from the first to the last.
    Streams(u32, u32),
    /// CMD_CFGI_CD and CMD_CFGI_CD_ALL: a stream has one context descriptor.
    Context(u32),
}

/// How a CMD_SYNC says that it is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completion {
    /// Not at all (SIG_NONE; and SIG_SEV, since IDR0.SEV = 0).
    None,
    /// SIG_IRQ: by a store of the data to the address, or by wire where that is 0.
    Message(u64, u32),
}

/// SSec in commands that name a stream: a Secure one, which this queue has none of (4.1.6).
const SSEC: u64 = 1 << 10;
/// Bits 63:12.
const ADDRESS: u64 = !0xfff;

/// What of an [`Ability`] the fields of commands depend on.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    /// Bits of an ASID. The others are RES0 (4.4).
    asid: u16,
    has_ranges: bool,
}

impl Decoder {
    /// For commands to an SMMU with `ability`.
    pub fn new(ability: &Ability) -> Self {
        let asid = if ability.has_asid16 { 0xffff } else { 0xff };
        Self { asid, has_ranges: ability.has_range_invalidation }
    }

    /// What the two words of a command say; `None` where that is CERROR_ILL: an opcode that does not exist in an SMMU with
    /// stage 1 alone, no EL2, no ATS, no PRI and no stalls, or fields that may not be.
    ///
    /// CMD_TLBI_NSNH_ALL does exist there (4.4.4.1): of this VM's own translations it leaves nothing, as NH_ALL does.
    #[inline(always)]
    pub fn decode(self, [low, high]: [u64; 2]) -> Option<Command> {
        let stream = half(low >> 32);
        Some(match low & 0xff {
            opcode @ (0x12 | 0x13) => {
                Command::Flush(self.pages(low, high, (opcode == 0x12).then_some(self.asid(low)))?)
            }
            0x46 => Command::Sync(match low >> 12 & 3 {
                1 => Completion::Message(high & MESSAGE_ADDRESS, stream),
                3 => return None,
                _ => Completion::None,
            }),
            0x01..=0x06 if low & SSEC != 0 => return None,
            0x01 | 0x02 => Command::Prefetch,
            0x03 => Command::Forget(Forget::Streams(stream, stream)),
            0x04 => {
                let others = half((2 << (high & 31)) - 1);
                Command::Forget(Forget::Streams(stream & !others, stream | others))
            }
            0x05 | 0x06 => Command::Forget(Forget::Context(stream)),
            0x10 | 0x30 => Command::Flush(Stage1Flush::All),
            0x11 => Command::Flush(Stage1Flush::Asid(self.asid(low))),
            _ => return None,
        })
    }

    #[inline(always)]
    fn asid(self, low: u64) -> u16 {
        let [.., low_byte, high_byte] = low.to_le_bytes();
        u16::from_le_bytes([low_byte, high_byte]) & self.asid
    }

    /// The pages of CMD_TLBI_NH_VA and NH_VAA (4.4.1.1). The TTL hint is not used: less would be forgotten.
    #[inline(always)]
    fn pages(self, low: u64, high: u64, asid: Option<u16>) -> Option<Stage1Flush> {
        let granule = if self.has_ranges { high >> 10 & 3 } else { 0 };
        let mut pages = 1;
        if granule != 0 {
            let (num, scale, level) = (low >> 12 & 31, low >> 20 & 31, high >> 8 & 3);
            // Level 1 has no blocks of the 16 KiB granule, so that the hint is none.
            if num | scale == 0 && (level == 0 || (granule, level) == (2, 1)) {
                return None;
            }
            // In granules of 4, 16 or 64 KiB: at most 2^40 pages. A range ends with the address space.
            pages = ((num + 1) << (scale + 2 * granule) >> 2).min((!high >> 12) + 1);
        }
        Some(Stage1Flush::Pages(Stage1Pages { asid, first: high & ADDRESS, pages, is_leaf: high & 1 != 0 }))
    }
}

/// The low 32 bits.
fn half(word: u64) -> u32 {
    let [a, b, c, d, ..] = word.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
