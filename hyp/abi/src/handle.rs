//! Handles of maps: opaque to the guest, a place and a generation to the hypervisor.

/// A map of a VM. Never 0.
///
/// Bits 63:40 place among the channel's maps; 39:32 channel; 31:0 generation, from 1. A guest keeps it as it is.
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
        Some(Self((place as u64) << 40 | (channel as u64) << 32 | generation as u64))
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
        self.0.to_le_bytes()[4]
    }

    /// The place among the channel's maps.
    pub const fn place(self) -> u32 {
        let [.., low, middle, high] = self.0.to_le_bytes();
        u32::from_le_bytes([low, middle, high, 0])
    }

    /// Which of the place's maps, one after the other, it is.
    pub const fn generation(self) -> u32 {
        let [a, b, c, d, ..] = self.0.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}
