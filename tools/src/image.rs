//! From an ELF file to the flat image that a boot loader takes.

use anyhow::{Context, Result, ensure};
use object::{
    elf::{FileHeader64, PT_LOAD},
    endian::LittleEndian,
    read::elf::{FileHeader, ProgramHeader},
};

/// Images larger than this are a linker script gone wrong.
const LIMIT_BYTES: u64 = 256 << 20;

/// The loadable segments of `elf` at their physical addresses, from the lowest one, without trailing zeros of `.bss`.
///
/// # Errors
/// When `elf` is no little-endian 64-bit ELF file, has nothing to load, or spreads over more than 256 MiB.
pub fn flatten(elf: &[u8]) -> Result<Vec<u8>> {
    let header = FileHeader64::<LittleEndian>::parse(elf).context("not an ELF file")?;
    let endian = header.endian().context("not a little-endian ELF file")?;
    let segments = header.program_headers(endian, elf).context("damaged program headers")?;
    let is_loaded = |segment: &&object::elf::ProgramHeader64<LittleEndian>| {
        segment.p_type(endian) == PT_LOAD && segment.p_filesz(endian) > 0
    };
    let base = segments.iter().filter(is_loaded).map(|segment| segment.p_paddr(endian)).min();
    let base = base.context("nothing to load in the ELF file")?;
    let mut flat = Vec::new();
    for segment in segments.iter().filter(is_loaded) {
        let offset = segment.p_paddr(endian) - base;
        let data = segment.data(endian, elf).ok().context("a segment lies outside of the ELF file")?;
        let end = offset + data.len() as u64;
        ensure!(end <= LIMIT_BYTES, "segments spread over {end:#x} bytes: check the linker script");
        let (start, end) = (usize::try_from(offset)?, usize::try_from(end)?);
        if flat.len() < end {
            flat.resize(end, 0);
        }
        flat[start..end].copy_from_slice(data);
    }
    Ok(flat)
}

#[cfg(test)]
mod tests {
    use super::flatten;

    /// A 64-bit little-endian ELF header and program headers of (type, physical address, bytes).
    fn elf(segments: &[(u32, u64, &[u8])]) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
        file[20] = 1;
        file[32..40].copy_from_slice(&64_u64.to_le_bytes());
        file[52..54].copy_from_slice(&64_u16.to_le_bytes());
        file[54..56].copy_from_slice(&56_u16.to_le_bytes());
        file[56..58].copy_from_slice(&u16::try_from(segments.len()).expect("few").to_le_bytes());
        let mut data_at = 64 + 56 * segments.len();
        for (kind, address, data) in segments {
            let mut header = [0; 56];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            header[8..16].copy_from_slice(&(data_at as u64).to_le_bytes());
            header[24..32].copy_from_slice(&address.to_le_bytes());
            header[32..40].copy_from_slice(&(data.len() as u64).to_le_bytes());
            header[40..48].copy_from_slice(&(data.len() as u64 + 99).to_le_bytes());
            file.extend_from_slice(&header);
            data_at += data.len();
        }
        for (_, _, data) in segments {
            file.extend_from_slice(data);
        }
        file
    }

    /// Would miss: segments glued together without the gap between them, or in file order.
    #[test]
    fn segments_lie_at_their_addresses() {
        let file = elf(&[(1, 0x1010, b"data"), (1, 0x1000, b"text"), (6, 0x9000, b"note")]);
        assert_eq!(flatten(&file).expect("a good file"), b"text\0\0\0\0\0\0\0\0\0\0\0\0data");
    }

    /// Would miss: a build that linked nothing, packed as an empty image.
    #[test]
    fn refuses_what_cannot_be_loaded() {
        assert!(flatten(b"ARM").is_err());
        assert!(flatten(&elf(&[(6, 0, b"note")])).is_err());
        let spread = flatten(&elf(&[(1, 0, b"a"), (1, 1 << 32, b"b")])).expect_err("4 GiB apart");
        assert!(spread.to_string().contains("linker script"), "{spread}");
    }
}
