//! The stage-1 map: identity in 1 GiB blocks, with aliases for accesses that no sane guest makes.

use core::arch::asm;

const BLOCK: u64 = 1 << 30;
const ENTRIES: usize = 512;
const VALID_BLOCK: u64 = 0b01;
const ACCESS_FLAG: u64 = 1 << 10;
const INNER_SHAREABLE: u64 = 3 << 8;
const NORMAL: u64 = 1 << 2;
const DEVICE: u64 = 0 << 2;
const NEVER_EXECUTE: u64 = 3 << 53;

/// Virtual address of an alias of the lowest GiB (the devices) as executable Normal memory: for exclusive accesses
/// and instruction fetches, which Device memory does not allow.
pub const NORMAL_ALIAS: u64 = 511 * BLOCK;
/// Virtual address of a device mapping of the first GiB past 2^39, outside of a 39-bit IPA space.
pub const BEYOND_IPA: u64 = 510 * BLOCK;
/// What [`BEYOND_IPA`] maps to.
pub const BEYOND_IPA_TARGET: u64 = 1 << 39;

/// Makes `table` the translation table: what is no memory gives a fault of the walk at the next instruction. Does not
/// return.
pub fn walk_from(table: u64) -> ! {
    // SAFETY: declared not to return; nothing of the program runs any more, unless `table` were a table, which it is not.
    unsafe {
        asm!("msr ttbr0_el1, {}", "isb", "tlbi vmalle1", "dsb nsh", "isb", "2: b 2b", in(reg) table, options(noreturn));
    }
}

/// Takes an exception with the vectors at `base`. Does not return.
pub fn vectors_at(base: u64) -> ! {
    // SAFETY: declared not to return; the vectors are where no code is.
    unsafe { asm!("msr vbar_el1, {}", "isb", "brk #0", "2: b 2b", in(reg) base, options(noreturn)) }
}

/// Sets VBAR_EL1 to any 64 bits, then executes an instruction that a hypervisor must answer with an exception. Does not return.
pub fn undefined_with_vectors_at(base: u64) -> ! {
    // SAFETY: declared not to return; the register is implementation-defined, and the vectors are where no code is.
    unsafe { asm!("msr vbar_el1, {}", "isb", "mrs x0, s3_0_c15_c0_0", "2: b 2b", in(reg) base, options(noreturn)) }
}

/// Takes an exception with the stack at `top`. Does not return.
pub fn stack_at(top: u64) -> ! {
    // SAFETY: declared not to return; what the vectors push goes to `top`.
    unsafe { asm!("mov sp, {}", "brk #0", "2: b 2b", in(reg) top, options(noreturn)) }
}

/// One table at level 1.
#[repr(C, align(4096))]
pub struct Table([u64; ENTRIES]);

// SAFETY: the one definition of this name; start.S takes its address.
#[unsafe(no_mangle)]
static IDENTITY_MAP: Table = Table(identity_map());

const fn identity_map() -> [u64; ENTRIES] {
    let mut table = [0; ENTRIES];
    let mut index = 0;
    while index < ENTRIES {
        let attributes = if index == 0 { DEVICE | NEVER_EXECUTE } else { NORMAL | INNER_SHAREABLE };
        table[index] = (index as u64 * BLOCK) | VALID_BLOCK | ACCESS_FLAG | attributes;
        index += 1;
    }
    table[511] = VALID_BLOCK | ACCESS_FLAG | NORMAL | INNER_SHAREABLE;
    table[510] = BEYOND_IPA_TARGET | VALID_BLOCK | ACCESS_FLAG | DEVICE | NEVER_EXECUTE;
    table
}
