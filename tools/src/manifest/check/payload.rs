//! Kernel, initrd and device tree: read, checked and given their places in the guest's RAM.

use bulkhead_core::{
    addr::{AddrRange, BLOCK_2M, Ipa},
    image::{ImageError, ImageHeader},
};

use super::{
    super::{problem::Problem, schema::VmSection},
    Files,
};
use crate::guest::dtb::{GuestTree, Iommu, Seed};

/// Bytes with a place in the guest's RAM.
#[derive(Debug)]
pub struct Blob {
    /// Where they go.
    pub ipa: Ipa,
    /// What goes there.
    pub bytes: Vec<u8>,
}

/// What is loaded into a VM. Kernel first, from the RAM's start; initrd and device tree follow, each on 2 MiB.
#[derive(Debug)]
pub struct Payload {
    /// The kernel; its first byte is the entry.
    pub kernel: Blob,
    /// The initrd, if any.
    pub initrd: Option<Blob>,
    /// The device tree.
    pub dtb: Blob,
}

/// Reads what `section` names and places it in `ram`.
pub fn load(
    section: &VmSection,
    ram: Option<AddrRange<Ipa>>,
    files: &dyn Files,
    problems: &mut Vec<Problem>,
) -> Option<Payload> {
    let kernel = read_kernel(section, files, problems);
    let initrd = read_initrd(section, files, problems);
    let (ram, (kernel, header), initrd) = (ram?, kernel?, initrd?);
    let rng_seed = match files.seed(&section.name) {
        Ok(seed) => seed,
        Err(error) => {
            problems.push(Problem::NoSeed { vm: section.name.clone(), error: error.to_string() });
            return None;
        }
    };
    let payload = place(section, ram, kernel, header, initrd, rng_seed)?;
    let end = payload.dtb.ipa.checked_add(payload.dtb.bytes.len() as u64)?;
    if end > ram.end() {
        let needed = end.checked_sub(ram.start())?.div_ceil(1 << 20);
        let vm = section.name.clone();
        problems.push(Problem::DoesNotFit { vm, needed, present: ram.size_bytes() >> 20 });
        return None;
    }
    Some(payload)
}

fn place(
    section: &VmSection,
    ram: AddrRange<Ipa>,
    kernel: Vec<u8>,
    header: ImageHeader,
    initrd: Vec<u8>,
    rng_seed: Seed,
) -> Option<Payload> {
    let kernel_ipa = ram.start().checked_add(header.text_offset)?;
    let kernel_bytes = header.image_size.max(kernel.len() as u64);
    let initrd_ipa = kernel_ipa.checked_add(kernel_bytes)?.align_up(BLOCK_2M)?;
    let initrd_end = initrd_ipa.checked_add(initrd.len() as u64)?;
    let tree = GuestTree {
        vcpus: section.cpus.len(),
        ram_bytes: ram.size_bytes(),
        cmdline: &section.cmdline,
        initrd: (!initrd.is_empty()).then_some((initrd_ipa, initrd_end)),
        rng_seed,
        has_pci: !section.devices.is_empty(),
        iommu: iommu(section),
    };
    Some(Payload {
        kernel: Blob { ipa: kernel_ipa, bytes: kernel },
        initrd: (!initrd.is_empty()).then_some(Blob { ipa: initrd_ipa, bytes: initrd }),
        dtb: Blob { ipa: initrd_end.align_up(BLOCK_2M)?, bytes: tree.to_dtb() },
    })
}

/// The IOMMU that the guest drives.
fn iommu(section: &VmSection) -> Option<Iommu> {
    match section.devices.first()?.dma.as_str() {
        "nested" => Some(Iommu::Smmu),
        "virtio-iommu" => Some(Iommu::Virtio),
        _ => None,
    }
}

fn read_kernel(section: &VmSection, files: &dyn Files, problems: &mut Vec<Problem>) -> Option<(Vec<u8>, ImageHeader)> {
    let (vm, path) = (section.name.clone(), section.kernel.clone());
    let bytes = match files.read(&path) {
        Ok(bytes) => bytes,
        Err(error) => {
            problems.push(Problem::KernelUnreadable { vm, path, error: error.to_string() });
            return None;
        }
    };
    match ImageHeader::parse(&bytes) {
        Ok(header) => Some((bytes, header)),
        Err(error) => {
            problems.push(Problem::KernelNotImage { vm, path, found: describe(&bytes, error) });
            None
        }
    }
}

/// No initrd is an empty one.
fn read_initrd(section: &VmSection, files: &dyn Files, problems: &mut Vec<Problem>) -> Option<Vec<u8>> {
    let Some(path) = section.initrd.clone() else {
        return Some(Vec::new());
    };
    match files.read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            let vm = section.name.clone();
            problems.push(Problem::InitrdUnreadable { vm, path, error: error.to_string() });
            None
        }
    }
}

fn describe(bytes: &[u8], error: ImageError) -> String {
    let known = [
        (b"\x7fELF".as_slice(), "an ELF file"),
        (b"\x1f\x8b", "gzip data"),
        (b"\xfd7zXZ", "xz data"),
        (b"\x28\xb5\x2f\xfd", "zstd data"),
    ];
    match known.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        Some((_, name)) => (*name).to_owned(),
        None => error.to_string(),
    }
}
