//! XXH64 of a bundle, read by whole words where they are aligned.
//!
//! Written from the specification (xxHash `doc/xxhash_spec.md`, version 0.2.0). A target without unaligned loads reads a
//! word byte by byte unless its type says that it is aligned: the one loop over the whole bundle at boot would cost six times as much.

use zerocopy::{FromBytes, Immutable, KnownLayout, little_endian};

const PRIME_1: u64 = 0x9e37_79b1_85eb_ca87;
const PRIME_2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const PRIME_3: u64 = 0x1656_67b1_9e37_79f9;
const PRIME_4: u64 = 0x85eb_ca77_c2b2_ae63;
const PRIME_5: u64 = 0x27d4_eb2f_1656_67c5;

/// Words of a stripe: one for each accumulator.
const LANES: usize = 4;

/// XXH64 with seed 0: the checksum of a bundle's bytes after its header.
pub fn checksum(bytes: &[u8]) -> u64 {
    let (hash, rest) =
        stripes(bytes, u64::from_le).or_else(|| stripes(bytes, little_endian::U64::get)).unwrap_or((PRIME_5, bytes));
    avalanche(remainder(hash.wrapping_add(bytes.len() as u64), rest))
}

/// Steps 1 to 3: the accumulators of all whole stripes, merged, and what is left over. `None` when `bytes` is shorter than a
/// stripe, or not aligned for `W`.
fn stripes<W>(bytes: &[u8], word: impl Fn(W) -> u64) -> Option<(u64, &[u8])>
where
    W: FromBytes + Immutable + KnownLayout + Copy + 'static,
{
    let (stripes, rest) = <[[W; LANES]]>::ref_from_prefix(bytes).ok()?;
    if stripes.is_empty() {
        return None;
    }
    let (mut a, mut b, mut c, mut d) = (PRIME_1.wrapping_add(PRIME_2), PRIME_2, 0, PRIME_1.wrapping_neg());
    for &[first, second, third, fourth] in stripes {
        a = round(a, word(first));
        b = round(b, word(second));
        c = round(c, word(third));
        d = round(d, word(fourth));
    }
    let sum =
        a.rotate_left(1).wrapping_add(b.rotate_left(7)).wrapping_add(c.rotate_left(12)).wrapping_add(d.rotate_left(18));
    let merge = |hash: u64, lane| (hash ^ round(0, lane)).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
    Some(([a, b, c, d].into_iter().fold(sum, merge), rest))
}

const fn round(accumulator: u64, word: u64) -> u64 {
    accumulator.wrapping_add(word.wrapping_mul(PRIME_2)).rotate_left(31).wrapping_mul(PRIME_1)
}

/// Step 5: fewer than 32 bytes.
fn remainder(mut hash: u64, mut rest: &[u8]) -> u64 {
    while let Some((&word, next)) = rest.split_first_chunk() {
        hash ^= round(0, u64::from_le_bytes(word));
        hash = hash.rotate_left(27).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
        rest = next;
    }
    if let Some((&word, next)) = rest.split_first_chunk() {
        hash ^= u64::from(u32::from_le_bytes(word)).wrapping_mul(PRIME_1);
        hash = hash.rotate_left(23).wrapping_mul(PRIME_2).wrapping_add(PRIME_3);
        rest = next;
    }
    for &byte in rest {
        hash ^= u64::from(byte).wrapping_mul(PRIME_5);
        hash = hash.rotate_left(11).wrapping_mul(PRIME_1);
    }
    hash
}

/// Step 6.
const fn avalanche(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 33).wrapping_mul(PRIME_2);
    hash = (hash ^ hash >> 29).wrapping_mul(PRIME_3);
    hash ^ hash >> 32
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::{any, proptest};
    use xxhash_rust::xxh64::xxh64;

    use super::checksum;

    /// The specification's own example values would not show a wrong lane: another implementation is the oracle.
    /// Would miss: a length, or an alignment, at which the image and the tools disagree.
    #[test]
    fn agrees_with_another_implementation_at_every_length_and_alignment() {
        let bytes: Vec<u8> = (0..200_u32).map(|place| place.wrapping_mul(0x9e37_79b1).to_le_bytes()[3]).collect();
        for start in 0..8 {
            for end in start..bytes.len() {
                let part = &bytes[start..end];
                assert_eq!(checksum(part), xxh64(part, 0), "{start}..{end}");
            }
        }
    }

    proptest! {
        /// Would miss: words that carry into each other.
        #[test]
        fn agrees_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            assert_eq!(checksum(&bytes), xxh64(&bytes, 0));
        }
    }
}
