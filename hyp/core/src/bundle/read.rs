//! Reads a bundle that may lie at any address: records are copied, blobs borrowed.

use zerocopy::FromBytes;

use super::{BundleError, Header, LoadRecord, MAGIC, VERSION, Vm, VmRecord, checksum, machine_flags};
use crate::{ids::VmId, name::Name, stage2::Leaves, vplat::VMS_MAX};

const HEADER_BYTES: usize = size_of::<Header>();
const RECORD_BYTES: usize = size_of::<VmRecord>();

/// A bundle whose every record was checked.
#[derive(Clone, Debug)]
pub struct Bundle<'a> {
    bytes: &'a [u8],
    flags: u32,
    vms: heapless::Vec<Vm, VMS_MAX>,
}

impl<'a> Bundle<'a> {
    /// Length in bytes that the bundle at the start of `bytes` declares for itself, its header included.
    ///
    /// Cheap: reads the header alone, 40 bytes, and checks magic and version.
    pub fn declared_bytes(bytes: &[u8]) -> Result<u64, BundleError> {
        Ok(read_header(bytes)?.total_bytes)
    }

    /// Checks the bundle at the start of `bytes`; what follows it (padding to pages) is ignored.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BundleError> {
        let header = read_header(bytes)?;
        let truncated = BundleError::Truncated {
            declared: header.total_bytes,
            present: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        };
        let total = usize::try_from(header.total_bytes).map_err(|_| truncated)?;
        let bytes = bytes.get(..total).ok_or(truncated)?;
        let body = bytes.get(HEADER_BYTES..).ok_or(truncated)?;
        let actual = checksum(body);
        if actual != header.checksum {
            return Err(BundleError::BadChecksum { expected: header.checksum, actual });
        }
        if header.flags & !machine_flags::ALL != 0 {
            return Err(BundleError::UnknownFlags(header.flags));
        }
        let count = usize::try_from(header.vm_count).unwrap_or(usize::MAX);
        if count == 0 || count > VMS_MAX {
            return Err(BundleError::BadVmCount(header.vm_count));
        }
        let mut bundle = Self { bytes, flags: header.flags, vms: heapless::Vec::new() };
        bundle.read_vms(body, count, header.total_bytes)?;
        Ok(bundle)
    }

    #[inline(never)]
    fn read_vms(&mut self, body: &[u8], count: usize, total: u64) -> Result<(), BundleError> {
        let records_end = u64::try_from(HEADER_BYTES + count * RECORD_BYTES).unwrap_or(u64::MAX);
        let mut rest = body;
        for place in 0..count {
            let (record, next) = VmRecord::read_from_prefix(rest)
                .map_err(|_| BundleError::Truncated { declared: records_end, present: total })?;
            rest = next;
            let place = u8::try_from(place).unwrap_or(u8::MAX);
            let name = Name::parse(record.name).ok_or(BundleError::BadName(place))?;
            if self.vms.iter().any(|vm| vm.full_name() == name) {
                return Err(BundleError::DuplicateName(name));
            }
            let vm = Vm::check(VmId(place), name, record, records_end, total)
                .map_err(|fault| BundleError::Vm { name, fault })?;
            self.vms.push(vm).map_err(|_| BundleError::BadVmCount(u32::from(place) + 1))?;
        }
        Ok(())
    }

    /// The VMs in the manifest's order.
    pub fn vms(&self) -> &[Vm] {
        &self.vms
    }

    /// The VM with this id, if the bundle has it.
    pub fn vm(&self, id: VmId) -> Option<&Vm> {
        self.vms.get(id.index())
    }

    /// Whether the machine is powered off when the last VM has stopped.
    pub const fn is_poweroff_when_all_stopped(&self) -> bool {
        self.flags & machine_flags::POWEROFF_WHEN_ALL_STOPPED != 0
    }

    /// What the VMs' RAM is mapped by, for their CPUs.
    pub const fn leaves(&self) -> Leaves {
        if self.flags & machine_flags::STAGE2_PAGES == 0 { Leaves::Blocks } else { Leaves::Pages }
    }

    /// The bytes of a load of one of this bundle's VMs; empty for a record from elsewhere.
    pub fn blob(&self, load: &LoadRecord) -> &'a [u8] {
        let range = || {
            let start = usize::try_from(load.offset).ok()?;
            let end = start.checked_add(usize::try_from(load.size_bytes).ok()?)?;
            self.bytes.get(start..end)
        };
        range().unwrap_or_default()
    }

    /// The whole bundle, header included.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

fn read_header(bytes: &[u8]) -> Result<Header, BundleError> {
    let present = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let (header, _) = Header::read_from_prefix(bytes)
        .map_err(|_| BundleError::Truncated { declared: HEADER_BYTES as u64, present })?;
    if header.magic != MAGIC {
        return Err(BundleError::BadMagic(u64::from_be_bytes(header.magic)));
    }
    if header.version != VERSION {
        return Err(BundleError::BadVersion(header.version));
    }
    Ok(header)
}
