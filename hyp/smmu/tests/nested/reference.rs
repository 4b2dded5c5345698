//! What a transaction of a guest's device reaches by the architecture's words, from its registers and its memory alone:
//! nothing is cached, nothing is optimised.
//!
//! Of context descriptors and tables that is what the strict model has: 4 KiB granule, TTB0, no updates by the SMMU.

use bulkhead_smmu::model::DmaAccess;
use bulkhead_vdev::{mmio::Width, vsmmu::Vsmmu};

use crate::guest::Ram;

/// IDR5.OAS of the physical SMMU, in bits.
const OAS_BITS: u64 = 44;

/// The address in the guest's memory that `stream` reaches at `va`; `None` where it is aborted.
pub fn reached(device: &Vsmmu, ram: &Ram, stream: u32, va: u64, access: DmaAccess) -> Option<u64> {
    let at = if device.read(0x24, Width::Word) & 1 == 0 {
        let is_aborting = device.read(0x44, Width::Word) >> 20 & 1 == 1;
        (!is_aborting).then_some(va)
    } else {
        let [low, high] = entry(device, ram, stream)?;
        match low >> 1 & 7 {
            _ if low & 1 == 0 => None,
            4 => Some(va),
            5 if high >> 27 & 1 == 0 => stage1(ram, low & 0x00ff_ffff_ffff_ffc0, va, access),
            _ => None,
        }
    }?;
    ram.load(at & !7).map(|_| at)
}

/// The two words of a stream's entry (3.3, 6.3 STRTAB_BASE_CFG).
fn entry(device: &Vsmmu, ram: &Ram, stream: u32) -> Option<[u64; 2]> {
    let address = |word: u64| u128::from(word & 0x00ff_ffff_ffff_ffc0);
    let (base, cfg) = (address(device.read(0x80, Width::Double)), device.read(0x88, Width::Word));
    let (stream, entries) = (u128::from(stream), 1_u128 << (cfg & 0x3f));
    if stream >= entries.min(256) {
        return None;
    }
    let load = |at: u128| ram.load(u64::try_from(at).ok()?);
    let at = if cfg >> 16 & 3 == 1 {
        let split = match cfg >> 6 & 0x1f {
            8 => 256,
            10 => 1024,
            _ => 64,
        };
        let bytes = (entries / split * 8).max(64);
        let descriptor = load(base / bytes * bytes + stream / split * 8)?;
        let span = descriptor & 0x1f;
        if !(1..=11).contains(&span) {
            return None;
        }
        let (size, place) = (1_u128 << (span - 1), stream % split);
        if size > split || place >= size {
            return None;
        }
        address(descriptor) / (size * 64) * (size * 64) + place * 64
    } else {
        base / (entries * 64) * (entries * 64) + stream * 64
    };
    Some([load(at)?, load(at + 8)?])
}

/// What a context descriptor and its tables make of `va` (5.4, DDI 0487 D8.2).
fn stage1(ram: &Ram, descriptor: u64, va: u64, access: DmaAccess) -> Option<u64> {
    let mut words = [0; 8];
    for (word, at) in words.iter_mut().zip((descriptor..).step_by(8)) {
        *word = ram.load(at)?;
    }
    let [word, table, ..] = words;
    // V, AA64 and A, EPD1; TG0, EPD0, ENDI, HD, HA, S clear.
    let (set, clear) = (1 << 31 | 1 << 41 | 1 << 46 | 1 << 30, 3 << 6 | 1 << 14 | 1 << 15 | 7 << 42);
    let va_bits = 64_u64.checked_sub(word & 63).filter(|bits| (25..=48).contains(bits))?;
    if word & set != set || word & clear != 0 || va >> va_bits != 0 {
        return None;
    }
    let out_bits = [32, 36, 40, 42, 44, 48, 48, 48][usize::try_from(word >> 32 & 7).ok()?].min(OAS_BITS);
    let is_output = |address: u64| address >> out_bits == 0;
    // Bits that are still to be resolved when this level begins.
    let mut bits = va_bits;
    let levels = (va_bits - 12).div_ceil(9);
    let root_bytes = 8 << (va_bits - 12 - 9 * (levels - 1));
    let mut at = table & 0x000f_ffff_ffff_fff0 & !(root_bytes - 1);
    if !is_output(at) {
        return None;
    }
    for left in (0..levels).rev() {
        let shift = 12 + 9 * left;
        let entry = ram.load(at + ((va & ((1 << bits) - 1)) >> shift) * 8)?;
        let output = entry & 0x0000_ffff_ffff_f000;
        if !is_output(output) {
            return None;
        }
        match (entry & 3, left) {
            (3, 1..) => (at, bits) = (output, shift),
            (3, 0) | (1, 1 | 2) => {
                // AF or AFFD; EL0 may; AP[2].
                let may = entry >> 6 & 1 == 1 && (access == DmaAccess::Read || entry >> 7 & 1 == 0);
                let is_accessible = entry >> 10 & 1 == 1 || word >> 35 & 1 == 1;
                let inside = (1 << shift) - 1;
                return (may && is_accessible).then_some(output & !inside | va & inside);
            }
            _ => return None,
        }
    }
    None
}
