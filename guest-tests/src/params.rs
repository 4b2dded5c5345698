//! What the device tree says: the command line, the memory, the number of CPUs.

use core::slice;

use bulkhead_core::vplat::RAM_BASE;
use fdt::Fdt;
use spin::Once;

use crate::boot;

const ARGUMENTS_MAX: usize = 256;

struct Params {
    arguments: [u8; ARGUMENTS_MAX],
    arguments_len: usize,
    ram_bytes: u64,
    cpus: usize,
    device_tree_end: u64,
}

static PARAMS: Once<Params> = Once::new();

/// Reads the device tree at `address`; called once, at start; it is not needed afterwards.
pub(crate) fn read(address: u64) {
    PARAMS.call_once(|| parse(address).unwrap_or_else(|| panic!("no usable device tree at {address:#x}")));
}

fn parse(address: u64) -> Option<Params> {
    if address == 0 || !address.is_multiple_of(8) {
        return None;
    }
    let header = core::ptr::with_exposed_provenance::<u32>(usize::try_from(address).ok()?);
    // SAFETY: x0 of the arm64 boot protocol names a device tree in RAM, 8-byte aligned, and nothing writes it now.
    let magic = unsafe { header.read() };
    // SAFETY: as above; the header has ten words.
    let total_at = unsafe { header.add(1) };
    // SAFETY: as above.
    let total_bytes = unsafe { total_at.read() };
    if u32::from_be(magic) != 0xd00d_feed {
        return None;
    }
    // SAFETY: as above; the header tells the length of the tree.
    let blob = unsafe { slice::from_raw_parts(header.cast::<u8>(), u32::from_be(total_bytes) as usize) };
    let tree = Fdt::new_unaligned_fallible(blob).ok()?;
    let root = tree.root().ok()?;

    let device_tree_end = address + u64::from(u32::from_be(total_bytes));
    let mut params = Params { arguments: [0; ARGUMENTS_MAX], arguments_len: 0, ram_bytes: 0, cpus: 0, device_tree_end };
    let arguments = root.chosen().ok().and_then(|chosen| chosen.bootargs().ok().flatten()).unwrap_or("");
    for (slot, byte) in params.arguments.iter_mut().zip(arguments.bytes()) {
        *slot = byte;
        params.arguments_len += 1;
    }
    let region = root.memory().ok()?.reg().ok()?.iter::<u64, u64>().next()?.ok()?;
    params.ram_bytes = region.len;
    for cpu in root.cpus().ok()?.iter().ok()? {
        cpu.ok()?;
        params.cpus += 1;
    }
    Some(params)
}

fn params() -> &'static Params {
    PARAMS.get().expect("start-up reads the device tree")
}

/// The command line.
pub fn arguments() -> &'static str {
    let params = params();
    core::str::from_utf8(&params.arguments[..params.arguments_len]).unwrap_or("")
}

/// The value of `key=value` on the command line.
pub fn argument(key: &str) -> Option<&'static str> {
    arguments().split_ascii_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// A number on the command line, decimal or `0x`; `default` where there is none.
pub fn number(key: &str, default: u64) -> u64 {
    let Some(text) = argument(key) else {
        return default;
    };
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("{key}={text} is not a number"))
}

/// CPUs of this VM.
pub fn cpus() -> usize {
    params().cpus
}

/// One past the last byte of RAM.
pub fn ram_end() -> u64 {
    RAM_BASE.as_u64() + params().ram_bytes
}

/// Memory that nothing was loaded into and no Rust object lies in: from the first 2 MiB boundary past the program and
/// the device tree to the end of RAM.
pub fn scratch() -> u64 {
    let end = boot::image_end();
    let tree_end = params().device_tree_end;
    // A tree at the end of RAM is left alone only by those who keep away from there.
    let end = if tree_end < end + (8 << 20) { end.max(tree_end) } else { end };
    end.next_multiple_of(2 << 20)
}
