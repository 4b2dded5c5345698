//! Why a device tree could not be read.

use core::fmt;

use thiserror::Error;

/// Why bytes are no device tree that can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[repr(u64)]
pub enum MachineError {
    /// Not the magic number of a flattened device tree.
    #[error("device tree starts with {0:#010x}, not 0xd00dfeed: start with the address of a DTB in x0")]
    BadMagic(u32),
    /// A format before version 16 or one that says it cannot be read as 17.
    #[error("device tree has version {0} (last compatible {1}): give one of version 17")]
    BadVersion(u32, u32),
    /// Larger than any that the boot protocol allows.
    #[error("device tree declares {0} bytes, at most 2 MiB are allowed: the DTB is damaged")]
    TooLarge(u32),
    /// Fewer bytes are present than are declared or needed.
    #[error("device tree is truncated: {present} bytes of {declared} are present")]
    Truncated {
        /// Bytes that are declared, or that a header needs.
        declared: u64,
        /// Bytes that are there.
        present: u64,
    },
    /// A header field that points outside or is not aligned.
    #[error("device tree header has {field} = {value:#x}: the DTB is damaged")]
    BadHeader {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: u32,
    },
    /// A structure that breaks the format.
    #[error("device tree is malformed at byte {offset:#x} of its structure ({what}): the DTB is damaged")]
    Malformed {
        /// Offset in the structure block.
        offset: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// More of a thing than there is room for.
    #[error("device tree has more than {limit} {what}: this hypervisor has no room for them")]
    TooMany {
        /// The thing.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// A property that is missing, of the wrong length or outside of its bus.
    #[error("device tree node {node}: {property} is missing or wrong")]
    BadProperty {
        /// The node.
        node: Label,
        /// The property.
        property: &'static str,
    },
    /// Two host bridges of one segment.
    #[error("two PCI host bridges have linux,pci-domain {0}: give each its own")]
    DuplicateSegment(u16),
}

/// A node's name, cut after 31 bytes, for messages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Label {
    bytes: [u8; 31],
    length: u8,
}

impl Label {
    pub(super) fn new(name: &str) -> Self {
        let mut bytes = [0; 31];
        let mut length = 0;
        for (slot, byte) in bytes.iter_mut().zip(name.bytes()) {
            *slot = if byte.is_ascii_graphic() { byte } else { b'?' };
            length += 1;
        }
        Self { bytes, length }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        f.write_str(core::str::from_utf8(name).unwrap_or("?"))
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
