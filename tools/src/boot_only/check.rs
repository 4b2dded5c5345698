//! What stays after boot refers to nothing that does not, nor, but by gates, to a virtio IOMMU's code: read from the linked image, instruction by instruction.

use std::ops::Range;

use object::{
    LittleEndian, Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind, elf::R_AARCH64_RELATIVE,
    read::elf::ElfFile64,
};

use super::{DATA, TEXT, VIOMMU_DATA, VIOMMU_TEXT, partition::GATES};

/// Addresses in code that does not stay that others may hold, since nobody jumps there by them: the image's first byte stands for
/// its place in memory, the end of boot-only code is where the next begins, and the entry of secondary CPUs lies in the
/// global offset table until firmware is told.
const MAY_BE_NAMED: [&str; 3] = ["__image_start", "__boot_text_end", "secondary_start"];
/// Bytes of a relocation in `.rela.dyn`: offset, type, addend.
const RELA_BYTES: usize = 24;

/// Looks at every instruction of the text that stays, and at every pointer in the data of `elf`.
///
/// # Errors
/// Which of them lead to boot-only code or to its vtables, or past the gates to a virtio IOMMU's; or that there is no such
/// code.
pub fn check(elf: &[u8]) -> Result<(), String> {
    let file = ElfFile64::<LittleEndian>::parse(elf).map_err(|error| error.to_string())?;
    let range = |name| file.section_by_name(name).map(|section| section.address()..section.address() + section.size());
    let text = range(TEXT).ok_or_else(|| format!("the image has no {TEXT}"))?;
    let data = range(DATA).unwrap_or(0..0);
    let viommu = range(VIOMMU_TEXT).ok_or_else(|| format!("the image has no {VIOMMU_TEXT}"))?;
    let viommu_data = range(VIOMMU_DATA).unwrap_or(0..0);
    let gates = file.symbols().filter(|symbol| {
        symbol.name().is_ok_and(|name| format!("{:#}", rustc_demangle::demangle(name)).starts_with(GATES))
    });
    let gates: Vec<_> = gates.map(|symbol| symbol.address()).collect();
    if !gates.iter().any(|gate| viommu.contains(gate)) {
        return Err(format!("{VIOMMU_TEXT} holds no gate"));
    }
    let mut image =
        Image { file: &file, text, data, viommu, viommu_data, gates, may_be_named: Vec::new(), found: Vec::new() };
    let symbols = file.symbols().filter(|symbol| symbol.name().is_ok_and(|name| MAY_BE_NAMED.contains(&name)));
    image.may_be_named.extend(symbols.map(|symbol| symbol.address()));
    let functions =
        file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && image.text.contains(&symbol.address()));
    // Its head alone: the image was not linked by these tools.
    if functions.count() < 10 {
        return Err(format!("{TEXT} holds nothing but the image's head"));
    }
    let seen = image.look_at_instructions()? + image.look_at_pointers()?;
    match (seen, image.found.as_slice()) {
        (0, _) => Err("the image has neither instructions nor pointers".to_owned()),
        (_, []) => Ok(()),
        (_, found) => {
            Err(format!("what stays after boot leads to boot-only code {} times: {}", found.len(), found.join("; ")))
        }
    }
}

struct Image<'a> {
    file: &'a ElfFile64<'a, LittleEndian>,
    text: Range<u64>,
    data: Range<u64>,
    viommu: Range<u64>,
    viommu_data: Range<u64>,
    gates: Vec<u64>,
    may_be_named: Vec<u64>,
    found: Vec<String>,
}

impl Image<'_> {
    fn look_at_instructions(&mut self) -> Result<usize, String> {
        let mut seen = 0;
        let code = self.file.sections().filter(|section| section.kind() == SectionKind::Text);
        for section in code.filter(|section| section.name() != Ok(TEXT)) {
            let bytes = section.data().map_err(|error| error.to_string())?;
            let words: Vec<_> = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
            let is_viommu = section.name() == Ok(VIOMMU_TEXT);
            for (index, at) in (0..words.len()).zip((section.address()..).step_by(4)) {
                seen += 1;
                let Some(target) = target(words[index], words.get(index + 1).copied(), at) else { continue };
                if self.is_boot_only(&target) || (!is_viommu && self.is_behind_gates(&target)) {
                    self.found.push(format!("{} to {}", self.name(at), self.name(target.start)));
                }
            }
        }
        Ok(seen)
    }

    fn look_at_pointers(&mut self) -> Result<usize, String> {
        let Some(section) = self.file.section_by_name(".rela.dyn") else { return Ok(0) };
        let bytes = section.data().map_err(|error| error.to_string())?;
        for entry in bytes.as_chunks::<RELA_BYTES>().0 {
            let word = |at: usize| entry.iter().skip(at).take(8).rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            let (at, kind, target) = (word(0), word(8), word(16));
            if kind != u64::from(R_AARCH64_RELATIVE) {
                return Err(format!("a relocation of type {kind} at {at:#x}"));
            }
            let is_boot = self.data.contains(&at);
            let is_viommu = is_boot || self.viommu_data.contains(&at);
            let target_byte = target..target + 1;
            if (!is_boot && self.is_boot_only(&target_byte)) || (!is_viommu && self.is_viommu(&target_byte)) {
                self.found.push(format!("the pointer at {at:#x} to {}", self.name(target)));
            }
        }
        Ok(bytes.len() / RELA_BYTES)
    }

    /// Whether an address of `target` lies in boot-only code or its constants.
    fn is_boot_only(&self, target: &Range<u64>) -> bool {
        self.is_in(target, &self.text) || meets(target, &self.data)
    }

    /// Whether it lies in a virtio IOMMU's.
    fn is_viommu(&self, target: &Range<u64>) -> bool {
        self.is_in(target, &self.viommu) || meets(target, &self.viommu_data)
    }

    /// Whether it lies in code whose addresses may not be named.
    fn is_in(&self, target: &Range<u64>, code: &Range<u64>) -> bool {
        meets(target, code) && !self.may_be_named.contains(&target.start)
    }

    /// Whether it lies there, and is no gate.
    fn is_behind_gates(&self, target: &Range<u64>) -> bool {
        self.is_viommu(target) && !self.gates.contains(&target.start)
    }

    fn name(&self, address: u64) -> String {
        let before = self.file.symbols().filter(|symbol| symbol.address() <= address);
        // Labels of assembly have no kind; `$x` and its like are no names.
        let named = before.filter(|symbol| symbol.name().is_ok_and(|name| !name.is_empty() && !name.starts_with('$')));
        let nearest = named.max_by_key(|symbol| symbol.address());
        let name = nearest.and_then(|symbol| Some((symbol.name().ok()?.to_owned(), address - symbol.address())));
        name.map_or_else(
            || format!("{address:#x}"),
            |(name, offset)| format!("{:#}+{offset:#x}", rustc_demangle::demangle(&name)),
        )
    }
}

