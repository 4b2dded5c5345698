//! What a call names of its guest's memory: arrays and rings.

use core::sync::atomic::AtomicU64;

use bulkhead_abi::{BLOCK_BYTES, Error};
use bulkhead_core::addr::Ipa;

use crate::memory::{GuestMemory, WORD_BYTES};

/// `bytes` bytes of an array or a ring, if they lie as the interface says.
///
/// # Errors
/// [`Error::BadAddress`].
pub fn words(memory: &mut impl GuestMemory, at: Ipa, bytes: u64) -> Result<&[AtomicU64], Error> {
    let count = usize::try_from(bytes).map_err(|_| Error::BadAddress)? / WORD_BYTES;
    if !at.is_aligned(WORD_BYTES as u64) || bytes > BLOCK_BYTES - at.as_u64() % BLOCK_BYTES {
        return Err(Error::BadAddress);
    }
    memory.words(at, count).ok_or(Error::BadAddress)
}
