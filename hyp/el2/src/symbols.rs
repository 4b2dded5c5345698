//! Names of functions for the register dump, filled into the image by the tools after linking.
//!
//! Layout, little-endian: `count: u32`, then `count` pairs of `offset: u32` (from the image's start, ascending) and
//! `name: u32` (from the start of the section), then the names, each ended by a zero byte. All zero: no names.

/// Bytes that the image keeps free for the table.
pub const TABLE_BYTES: usize = 64 << 10;

#[used]
// SAFETY: linker/hyp.ld gives the section a place of its own among the constants.
#[unsafe(link_section = ".symbols")]
static TABLE: [u8; TABLE_BYTES] = [0; TABLE_BYTES];

/// The table as it is in memory. The compiler believes that it is all zero; the tools have written it since.
fn table() -> &'static [u8; TABLE_BYTES] {
    core::hint::black_box(&TABLE)
}

fn word(offset: usize) -> Option<u32> {
    let bytes = table().get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn pair(index: u32) -> Option<(u32, u32)> {
    let at = 4 + usize::try_from(index).ok()? * 8;
    Some((word(at)?, word(at + 4)?))
}

/// The function that holds the byte `offset` of the image, and how far into it: `None` without a table.
pub fn find(offset: u64) -> Option<(&'static str, u64)> {
    let offset = u32::try_from(offset).ok()?;
    let (mut low, mut high) = (0, word(0)?);
    while low < high {
        let middle = low + (high - low) / 2;
        if pair(middle)?.0 <= offset {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let (start, name) = pair(low.checked_sub(1)?)?;
    let name = table().get(usize::try_from(name).ok()?..)?;
    let end = name.iter().position(|&byte| byte == 0)?;
    Some((core::str::from_utf8(name.get(..end)?).ok()?, u64::from(offset - start)))
}
