//! Fills the image's table of function names, which the register dump of a panic uses.
//!
//! The layout is described in `hyp/el2/src/symbols.rs`, which reads it.

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind, read::elf::ElfFile64};

/// Section that the hypervisor keeps free for the table.
const SECTION: &str = ".symbols";
/// Longest names first; where the table does not fit, names are cut shorter.
const NAME_LENGTHS: [usize; 4] = [96, 64, 40, 24];

/// Writes the names of `elf`'s functions into its flat image `flat`, whose first byte is address `base` of the ELF file.
///
/// # Errors
/// When the ELF file has no `.symbols` section inside the image, or the table does not fit with the shortest names.
pub fn fill(elf: &[u8], flat: &mut [u8]) -> Result<()> {
    let file = ElfFile64::<object::LittleEndian>::parse(elf).context("not an ELF file")?;
    let section = file.section_by_name(SECTION).context("the hypervisor has no .symbols section")?;
    let (start, size) = (usize::try_from(section.address())?, usize::try_from(section.size())?);
    let room = flat.get_mut(start..start + size).context(".symbols lies outside of the image")?;
    let mut functions: Vec<(u32, String)> = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text)
        .filter_map(|symbol| {
            let name = rustc_demangle::demangle(symbol.name().ok()?);
            Some((u32::try_from(symbol.address()).ok()?, format!("{name:#}")))
        })
        .collect();
    functions.sort();
    functions.dedup_by_key(|function| function.0);
    let table = NAME_LENGTHS.iter().map(|&length| table(&functions, length)).find(|table| table.len() <= size);
    let table =
        table.with_context(|| format!("{} functions do not fit in {size} bytes of .symbols", functions.len()))?;
    room[..table.len()].copy_from_slice(&table);
    Ok(())
}

fn table(functions: &[(u32, String)], name_length: usize) -> Vec<u8> {
    let mut pairs = Vec::new();
    let mut names = Vec::new();
    let names_at = 4 + 8 * functions.len();
    for (address, name) in functions {
        pairs.extend_from_slice(&address.to_le_bytes());
        let at = u32::try_from(names_at + names.len()).unwrap_or(u32::MAX);
        pairs.extend_from_slice(&at.to_le_bytes());
        let end = name.char_indices().map(|(at, _)| at).chain([name.len()]).take_while(|&at| at <= name_length).last();
        names.extend_from_slice(&name.as_bytes()[..end.unwrap_or(0)]);
        names.push(0);
    }
    let count = u32::try_from(functions.len()).unwrap_or(u32::MAX);
    [count.to_le_bytes().as_slice(), &pairs, &names].concat()
}

/// What a build that lost its names would miss: an empty table looks like one that was never filled.
///
/// # Errors
/// When the table of the image is empty.
pub fn check(elf: &[u8], flat: &[u8]) -> Result<()> {
    let file = ElfFile64::<object::LittleEndian>::parse(elf).context("not an ELF file")?;
    let section = file.section_by_name(SECTION).context("the hypervisor has no .symbols section")?;
    let start = usize::try_from(section.address())?;
    let count = flat.get(start..start + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
    ensure!(count > 0, "the image has no function names");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::table;

    /// Would miss: an offset that points before its name, a name that is not ended, one cut inside a character.
    #[test]
    fn a_table_leads_from_addresses_to_names() {
        let functions = [(0x10, "first".to_owned()), (0x20, "zw\u{f6}lf".to_owned())];
        let bytes = table(&functions, 3);
        assert_eq!(bytes[..4], 2u32.to_le_bytes());
        assert_eq!(bytes[4..8], 0x10u32.to_le_bytes());
        assert_eq!(bytes[8..12], 20u32.to_le_bytes());
        assert_eq!(&bytes[20..], b"fir\0zw\0");
    }
}
