//! The hypervisor uses no FP or SIMD register: they are the guests'.

use object::{Object, ObjectSection, ObjectSymbol, SectionKind};

/// Looks through the executable sections of `elf`.
///
/// # Errors
/// Where the first such instructions are.
pub fn check(elf: &[u8]) -> Result<(), String> {
    let file = object::File::parse(elf).map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    let mut seen = 0;
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let data = section.data().map_err(|error| error.to_string())?;
        for (word, address) in data.chunks_exact(4).zip((section.address()..).step_by(4)) {
            let instruction = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            seen += 1;
            if uses_simd(instruction) && !is_data(&file, address) {
                found.push(format!("{instruction:#010x} at {address:#x} in {}", symbol_at(&file, address)));
            }
        }
    }
    match (seen, found.as_slice()) {
        (0, _) => Err("the image has no instructions".to_owned()),
        (_, []) => Ok(()),
        (_, [first, ..]) => Err(format!("{} of them, the first {first}", found.len())),
    }
}

/// Whether an A64 instruction names an FP, SIMD, SVE or SME register.
///
/// Top-level encoding (DDI 0487 C4.1): bits 28:25 are x111 for FP and SIMD data processing, 0010 for SVE, 0000 with
/// bit 31 for SME, and x1x0 for loads and stores, whose bit 26 (V) tells vector registers from general ones.
fn uses_simd(instruction: u32) -> bool {
    let group = (instruction >> 25) & 0b1111;
    let is_load_or_store = group & 0b0101 == 0b0100;
    match group {
        0b0010 => true,
        0b0000 => instruction >> 31 == 1,
        _ => group & 0b0111 == 0b0111 || (is_load_or_store && instruction & (1 << 26) != 0),
    }
}

/// Whether the mapping symbol before `address` says data (AAELF64 5.2: `$d` against `$x`).
fn is_data(file: &object::File<'_>, address: u64) -> bool {
    let mapping = file.symbols().filter(|symbol| symbol.address() <= address);
    let mapping = mapping.filter_map(|symbol| {
        let name = symbol.name().ok()?;
        (name.starts_with("$d") || name.starts_with("$x")).then(|| (symbol.address(), name.starts_with("$d")))
    });
    mapping.max_by_key(|(at, is_data)| (*at, !*is_data)).is_some_and(|(_, is_data)| is_data)
}

fn symbol_at(file: &object::File<'_>, address: u64) -> String {
    let functions =
        file.symbols().filter(|symbol| symbol.address() <= address && symbol.kind() == object::SymbolKind::Text);
    let nearest = functions.max_by_key(|symbol| symbol.address());
    nearest.and_then(|symbol| symbol.name().ok().map(str::to_owned)).unwrap_or_else(|| "?".to_owned())
}

#[cfg(test)]
mod tests {
    use super::uses_simd;

    /// Would miss: a load of a vector register, the most common way for a compiler to use one.
    #[test]
    fn vector_instructions_are_told_from_general_ones() {
        let vector = [
            0x3dc0_0000, // ldr q0, [x0]
            0xad00_07e0, // stp q0, q1, [sp]
            0x1e60_2800, // fadd d0, d0, d0
            0x4e20_1c00, // and v0.16b, v0.16b, v0.16b
            0x9e66_0000, // fmov x0, d0
            0x0420_3820, // SVE
        ];
        let general = [
            0xf940_0000, // ldr x0, [x0]
            0xa9bf_7bfd, // stp x29, x30, [sp, #-16]!
            0x8b01_0000, // add x0, x0, x1
            0xd65f_03c0, // ret
            0xd503_201f, // nop
            0x9ac1_2000, // lsl x0, x0, x1
            0xc8df_fc00, // ldar x0, [x0]
            0x5800_0040, // ldr x0, literal
        ];
        assert!(vector.into_iter().all(uses_simd));
        for instruction in general {
            assert!(!uses_simd(instruction), "{instruction:#x}");
        }
    }
}
