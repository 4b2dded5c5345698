//! The capability list: which entries pass, and what of them.

use heapless::Vec;

/// Most capabilities that are shown.
pub const CAPABILITIES_MAX: usize = 16;
/// Where the list may lie (PCI 3.0 6.7).
const FIRST: u16 = 0x40;
const END: u16 = 0x100;
/// Entries that fit: a list that is longer is a loop.
const ENTRIES_MAX: usize = 48;

/// PCI Express.
pub(super) const EXPRESS: u8 = 0x10;
/// Vendor-specific.
pub(super) const VENDOR: u8 = 0x09;

const VIRTIO_VENDOR: u32 = 0x1af4;
/// virtio's window from configuration space into BARs: reads have effects, so it is hidden.
const VIRTIO_PCI_CFG: u32 = 5;

/// One capability, as it lies in the physical configuration space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capability {
    /// Capability id.
    pub id: u8,
    /// Where it starts: a multiple of 4, 0x40 to 0xfc.
    pub offset: u8,
    /// Its bytes, the two of id and next pointer included.
    pub length_bytes: u8,
}

impl Capability {
    /// Whether the 32-bit register at `register` is (partly) inside, and how far in.
    pub(super) fn position(self, register: u16) -> Option<u8> {
        let position = u8::try_from(register).ok()?.checked_sub(self.offset)?;
        (position < self.length_bytes).then_some(position)
    }

    /// The physical register `raw`, `position` bytes into the capability, as the guest sees it. `next` is the offset of
    /// the next one that is shown.
    pub(super) fn show(self, position: u8, raw: u32, next: u8) -> u32 {
        let kept = u32::from(self.length_bytes.saturating_sub(position));
        let mut value = if kept < 4 { raw & ((1 << (8 * kept)) - 1) } else { raw };
        if position == 0 {
            value = (value & 0xffff_0000) | u32::from(next) << 8 | u32::from(self.id);
        }
        if self.id == EXPRESS { express(position, value) } else { value }
    }
}

/// The bridge has no root ports: an endpoint right on its bus is an integrated one (device type 9), which has no link.
fn express(position: u8, value: u32) -> u32 {
    match position {
        0 if value >> 20 & 0xe == 0 => (value & !(0xf << 20)) | 9 << 20,
        // Link Capabilities, Control and Status; slot; root; the second set of link and slot registers.
        0x0c..=0x20 | 0x2c..=0x38 => 0,
        _ => value,
    }
}

/// Walks the list of a physical function and keeps what the allow-list has.
pub(super) fn probe(read: impl Fn(u16) -> u32) -> Vec<Capability, CAPABILITIES_MAX> {
    let mut found = Vec::new();
    // Status bit 4: there is a list.
    if read(0x04) >> 20 & 1 == 0 {
        return found;
    }
    let mut offset = (read(0x34) & 0xfc) as u8;
    for _ in 0..ENTRIES_MAX {
        if u16::from(offset) < FIRST {
            break;
        }
        let header = read(u16::from(offset));
        let is_loop = found.iter().any(|known: &Capability| known.offset == offset);
        if header == u32::MAX || is_loop {
            break;
        }
        let id = (header & 0xff) as u8;
        if let Some(wanted) = length_bytes(id, header, read(0) & 0xffff) {
            let room = (END - u16::from(offset)).min(0xff) as u8;
            let capability = Capability { id, offset, length_bytes: wanted.min(room) };
            if found.push(capability).is_err() {
                break;
            }
        }
        offset = (header >> 8 & 0xfc) as u8;
    }
    found
}

/// Bytes to show of a capability; `None` to hide it.
fn length_bytes(id: u8, header: u32, vendor: u32) -> Option<u8> {
    match id {
        // Version 1 ends with the registers of a device without root port or slot; version 2 has all.
        EXPRESS if header >> 16 & 0xf < 2 => Some(0x14),
        EXPRESS => Some(0x3c),
        VENDOR if vendor == VIRTIO_VENDOR && header >> 24 != VIRTIO_PCI_CFG => Some((header >> 16 & 0xff).max(4) as u8),
        _ => None,
    }
}
