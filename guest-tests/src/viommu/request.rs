//! Requests and statuses (virtio 1.3, 5.13.6), without their tails.

/// VIRTIO_IOMMU_S_OK.
pub const OK: Option<u8> = Some(0);
/// VIRTIO_IOMMU_S_INVAL.
pub const INVAL: Option<u8> = Some(4);
/// VIRTIO_IOMMU_S_RANGE.
pub const RANGE: Option<u8> = Some(5);
/// VIRTIO_IOMMU_S_NOENT.
pub const NOENT: Option<u8> = Some(6);
/// VIRTIO_IOMMU_S_FAULT.
pub const FAULT: Option<u8> = Some(7);
/// VIRTIO_IOMMU_S_NOMEM.
pub const NOMEM: Option<u8> = Some(8);

/// VIRTIO_IOMMU_ATTACH_F_BYPASS.
pub const BYPASS: u32 = 1;
/// VIRTIO_IOMMU_MAP_F_READ.
pub const READ: u32 = 1;
/// VIRTIO_IOMMU_MAP_F_WRITE.
pub const WRITE: u32 = 2;

fn low(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

fn high(value: u64) -> u32 {
    (value >> 32) as u32
}

/// ATTACH.
pub fn attach(domain: u32, endpoint: u32, flags: u32) -> [u32; 5] {
    [1, domain, endpoint, flags, 0]
}

/// DETACH.
pub fn detach(domain: u32, endpoint: u32) -> [u32; 5] {
    [2, domain, endpoint, 0, 0]
}

/// MAP of the addresses `first` to `last` to those from `ipa` on.
pub fn map(domain: u32, (first, last): (u64, u64), ipa: u64, flags: u32) -> [u32; 9] {
    [3, domain, low(first), high(first), low(last), high(last), low(ipa), high(ipa), flags]
}

/// UNMAP.
pub fn unmap(domain: u32, (first, last): (u64, u64)) -> [u32; 7] {
    [4, domain, low(first), high(first), low(last), high(last), 0]
}

/// PROBE.
pub fn probe(endpoint: u32) -> [u32; 18] {
    let mut request = [0; 18];
    (request[0], request[1]) = (5, endpoint);
    request
}
