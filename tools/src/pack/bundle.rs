//! Lays a bundle out: header, records, blobs on 4 KiB boundaries, each different blob once.

use anyhow::{Context, Result, ensure};
use bulkhead_core::{
    addr::PAGE_SIZE,
    bundle::{
        Bundle, DeviceRecord, Header, LOADS_MAX, LoadRecord, MAGIC, PLACE_ANYWHERE, VERSION, VmRecord, checksum,
        machine_flags, vm_flags,
    },
    vplat::{DEVICES_MAX, VCPUS_MAX},
};
use zerocopy::IntoBytes;

use crate::manifest::{Checked, CheckedVm, check::Blob, schema::Stage2Leaves};

/// Blobs start on pages.
const BLOB_ALIGNMENT: usize = 4096;
const _: () = assert!(BLOB_ALIGNMENT as u64 == PAGE_SIZE);

/// The bundle's bytes.
///
/// # Errors
/// When the hypervisor's own reader would refuse them.
pub fn compile(checked: &Checked) -> Result<Vec<u8>> {
    let records_end = size_of::<Header>() + checked.vms.len() * size_of::<VmRecord>();
    let mut blobs =
        Blobs { start: (records_end as u64).next_multiple_of(PAGE_SIZE), bytes: Vec::new(), known: Vec::new() };
    let mut body = Vec::new();
    for vm in &checked.vms {
        body.extend_from_slice(record(vm, &mut blobs)?.as_bytes());
    }
    let padding = blobs.start - (records_end as u64);
    body.resize(body.len() + usize::try_from(padding)?, 0);
    body.append(&mut blobs.bytes);
    let mut flags = 0;
    if checked.poweroff_when_all_stopped {
        flags |= machine_flags::POWEROFF_WHEN_ALL_STOPPED;
    }
    if checked.stage2 == Stage2Leaves::Pages {
        flags |= machine_flags::STAGE2_PAGES;
    }
    let header = Header {
        magic: MAGIC,
        version: VERSION,
        vm_count: u32::try_from(checked.vms.len())?,
        total_bytes: (size_of::<Header>() + body.len()) as u64,
        checksum: checksum(&body),
        flags,
        reserved: 0,
    };
    let bytes = [header.as_bytes(), &body].concat();
    Bundle::parse(&bytes).context("the bundle that was packed is one that the hypervisor refuses")?;
    Ok(bytes)
}

fn record(vm: &CheckedVm, blobs: &mut Blobs) -> Result<VmRecord> {
    let payload = &vm.payload;
    let mut loads = [LoadRecord::default(); LOADS_MAX];
    let parts = [Some(&payload.kernel), payload.initrd.as_ref(), Some(&payload.dtb)];
    let mut load_count = 0;
    for (load, blob) in loads.iter_mut().zip(parts.into_iter().flatten()) {
        *load = blobs.add(blob);
        load_count += 1;
    }
    ensure!(
        vm.cpus.len() <= VCPUS_MAX && vm.devices.len() <= DEVICES_MAX,
        "vm {}: more CPUs or devices than fit",
        vm.name
    );
    let mut cpus = [0; VCPUS_MAX];
    cpus[..vm.cpus.len()].copy_from_slice(&vm.cpus);
    let mut devices = [DeviceRecord::default(); DEVICES_MAX];
    devices[..vm.devices.len()].copy_from_slice(&vm.devices);
    Ok(VmRecord {
        name: vm.name.to_bytes(),
        cpus,
        cpu_count: u32::try_from(vm.cpus.len())?,
        flags: if vm.autostart { vm_flags::AUTOSTART } else { 0 },
        ram_bytes: vm.ram.size_bytes(),
        ram_phys: vm.ram_phys.map_or(PLACE_ANYWHERE, |address| address.as_u64()),
        entry_ipa: payload.kernel.ipa.as_u64(),
        dtb_ipa: payload.dtb.ipa.as_u64(),
        load_count,
        device_count: u32::try_from(vm.devices.len())?,
        loads,
        devices,
        dmamap: vm.dmamap,
        nested_flush: vm.nested_flush,
        reserved: 0,
    })
}

/// Blobs gathered so far; two VMs with one kernel share its bytes.
struct Blobs {
    start: u64,
    bytes: Vec<u8>,
    known: Vec<(u64, LoadRecord)>,
}

impl Blobs {
    fn add(&mut self, blob: &Blob) -> LoadRecord {
        let (hash, size_bytes, ipa) = (checksum(&blob.bytes), blob.bytes.len() as u64, blob.ipa.as_u64());
        let is_same = |(other, load): &&(u64, LoadRecord)| *other == hash && load.size_bytes == size_bytes;
        if let Some((_, load)) = self.known.iter().find(is_same) {
            return LoadRecord { ipa, ..*load };
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOB_ALIGNMENT), 0);
        let load = LoadRecord { offset: self.start + self.bytes.len() as u64, size_bytes, ipa };
        self.bytes.extend_from_slice(&blob.bytes);
        self.known.push((hash, load));
        load
    }
}

#[cfg(test)]
mod tests;
