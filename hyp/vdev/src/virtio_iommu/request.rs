//! Requests and statuses (virtio 1.3, 5.13.6), as they lie in memory.

/// How a request ended (VIRTIO_IOMMU_S_*).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Status {
    /// All good.
    Ok = 0,
    /// Invalid parameters.
    Inval = 4,
    /// Out-of-range parameters.
    Range = 5,
    /// Entry not found.
    Noent = 6,
    /// Bad address.
    Fault = 7,
    /// Insufficient resources.
    Nomem = 8,
}

/// Bytes of the tail: the status, and three of zero.
pub const TAIL_BYTES: usize = 4;

impl Status {
    /// The tail of a request.
    pub const fn tail(self) -> [u8; TAIL_BYTES] {
        [self as u8, 0, 0, 0]
    }
}

/// VIRTIO_IOMMU_ATTACH_F_BYPASS.
pub const ATTACH_BYPASS: u32 = 1;
/// VIRTIO_IOMMU_MAP_F_READ.
pub const MAP_READ: u32 = 1 << 0;
/// VIRTIO_IOMMU_MAP_F_WRITE.
pub const MAP_WRITE: u32 = 1 << 1;

/// A request, decoded, nothing of it checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Attach an endpoint to a domain.
    Attach {
        /// The domain.
        domain: u32,
        /// The endpoint.
        endpoint: u32,
        /// VIRTIO_IOMMU_ATTACH_F_*.
        flags: u32,
        /// To be zero.
        reserved: u32,
    },
    /// Detach an endpoint from a domain.
    Detach {
        /// The domain.
        domain: u32,
        /// The endpoint.
        endpoint: u32,
    },
    /// Map a range.
    Map {
        /// The domain.
        domain: u32,
        /// First address.
        first: u64,
        /// Last address.
        last: u64,
        /// Guest-physical address of the first.
        ipa: u64,
        /// VIRTIO_IOMMU_MAP_F_*.
        flags: u32,
    },
    /// Unmap all mappings in a range.
    Unmap {
        /// The domain.
        domain: u32,
        /// First address.
        first: u64,
        /// Last address.
        last: u64,
    },
    /// Tell the properties of an endpoint.
    Probe {
        /// The endpoint.
        endpoint: u32,
    },
}

const ATTACH: u8 = 1;
const DETACH: u8 = 2;
const MAP: u8 = 3;
const UNMAP: u8 = 4;
const PROBE: u8 = 5;

impl Request {
    /// The request in `raw`; `None` for an unknown one, and for one that is too short for its type.
    pub fn decode(raw: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_le_bytes(*raw.get(at..)?.first_chunk()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(*raw.get(at..)?.first_chunk()?));
        // Bytes 1 to 3 are ignored.
        let (kind, bytes) = match *raw.first()? {
            kind @ (ATTACH | DETACH) => (kind, 20),
            MAP => (MAP, 36),
            UNMAP => (UNMAP, 28),
            PROBE => (PROBE, 72),
            _ => return None,
        };
        if raw.len() < bytes {
            return None;
        }
        let first_field = u32_at(4)?;
        Some(match kind {
            ATTACH => {
                Self::Attach { domain: first_field, endpoint: u32_at(8)?, flags: u32_at(12)?, reserved: u32_at(16)? }
            }
            DETACH => Self::Detach { domain: first_field, endpoint: u32_at(8)? },
            MAP => Self::Map {
                domain: first_field,
                first: u64_at(8)?,
                last: u64_at(16)?,
                ipa: u64_at(24)?,
                flags: u32_at(32)?,
            },
            UNMAP => Self::Unmap { domain: first_field, first: u64_at(8)?, last: u64_at(16)? },
            _ => Self::Probe { endpoint: first_field },
        })
    }
}