fn meets(target: &Range<u64>, range: &Range<u64>) -> bool {
    target.start < range.end && range.start < target.end
}

/// Where a branch, ADR, ADRP, or a load of a literal leads (DDI 0487 C4.1); `None` for any other instruction. With ADRP,
/// the `next` instruction may tell the byte; otherwise it is any of the page.
fn target(instruction: u32, next: Option<u32>, at: u64) -> Option<Range<u64>> {
    let field = |low: u32, bits: u32| {
        let value = i64::from(instruction >> low & ((1 << bits) - 1));
        if value >> (bits - 1) == 1 { value - (1 << bits) } else { value }
    };
    let is = |mask: u32, value: u32| instruction & mask == value;
    let byte = |address: u64| Some(address..address + 1);
    let words = |count: i64| byte(at.wrapping_add_signed(count * 4));
    if is(0x7c00_0000, 0x1400_0000) {
        // B, BL
        return words(field(0, 26));
    }
    if is(0xff00_0000, 0x5400_0000) || is(0x7e00_0000, 0x3400_0000) || is(0x3b00_0000, 0x1800_0000) {
        // B.cond and BC.cond; CBZ and CBNZ; LDR (literal)
        return words(field(5, 19));
    }
    if is(0x7e00_0000, 0x3600_0000) {
        // TBZ, TBNZ
        return words(field(5, 14));
    }
    if !is(0x1f00_0000, 0x1000_0000) {
        return None;
    }
    let value = field(5, 19) * 4 + i64::from(instruction >> 29 & 3);
    if instruction >> 31 == 0 {
        return byte(at.wrapping_add_signed(value));
    }
    let page = (at & !0xfff).wrapping_add_signed(value << 12);
    // ADD (immediate) to the register that ADRP has written.
    match next.filter(|next| next & 0xffc0_0000 == 0x9100_0000 && next >> 5 & 31 == instruction & 31) {
        Some(add) => byte(page + u64::from(add >> 10 & 0xfff)),
        None => Some(page..page + 0x1000),
    }
}

#[cfg(test)]
mod tests {
    use super::target;

    /// Would miss: a way into boot-only code that is decoded with the wrong sign or scale, or not at all.
    #[test]
    fn every_way_that_code_names_an_address_is_read() {
        let at = 0x2_0010;
        for (instruction, expected) in [
            (0x9400_0002, 0x2_0018), // bl .+8
            (0x17ff_fffc, 0x2_0000), // b .-16
            (0x54ff_ff80, 0x2_0000), // b.eq .-16
            (0x34ff_ff85, 0x2_0000), // cbz w5, .-16
            (0xb500_0045, 0x2_0018), // cbnz x5, .+8
            (0x3707_ff85, 0x2_0000), // tbnz w5, #0, .-16
            (0xb600_0045, 0x2_0018), // tbz x5, #32, .+8
            (0x58ff_ff85, 0x2_0000), // ldr x5, .-16
            (0x10ff_ff85, 0x2_0000), // adr x5, .-16
            (0x7000_0005, 0x2_0013), // adr x5, .+3
        ] {
            assert_eq!(target(instruction, None, at), Some(expected..expected + 1), "{instruction:#x}");
        }
        let adrp = 0xf0ff_ffe5; // adrp x5, .-4096
        assert_eq!(target(adrp, Some(0x9100_40a0), at), Some(0x1_f010..0x1_f011), "add x0, x5, #16");
        assert_eq!(target(adrp, Some(0x9100_40c0), at), Some(0x1_f000..0x2_0000), "add x0, x6, #16");
        assert_eq!(target(0xd61f_00a0, None, at), None, "br x5");
    }
}
