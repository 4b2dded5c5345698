//! Function ids and versions.

/// Major version: calls of another major version are other calls.
pub const VERSION_MAJOR: u32 = 1;
/// Minor version: functions, feature bits and counters may have been added at the end.
pub const VERSION_MINOR: u32 = 0;
/// What VERSION returns in x1: major version in bits 31:16, minor in 15:0.
pub const VERSION: u64 = (VERSION_MAJOR as u64) << 16 | VERSION_MINOR as u64;

/// 1586a374-83f1-4b28-b257-76d47e43b3d8, as the Call UID query returns it: W0 has bytes 0 to 3, byte 0 lowest.
pub const UID: [u32; 4] = [0x74a3_8615, 0x284b_f183, 0xd476_57b2, 0xd8b3_437e];

/// Bits of a function id that say whose it is: fast call (31), owner (29:24), must-be-zero (23:16).
pub const OWNER_MASK: u32 = 0xbfff_0000;
/// Those bits of a fast call of the vendor-specific hypervisor service, owner 6.
pub const OWNER_VENDOR_HYP: u32 = 0x8600_0000;

/// A function by its id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Function {
    /// Version of this interface. Call it first.
    Version = 0xc600_0000,
    /// Which functions there are, and limits.
    Features = 0xc600_0001,
    /// Creates a map: leases IOVA space for it and sets its tables aside.
    Create = 0xc600_0002,
    /// Loads segments into a map.
    Load = 0xc600_0003,
    /// Unloads a map; when it returns, no device reaches the pages through it. Unloading an unloaded map is no error.
    Unload = 0xc600_0004,
    /// Unloads a map if it is loaded, and gives its lease back.
    Destroy = 0xc600_0005,
    /// What a CPU does before or after a device's access: `bus_dmamap_sync`.
    Sync = 0xc600_0006,
    /// State of a map.
    Query = 0xc600_0007,
    /// Counters of the VM.
    Stats = 0xc600_0008,
    /// Puts a ring into place for a channel, or takes it away: IPA 0 with 0 entries' logarithm.
    RingSetup = 0xc600_0009,
    /// Works through a channel's ring.
    RingRun = 0xc600_000a,
    /// General query of DEN 0028: who answers here.
    CallUid = 0x8600_ff01,
    /// General query of DEN 0028: revision of the service.
    Revision = 0x8600_ff03,
}

impl Function {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Version,
        Self::Features,
        Self::Create,
        Self::Load,
        Self::Unload,
        Self::Destroy,
        Self::Sync,
        Self::Query,
        Self::Stats,
        Self::RingSetup,
        Self::RingRun,
        Self::CallUid,
        Self::Revision,
    ];

    /// The id that a guest puts into W0.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// The function with this id.
    pub fn from_id(id: u32) -> Option<Self> {
        // All but the queries of DEN 0028 have their numbers in order.
        let place = id.wrapping_sub(Self::Version.id()) as usize;
        let [.., call_uid, revision] = Self::ALL;
        let by_place = Self::ALL.get(place).copied();
        by_place.into_iter().chain([call_uid, revision]).find(|function| function.id() == id)
    }
}
