//! RAM sizes and physical places.

use bulkhead_core::{
    addr::{AddrRange, BLOCK_2M, PhysAddr},
    vplat::{IPA_BITS_MAX, RAM_BASE},
};

use super::super::{
    problem::Problem,
    schema::{Manifest, VmSection},
    size,
};

/// Bytes of RAM of one VM.
pub fn ram_bytes(section: &VmSection, problems: &mut Vec<Problem>) -> Option<u64> {
    let vm = section.name.clone();
    let Some(bytes) = size::parse(&section.memory) else {
        problems.push(Problem::MemorySyntax { vm, text: section.memory.clone() });
        return None;
    };
    let limit = (1 << IPA_BITS_MAX) - RAM_BASE.as_u64();
    if bytes == 0 || !bytes.is_multiple_of(BLOCK_2M) {
        problems.push(Problem::MemoryUnaligned { vm, bytes });
    } else if bytes > limit {
        problems.push(Problem::MemoryTooLarge { vm, bytes, limit });
    } else {
        return placed(section, bytes, problems).then_some(bytes);
    }
    None
}

fn placed(section: &VmSection, bytes: u64, problems: &mut Vec<Problem>) -> bool {
    let Some(address) = section.ram_at.map(PhysAddr::new) else {
        return true;
    };
    let vm = section.name.clone();
    if !address.is_aligned(BLOCK_2M) {
        problems.push(Problem::RamAtUnaligned { vm, address });
    } else if address.checked_add(bytes).is_none() {
        problems.push(Problem::RamAtOverflow { vm, address, bytes });
    } else {
        return true;
    }
    false
}

/// The physical range of a VM that has `ram_at`.
pub fn physical_range(section: &VmSection) -> Option<AddrRange<PhysAddr>> {
    AddrRange::new(PhysAddr::new(section.ram_at?), size::parse(&section.memory)?)
}

/// Finds VMs whose `ram_at` puts them over one another.
pub fn overlaps(manifest: &Manifest, problems: &mut Vec<Problem>) {
    for (place, section) in manifest.vms.iter().enumerate() {
        let Some(range) = physical_range(section) else { continue };
        for other in &manifest.vms[..place] {
            if let Some(other_range) = physical_range(other).filter(|other_range| range.overlaps(*other_range)) {
                let (vm, other) = (section.name.clone(), other.name.clone());
                problems.push(Problem::RamOverlap { vm, range, other, other_range });
            }
        }
    }
}
