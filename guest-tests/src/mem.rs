//! Loads and stores at plain addresses: devices, memory that no Rust object lies in, and addresses of nothing.

use core::arch::asm;

use crate::{boot, mmu};

/// Refuses the addresses of this program: what remains, no compiled code holds a reference to.
#[track_caller]
fn assert_foreign(address: u64, size_bytes: u64) {
    let end = address.saturating_add(size_bytes);
    let is_own = address < boot::image_end() && boot::image_start() < end;
    // The alias shows devices only, never RAM.
    assert!(!is_own || address >= mmu::BEYOND_IPA, "access to the program itself: {address:#x}");
}

macro_rules! access {
    ($read:ident, $write:ident, $type:ty, $load:literal, $store:literal, $size:literal) => {
        #[doc = concat!("Loads ", stringify!($type), " from `address` in one instruction.")]
        #[track_caller]
        pub fn $read(address: u64) -> $type {
            assert_foreign(address, $size);
            let value: $type;
            // SAFETY: one load from an address outside of every Rust object.
            unsafe { asm!($load, out(reg) value, in(reg) address, options(nostack, preserves_flags)) };
            value
        }

        #[doc = concat!("Stores ", stringify!($type), " at `address` in one instruction.")]
        #[track_caller]
        pub fn $write(address: u64, value: $type) {
            assert_foreign(address, $size);
            // SAFETY: one store to an address outside of every Rust object.
            unsafe { asm!($store, in(reg) value, in(reg) address, options(nostack, preserves_flags)) };
        }
    };
}

access!(read8, write8, u8, "ldrb {:w}, [{}]", "strb {:w}, [{}]", 1);
access!(read16, write16, u16, "ldrh {:w}, [{}]", "strh {:w}, [{}]", 2);
access!(read32, write32, u32, "ldr {:w}, [{}]", "str {:w}, [{}]", 4);
access!(read64, write64, u64, "ldr {:x}, [{}]", "str {:x}, [{}]", 8);

/// Loads two 64-bit words: an access whose trap has no instruction syndrome.
#[track_caller]
pub fn read_pair(address: u64) -> (u64, u64) {
    assert_foreign(address, 16);
    let (first, second): (u64, u64);
    // SAFETY: one load from an address outside of every Rust object.
    unsafe { asm!("ldp {}, {}, [{}]", out(reg) first, out(reg) second, in(reg) address, options(nostack)) };
    (first, second)
}

/// Stores two 64-bit words: an access whose trap has no instruction syndrome.
#[track_caller]
pub fn write_pair(address: u64, first: u64, second: u64) {
    assert_foreign(address, 16);
    // SAFETY: one store to an address outside of every Rust object.
    unsafe { asm!("stp {}, {}, [{}]", in(reg) first, in(reg) second, in(reg) address, options(nostack)) };
}

/// Loads with write-back of the address register: no instruction syndrome either.
#[track_caller]
pub fn read32_post_indexed(address: u64) -> u32 {
    assert_foreign(address, 4);
    let value: u32;
    // SAFETY: one load from an address outside of every Rust object.
    unsafe { asm!("ldr {:w}, [{}], #4", out(reg) value, inout(reg) address => _, options(nostack)) };
    value
}

/// Load-exclusive of a 32-bit word, whose reservation is given up at once.
#[track_caller]
pub fn read_exclusive(address: u64) -> u32 {
    assert_foreign(address, 4);
    let value: u32;
    // SAFETY: one load from an address outside of every Rust object.
    unsafe { asm!("ldxr {:w}, [{}]", "clrex", out(reg) value, in(reg) address, options(nostack)) };
    value
}

/// Load-acquire of a 32-bit word.
#[track_caller]
pub fn read_acquire(address: u64) -> u32 {
    assert_foreign(address, 4);
    let value: u32;
    // SAFETY: one load from an address outside of every Rust object.
    unsafe { asm!("ldar {:w}, [{}]", out(reg) value, in(reg) address, options(nostack)) };
    value
}

/// Signed loads, whose syndrome asks for sign extension: (`ldrsb` to 64 bits, `ldrsw`).
#[track_caller]
pub fn read_signed(address: u64) -> (i64, i64) {
    assert_foreign(address, 4);
    let (byte, word): (i64, i64);
    // SAFETY: a load from an address outside of every Rust object.
    unsafe { asm!("ldrsb {:x}, [{}]", out(reg) byte, in(reg) address, options(nostack)) };
    // SAFETY: as above.
    unsafe { asm!("ldrsw {:x}, [{}]", out(reg) word, in(reg) address, options(nostack)) };
    (byte, word)
}

/// Loads to the zero register and stores from it.
#[track_caller]
pub fn touch_with_zero_register(address: u64) {
    assert_foreign(address, 4);
    // SAFETY: a load from an address outside of every Rust object.
    unsafe { asm!("ldr wzr, [{}]", in(reg) address, options(nostack)) };
    // SAFETY: a store to an address outside of every Rust object.
    unsafe { asm!("str wzr, [{}]", in(reg) address, options(nostack)) };
}

/// Zeroes a cache line's block by `dc zva`.
#[track_caller]
pub fn zero_block(address: u64) {
    assert_foreign(address & !63, 64);
    // SAFETY: stores zeros outside of every Rust object.
    unsafe { asm!("dc zva, {}", in(reg) address, options(nostack)) };
}

/// Cleans and invalidates one cache line by address.
pub fn clean_line(address: u64) {
    // SAFETY: cache maintenance does not change what memory holds.
    unsafe { asm!("dc civac, {}", in(reg) address, options(nostack)) };
}

/// Calls `address` as a function: a fetch from where no code is. Returns where something there returned.
#[track_caller]
pub fn fetch(address: u64) {
    assert_foreign(address, 4);
    // SAFETY: declared a call that clobbers everything; what it runs cannot be known, as is the wish.
    unsafe { asm!("blr {}", in(reg) address, clobber_abi("C")) };
}

/// Fills `bytes` bytes, a multiple of 8, at `address` with [`pattern`].
#[track_caller]
pub fn fill(address: u64, bytes: u64, seed: u64) {
    fill_sparse(address, bytes, 8, seed);
}

/// Like [`fill`], one word each `stride` bytes.
#[track_caller]
pub fn fill_sparse(address: u64, bytes: u64, stride: u64, seed: u64) {
    let mut offset = 0;
    while offset < bytes {
        write64(address + offset, pattern(seed, offset));
        offset += stride;
    }
}

/// Address of the first 64-bit word that is not what [`fill`] left there.
#[track_caller]
pub fn find_changed(address: u64, bytes: u64, seed: u64) -> Option<u64> {
    find_changed_sparse(address, bytes, 8, seed)
}

/// Like [`find_changed`], for [`fill_sparse`].
#[track_caller]
pub fn find_changed_sparse(address: u64, bytes: u64, stride: u64, seed: u64) -> Option<u64> {
    let mut offset = 0;
    while offset < bytes {
        if read64(address + offset) != pattern(seed, offset) {
            return Some(address + offset);
        }
        offset += stride;
    }
    None
}

/// The word that [`fill`] puts at `offset` for `seed`: never the same for two seeds or two offsets nearby.
pub fn pattern(seed: u64, offset: u64) -> u64 {
    (seed ^ offset.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed
}
