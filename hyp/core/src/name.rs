//! A VM's name: up to 16 bytes of `[a-z0-9-]`.

use core::fmt;

use crate::bundle::NAME_BYTES;

/// A name that was checked: ASCII letters, digits and hyphens, never empty. Aligned so that it is moved by words.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(align(8))]
pub struct Name {
    bytes: [u8; NAME_BYTES],
    length: u8,
}

impl Name {
    /// The name in `bytes`, padded with zeros; `None` when it is empty, has another character or a gap.
    pub fn parse(bytes: [u8; NAME_BYTES]) -> Option<Self> {
        let length = bytes.iter().position(|&byte| byte == 0).unwrap_or(NAME_BYTES);
        let (name, padding) = bytes.split_at(length);
        let is_letter = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if name.is_empty() || !name.iter().all(is_letter) || padding.iter().any(|&byte| byte != 0) {
            return None;
        }
        Some(Self { bytes, length: u8::try_from(length).ok()? })
    }

    /// The name of `text`; `None` when it is empty, too long or has a character outside `[a-z0-9-]`.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut bytes = [0; NAME_BYTES];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Self::parse(bytes)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        self.bytes.get(..usize::from(self.length)).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or("?")
    }

    /// The name as a record holds it: padded with zeros.
    pub const fn to_bytes(self) -> [u8; NAME_BYTES] {
        self.bytes
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
