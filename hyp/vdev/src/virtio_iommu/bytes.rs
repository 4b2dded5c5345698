//! Bytes of a guest's memory, by way of its words.

use core::sync::atomic::AtomicU64;

use bulkhead_core::addr::{BLOCK_2M, Ipa};

use crate::dmamap::{GuestMemory, Word};

/// Bytes of a word.
const WORD: u64 = size_of::<u64>() as u64;

/// Copies `into.len()` bytes from `at` on, each word read once; `None` if not all of them are the VM's own RAM.
pub fn read(memory: &mut impl GuestMemory, at: Ipa, into: &mut [u8]) -> Option<()> {
    let bytes = into.len();
    let mut rest = into.iter_mut();
    each_word(memory, at, bytes, |word, skip| {
        let value = word.get().to_le_bytes();
        value.iter().skip(skip).zip(&mut rest).for_each(|(byte, place)| *place = *byte);
    })
}

/// Copies `from` to `at`; `None` if not all of that is the VM's own RAM. A word of which only a part is written keeps the
/// rest as it was read.
pub fn write(memory: &mut impl GuestMemory, at: Ipa, from: &[u8]) -> Option<()> {
    let mut rest = from.iter();
    each_word(memory, at, from.len(), |word, skip| {
        let mut value = word.get().to_le_bytes();
        value.iter_mut().skip(skip).zip(&mut rest).for_each(|(place, byte)| *place = *byte);
        word.set(u64::from_le_bytes(value));
    })
}

/// A field of 16 bits; what the guest stored before it is seen by later reads.
pub fn read_u16(memory: &mut impl GuestMemory, at: Ipa) -> Option<u16> {
    let word = memory.words(at.align_down(WORD), 1)?.first()?.get_acquire();
    let [low, high] = [at.as_u64() % WORD, at.as_u64() % WORD + 1].map(|place| byte(word, place));
    at.is_aligned(2).then_some(u16::from_le_bytes([low, high]))
}

/// Stores a field of 16 bits after everything that was stored before.
pub fn publish_u16(memory: &mut impl GuestMemory, at: Ipa, value: u16) -> Option<()> {
    let word = memory.words(at.align_down(WORD), 1)?.first()?;
    let shift = 8 * (at.as_u64() % WORD);
    let others = word.get() & !0xffff_u64.checked_shl(u32::try_from(shift).ok()?)?;
    word.set_release(others | u64::from(value) << shift);
    at.is_aligned(2).then_some(())
}

fn byte(word: u64, place: u64) -> u8 {
    usize::try_from(place).ok().and_then(|place| word.to_le_bytes().get(place).copied()).unwrap_or(0)
}

/// Runs `f` on each word that holds some of `bytes` bytes from `at` on, with the bytes of it that come before those.
fn each_word(memory: &mut impl GuestMemory, at: Ipa, bytes: usize, mut f: impl FnMut(&AtomicU64, usize)) -> Option<()> {
    let end = at.checked_add(u64::try_from(bytes).ok()?)?.align_up(WORD)?;
    let mut next = at.align_down(WORD);
    let mut skip = usize::try_from(at.as_u64() % WORD).ok()?;
    while next < end {
        // What a call opens lies in one block.
        let room = BLOCK_2M - next.as_u64() % BLOCK_2M;
        let span = end.checked_sub(next)?.min(room);
        for word in memory.words(next, usize::try_from(span / WORD).ok()?)? {
            f(word, core::mem::take(&mut skip));
        }
        next = next.checked_add(span)?;
    }
    Some(())
}
