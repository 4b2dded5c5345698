//! Handles of maps: opaque to the guest, a place and a generation to the hypervisor.

/// A map of a VM. Never 0.
///
/// Bits 63:32 generation, from 1; 31:24 channel; 23:0 place in the VM's table of maps. A guest keeps it as it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct Handle(u64);

impl Handle {
    /// Places that a handle can name.
    pub const PLACES: u32 = 1 << 24;

    /// Puts a handle together; `None` for a generation of 0 or a place that does not fit.
    pub const fn new(channel: u8, place: u32, generation: u32) -> Option<Self> {
        if generation == 0 || place >= Self::PLACES {
            return None;
        }
        Some(Self((generation as u64) << 32 | (channel as u64) << 24 | place as u64))
    }

    /// A register's value taken for a handle.
    pub const fn from_register(value: u64) -> Self {
        Self(value)
    }

    /// What a register carries.
    pub const fn register(self) -> u64 {
        self.0
    }

    /// The channel that the map belongs to.
    pub const fn channel(self) -> u8 {
        self.0.to_le_bytes()[3]
    }

    /// The place in the VM's table of maps.
    pub const fn place(self) -> u32 {
        let [low, middle, high, ..] = self.0.to_le_bytes();
        u32::from_le_bytes([low, middle, high, 0])
    }

    /// Which of the place's maps, one after the other, it is.
    pub const fn generation(self) -> u32 {
        let [_, _, _, _, a, b, c, d] = self.0.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}
