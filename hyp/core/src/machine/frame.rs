//! Whether bytes are a well-formed flattened device tree, before any node is read.
//!
//! The `fdt` crate takes the end of its data for the end of a node, adds header fields unchecked, and searches
//! without a limit of depth. What passes here holds none of that: every token is whole, properties come before
//! children, nodes close, depth and size are bounded. Format: Devicetree Specification 0.4, chapter 5.

use super::error::MachineError;

/// Most nested nodes; the deepest of 2,700 trees in use has 11.
pub const DEPTH_MAX: usize = 16;
/// Most nodes; the largest of those trees has 222 KB and some 3,000.
const NODES_MAX: usize = 16_384;
/// Largest tree that the arm64 boot protocol allows, in bytes.
const TOTAL_MAX: u32 = 2 << 20;
const HEADER_BYTES: u32 = 40;
const MAGIC: u32 = 0xd00d_feed;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// Length in bytes of the tree that starts with `header`, from the first 8 bytes alone.
pub fn declared_bytes(header: &[u8]) -> Result<u32, MachineError> {
    let truncated = MachineError::Truncated { declared: 8, present: header.len() as u64 };
    let magic = word(header, 0).ok_or(truncated)?;
    if magic != MAGIC {
        return Err(MachineError::BadMagic(magic));
    }
    let total = word(header, 4).ok_or(truncated)?;
    match total {
        0..HEADER_BYTES => Err(MachineError::BadHeader { field: "totalsize", value: total }),
        HEADER_BYTES..=TOTAL_MAX => Ok(total),
        _ => Err(MachineError::TooLarge(total)),
    }
}

/// A tree that was checked.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    /// The whole tree, without what follows it.
    pub bytes: &'a [u8],
    /// The memory reservation block, up to the end of the tree.
    pub reservations: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Checks header and structure of the tree at the start of `dtb`.
    pub fn check(dtb: &'a [u8]) -> Result<Self, MachineError> {
        let total = declared_bytes(dtb)?;
        let bytes = part(dtb, 0, total)
            .ok_or(MachineError::Truncated { declared: u64::from(total), present: dtb.len() as u64 })?;
        let field = |offset| word(bytes, offset).unwrap_or(0);
        let (version, last_compatible) = (field(20), field(24));
        if version < 16 || last_compatible > 17 {
            return Err(MachineError::BadVersion(version, last_compatible));
        }
        let structure_offset = field(8);
        let bad = |field, value| MachineError::BadHeader { field, value };
        let structure = part(bytes, structure_offset, field(36)).ok_or(bad("size_dt_struct", field(36)))?;
        if structure_offset % 4 != 0 {
            return Err(bad("off_dt_struct", structure_offset));
        }
        let strings = part(bytes, field(12), field(32)).ok_or(bad("size_dt_strings", field(32)))?;
        let reservations = usize::try_from(field(16)).ok().and_then(|offset| bytes.get(offset..));
        let reservations = reservations.ok_or(bad("off_mem_rsvmap", field(16)))?;
        check_structure(structure, strings)?;
        Ok(Self { bytes, reservations })
    }
}

fn check_structure(structure: &[u8], strings: &[u8]) -> Result<(), MachineError> {
    let (mut offset, mut depth, mut nodes) = (0, 0, 0);
    // Whether the last thing closed was a node: a property must not follow.
    let mut is_after_child = false;
    loop {
        let at = offset;
        let bad = |what| MachineError::Malformed { offset: at, what };
        let token = word(structure, offset).ok_or(bad("end of data"))?;
        offset += 4;
        match token {
            NOP => {}
            BEGIN_NODE => {
                if depth == DEPTH_MAX || (depth == 0 && at != 0) {
                    return Err(bad("nodes nested too deep, or a second root"));
                }
                let name = text(structure, offset).ok_or(bad("name of a node"))?;
                offset = (offset + name.len() + 1).next_multiple_of(4);
                depth += 1;
                nodes += 1;
                if nodes > NODES_MAX {
                    return Err(MachineError::TooMany { what: "nodes", limit: NODES_MAX });
                }
                is_after_child = false;
            }
            PROP => {
                if depth == 0 || is_after_child {
                    return Err(bad("property outside of a node or after a child"));
                }
                let length = word(structure, offset).ok_or(bad("end of data"))?;
                let name = word(structure, offset + 4).ok_or(bad("end of data"))?;
                let name = usize::try_from(name).ok().and_then(|name| text(strings, name));
                name.ok_or(bad("name of a property"))?;
                let start = u32::try_from(offset + 8).map_err(|_| bad("length of a property"))?;
                part(structure, start, length).ok_or(bad("length of a property"))?;
                let length = usize::try_from(length).map_err(|_| bad("length of a property"))?;
                offset = (offset + 8 + length).next_multiple_of(4);
            }
            END_NODE if depth > 0 => {
                depth -= 1;
                is_after_child = true;
            }
            END if depth == 0 && is_after_child && offset == structure.len() => return Ok(()),
            _ => return Err(bad("unexpected token")),
        }
    }
}

#[inline(never)]
fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

fn part(bytes: &[u8], offset: u32, length: u32) -> Option<&[u8]> {
    let end = offset.checked_add(length)?;
    bytes.get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)
}

fn text(bytes: &[u8], offset: usize) -> Option<&str> {
    core::ffi::CStr::from_bytes_until_nul(bytes.get(offset..)?).ok()?.to_str().ok()
}
