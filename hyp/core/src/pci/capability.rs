//! Walks of the capability lists: bounded, whatever the lists hold.

use super::{
    ConfigSpace,
    registers::{CAPABILITIES, COMMAND, EXTENDED, STATUS_CAPABILITIES},
};
use crate::ids::PciFunction;

/// Capabilities that fit between the header and byte 256, 4 bytes each.
const CAPABILITIES_MAX: usize = 48;
/// Extended capabilities that fit between byte 256 and byte 4,096, 4 bytes each.
const EXTENDED_MAX: usize = 960;

/// Offset of the first capability with this ID.
pub fn find_capability(config: &impl ConfigSpace, function: PciFunction, id: u8) -> Option<u8> {
    find_capability_where(config, function, |_, found| found == id)
}

/// Offset of the first capability that `is_wanted`, by its offset and its ID.
pub fn find_capability_where(
    config: &impl ConfigSpace,
    function: PciFunction,
    is_wanted: impl Fn(u8, u8) -> bool,
) -> Option<u8> {
    let status = config.read16(function, COMMAND + 2);
    if status == u16::MAX || status & STATUS_CAPABILITIES == 0 {
        return None;
    }
    let mut offset = config.read8(function, CAPABILITIES) & !3;
    for _ in 0..CAPABILITIES_MAX {
        if offset < 0x40 {
            return None;
        }
        let [found, next, ..] = config.read32(function, u16::from(offset)).to_le_bytes();
        match found {
            _ if is_wanted(offset, found) => return Some(offset),
            0xff => return None,
            _ => offset = next & !3,
        }
    }
    None
}

/// Offset of the first extended capability with this ID; PCI Express functions alone have some.
pub fn find_extended_capability(config: &impl ConfigSpace, function: PciFunction, id: u16) -> Option<u16> {
    let mut offset = EXTENDED;
    for _ in 0..EXTENDED_MAX {
        let header = config.read32(function, offset);
        if header == 0 || header == u32::MAX {
            return None;
        }
        let [low, high, ..] = header.to_le_bytes();
        if u16::from_le_bytes([low, high]) == id {
            return Some(offset);
        }
        // The next offset is bits 31:20, a multiple of 4; an offset before the first one ends the list.
        offset = u16::try_from(header >> 20).unwrap_or(0) & !3;
        if offset < EXTENDED {
            return None;
        }
    }
    None
}
