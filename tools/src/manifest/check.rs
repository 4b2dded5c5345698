//! Checks a manifest by itself: what comes out can be packed.

mod devices;
mod dmamap;
mod memory;
mod nested;
mod payload;

use bulkhead_core::{
    addr::{AddrRange, Ipa, PhysAddr},
    bundle::{DeviceRecord, DmamapRecord},
    name::Name,
    vplat::{RAM_BASE, VCPUS_MAX, VMS_MAX},
};

use crate::guest::dtb::Seed;

use super::{
    problem::Problem,
    schema::{MachineSection, Manifest, Stage2Leaves, VmSection},
};
pub use devices::assigned;
pub use memory::{physical_range, ram_bytes};
pub use payload::{Blob, Payload};

/// Linux keeps this much of its command line (COMMAND_LINE_SIZE on arm64, less the final zero).
const CMDLINE_MAX: usize = 2047;

/// A manifest without problems, its files read.
#[derive(Debug)]
pub struct Checked {
    /// Power the machine off when the last VM has stopped.
    pub poweroff_when_all_stopped: bool,
    /// What maps the VMs' RAM for their CPUs.
    pub stage2: Stage2Leaves,
    /// The VMs, in order.
    pub vms: Vec<CheckedVm>,
}

/// A VM without problems.
#[derive(Debug)]
pub struct CheckedVm {
    /// Its name.
    pub name: Name,
    /// Physical CPU of each vCPU.
    pub cpus: Vec<u8>,
    /// RAM as the guest sees it.
    pub ram: AddrRange<Ipa>,
    /// Where the RAM lies, when the manifest says so.
    pub ram_phys: Option<PhysAddr>,
    /// Start it at boot.
    pub autostart: bool,
    /// Kernel, initrd and device tree, each at its place.
    pub payload: Payload,
    /// Passed-through devices.
    pub devices: Vec<DeviceRecord>,
    /// Its DMA maps; all zero without.
    pub dmamap: DmamapRecord,
    /// A place in `NestedFlush::ALL`; 0 without a virtual SMMU.
    pub nested_flush: u32,
}

/// What a manifest needs from outside of itself.
pub trait Files {
    /// The bytes of the file that the manifest calls `path`.
    ///
    /// # Errors
    /// What the system says.
    fn read(&self, path: &str) -> std::io::Result<Vec<u8>>;

    /// Random bytes for the VM of this name.
    ///
    /// # Errors
    /// What the system says.
    fn seed(&self, vm: &str) -> std::io::Result<Seed>;
}

/// Checks all of `manifest`.
///
/// # Errors
/// Every problem, in the order of the manifest.
pub fn check(manifest: &Manifest, files: &dyn Files) -> Result<Checked, Vec<Problem>> {
    let mut problems = Vec::new();
    match manifest.vms.len() {
        0 => problems.push(Problem::NoVms),
        count if count > VMS_MAX => problems.push(Problem::TooManyVms { count }),
        _ => {}
    }
    let vms: Vec<Option<CheckedVm>> =
        manifest.vms.iter().map(|section| check_vm(section, files, &mut problems)).collect();
    names(manifest, &mut problems);
    cpus(manifest, &mut problems);
    memory::overlaps(manifest, &mut problems);
    devices::owners(manifest, &mut problems);
    match vms.into_iter().collect() {
        Some(vms) if problems.is_empty() => {
            let MachineSection { poweroff_when_all_stopped, stage2 } = manifest.machine;
            Ok(Checked { poweroff_when_all_stopped, stage2, vms })
        }
        _ => Err(problems),
    }
}

/// What can be seen of one VM alone.
fn check_vm(section: &VmSection, files: &dyn Files, problems: &mut Vec<Problem>) -> Option<CheckedVm> {
    let name = Name::from_text(&section.name);
    if name.is_none() {
        problems.push(Problem::Name { name: section.name.clone() });
    }
    if !(1..=VCPUS_MAX).contains(&section.cpus.len()) {
        problems.push(Problem::CpuCount { vm: section.name.clone(), count: section.cpus.len() });
    }
    let is_printable = section.cmdline.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if section.cmdline.len() > CMDLINE_MAX || !is_printable {
        let bytes = section.cmdline.len();
        problems.push(Problem::Cmdline { vm: section.name.clone(), bytes, limit: CMDLINE_MAX });
    }
    let ram_bytes = memory::ram_bytes(section, problems);
    let ram = ram_bytes.and_then(|bytes| AddrRange::new(RAM_BASE, bytes));
    let devices = devices::records(section, problems);
    let dmamap = dmamap::record(section, problems);
    let nested_flush = nested::flush(section, problems);
    let payload = payload::load(section, ram, files, problems);
    let cpus: Option<Vec<u8>> = section.cpus.iter().map(|&cpu| u8::try_from(cpu).ok()).collect();
    Some(CheckedVm {
        name: name?,
        cpus: cpus?,
        ram: ram?,
        ram_phys: section.ram_at.map(PhysAddr::new),
        autostart: section.autostart,
        payload: payload?,
        devices: devices?,
        dmamap: dmamap?,
        nested_flush: nested_flush?,
    })
}

fn names(manifest: &Manifest, problems: &mut Vec<Problem>) {
    for (place, section) in manifest.vms.iter().enumerate() {
        if manifest.vms[..place].iter().any(|earlier| earlier.name == section.name) {
            problems.push(Problem::NameTwice { name: section.name.clone() });
        }
    }
}

fn cpus(manifest: &Manifest, problems: &mut Vec<Problem>) {
    let mut owners: Vec<(u32, &str)> = Vec::new();
    for section in &manifest.vms {
        for &cpu in &section.cpus {
            let vm = section.name.clone();
            if let Some((_, owner)) = owners.iter().find(|(taken, _)| *taken == cpu) {
                problems.push(Problem::CpuTwice { vm, cpu, owner: (*owner).to_owned() });
            } else if cpu > u32::from(u8::MAX) {
                problems.push(Problem::CpuAbsent { vm, cpu, last: u32::from(u8::MAX) });
            }
            owners.push((cpu, &section.name));
        }
    }
}

#[cfg(test)]
pub mod tests;
