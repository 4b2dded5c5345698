//! The header of an arm64 Image: what a kernel must start with.
//!
//! Linux, Documentation/arch/arm64/booting.rst section 4: little-endian, 64 bytes.

use thiserror::Error;
use zerocopy::{
    FromBytes, Immutable, KnownLayout, Unaligned,
    byteorder::little_endian::{U32, U64},
};

/// Bytes 56 to 59 of every Image.
pub const MAGIC: [u8; 4] = *b"ARM\x64";
/// An Image lies `text_offset` bytes past a boundary of this size.
pub const BASE_ALIGNMENT: u64 = 2 << 20;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    code: [U32; 2],
    text_offset: U64,
    image_size: U64,
    flags: U64,
    reserved: [U64; 3],
    magic: [u8; 4],
    pe_offset: U32,
}

/// A checked header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageHeader {
    /// Where the Image lies from a 2 MiB boundary, in bytes.
    pub text_offset: u64,
    /// Memory that the Image needs from its start, BSS included, in bytes.
    pub image_size: u64,
    /// Flags: bit 0 big-endian, bits 2:1 page size, bit 3 may lie anywhere.
    pub flags: u64,
}

/// Why bytes are no bootable arm64 Image.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ImageError {
    /// Shorter than a header.
    #[error("kernel of {0} bytes is too short for an arm64 Image: give the file arch/arm64/boot/Image")]
    Truncated(usize),
    /// Another magic number; a compressed kernel is the usual cause.
    #[error(
        "kernel has magic {0:#010x} at byte 56, not 0x644d5241: give an uncompressed arm64 Image (gunzip a vmlinuz)"
    )]
    BadMagic(u32),
    /// Built for big-endian data.
    #[error("kernel is big-endian (flags {0:#x}): give a little-endian one")]
    BigEndian(u64),
    /// An image size of zero: older than Linux 3.17, its needs are unknown.
    #[error("kernel declares an image size of 0: give one of Linux 3.17 or later")]
    UnknownSize,
    /// A text offset that is no multiple of 4 KiB or is 2 MiB or more.
    #[error("kernel has text_offset {0:#x}, not a multiple of 4096 below 2 MiB: the file is damaged")]
    BadTextOffset(u64),
}

impl ImageHeader {
    /// Reads and checks the header at the start of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let (raw, _) = Raw::read_from_prefix(bytes).map_err(|_| ImageError::Truncated(bytes.len()))?;
        if raw.magic != MAGIC {
            return Err(ImageError::BadMagic(u32::from_le_bytes(raw.magic)));
        }
        let (text_offset, image_size, flags) = (raw.text_offset.get(), raw.image_size.get(), raw.flags.get());
        if flags & 1 != 0 {
            return Err(ImageError::BigEndian(flags));
        }
        if image_size == 0 {
            return Err(ImageError::UnknownSize);
        }
        if text_offset >= BASE_ALIGNMENT || text_offset % crate::addr::PAGE_SIZE != 0 {
            return Err(ImageError::BadTextOffset(text_offset));
        }
        Ok(Self { text_offset, image_size, flags })
    }
}

#[cfg(test)]
mod tests {
    use super::{ImageError, ImageHeader};

    fn header() -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[16..24].copy_from_slice(&0x0123_0000_u64.to_le_bytes());
        bytes[24..32].copy_from_slice(&0xa_u64.to_le_bytes());
        bytes[56..60].copy_from_slice(b"ARM\x64");
        bytes
    }

    /// Misses nothing less than a field read at the wrong offset.
    #[test]
    fn reads_each_field_where_linux_puts_it() {
        let expected = ImageHeader { text_offset: 0, image_size: 0x0123_0000, flags: 0xa };
        assert_eq!(ImageHeader::parse(&header()), Ok(expected));
    }

    #[test]
    fn refuses_what_cannot_boot() {
        assert_eq!(ImageHeader::parse(&header()[..63]), Err(ImageError::Truncated(63)));
        let mut gzip = header();
        gzip[56] = 0;
        assert_eq!(ImageHeader::parse(&gzip), Err(ImageError::BadMagic(0x644d_5200)));
        let mut big = header();
        big[24] = 1;
        assert_eq!(ImageHeader::parse(&big), Err(ImageError::BigEndian(1)));
        let mut old = header();
        old[16..24].fill(0);
        assert_eq!(ImageHeader::parse(&old), Err(ImageError::UnknownSize));
        let mut offset = header();
        offset[10] = 0x20;
        assert_eq!(ImageHeader::parse(&offset), Err(ImageError::BadTextOffset(0x20_0000)));
    }
}
