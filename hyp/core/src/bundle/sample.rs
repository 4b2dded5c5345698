//! Bundles for tests.

use std::vec::Vec;

use zerocopy::IntoBytes;

use super::{
    DeviceRecord, DmamapRecord, Header, LoadRecord, MAGIC, PLACE_ANYWHERE, VERSION, VmRecord, checksum, vm_flags,
};
use crate::{name::Name, vplat::RAM_BASE};

/// Bytes of RAM of a record.
pub const RAM: u64 = 8 << 20;

/// A good record.
pub fn record(name: &str) -> VmRecord {
    let mut loads = [LoadRecord::default(); 4];
    loads[0] = LoadRecord { offset: 4096, size_bytes: 5, ipa: RAM_BASE.as_u64() };
    loads[1] = LoadRecord { offset: 8192, size_bytes: 7, ipa: RAM_BASE.as_u64() + 0x1000 };
    let mut devices = [DeviceRecord::default(); 8];
    devices[0].routing_id = 0x08;
    devices[1].routing_id = 0x10;
    VmRecord {
        name: Name::from_text(name).expect("a name").to_bytes(),
        cpus: [1, 2, 0, 0, 0, 0, 0, 0],
        cpu_count: 2,
        flags: vm_flags::AUTOSTART,
        ram_bytes: RAM,
        ram_phys: PLACE_ANYWHERE,
        entry_ipa: RAM_BASE.as_u64(),
        dtb_ipa: RAM_BASE.as_u64() + 0x1000,
        load_count: 2,
        device_count: 2,
        loads,
        devices,
        dmamap: DmamapRecord::default(),
        nested_flush: 0,
        reserved: 0,
    }
}

/// A bundle of these VMs.
pub fn pack(records: &[VmRecord]) -> Vec<u8> {
    let mut body = Vec::new();
    for record in records {
        body.extend_from_slice(record.as_bytes());
    }
    body.resize(8192 + 7 - size_of::<Header>(), 0xa5);
    seal(&body, u32::try_from(records.len()).expect("few"), 0)
}

/// A bundle of these bytes, its checksum right.
pub fn seal(body: &[u8], vm_count: u32, flags: u32) -> Vec<u8> {
    let header = Header {
        magic: MAGIC,
        version: VERSION,
        vm_count,
        total_bytes: (size_of::<Header>() + body.len()) as u64,
        checksum: checksum(body),
        flags,
        reserved: 0,
    };
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}
