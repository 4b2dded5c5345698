//! Stream table entries and context descriptors (IHI 0070 5.2, 5.4).

use super::Space;
use crate::mem;

/// No entry: C_BAD_STE.
pub const INVALID: [u64; 8] = [0; 8];
/// Abort, nothing recorded.
pub const ABORT: [u64; 8] = [1, 0, 0, 0, 0, 0, 0, 0];
/// Bypass of stage 1.
pub const BYPASS: [u64; 8] = [1 | 4 << 1, 1 << 44, 0, 0, 0, 0, 0, 0];

/// Stage 1 by the context descriptor at `context`, write-back and inner shareable.
pub fn stage1(context: u64) -> [u64; 8] {
    [1 | 5 << 1 | context, 2 | 1 << 2 | 1 << 4 | 3 << 6, 0, 0, 0, 0, 0, 0]
}

/// The descriptor of `space`: 39 bits of address, 4 KiB, write-back, 44 bits come out; faults are recorded and abort.
pub fn context(space: &Space) -> [u64; 8] {
    let translation = 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 30;
    let flags = 1 << 31 | 4 << 32 | 1 << 41 | 1 << 45 | 1 << 46 | 1 << 47;
    [translation | flags | u64::from(space.asid) << 48, space.root, 0, 0xff, 0, 0, 0, 0]
}

/// Stores an entry or a descriptor: V in the first word comes last.
pub fn store(at: u64, words: [u64; 8]) {
    mem::write64(at, 0);
    for (offset, word) in (8..64).step_by(8).zip(words.iter().skip(1)) {
        mem::write64(at + offset, *word);
    }
    mem::write64(at, words[0]);
}
