//! Handles: what a guest knows of its maps.

/// A map of a VM: bits 63:40 place among the channel's maps; 39:32 channel; 31:0 generation, from 1.
///
/// A guest may put anything into one. It names a map only if that map's record has the same value, and a record's
/// generation changes when its map is destroyed: a handle of old names nothing, and no handle another VM's map.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct Handle(pub(super) u64);

/// Maps that a channel can have: fewer than a handle's places. What is 2^62 or more, as a stamp is, names none of them.
pub(super) const PLACES: usize = 1 << 22;
/// In a record's word: its map was destroyed. In a handle, it makes a place that no channel has.
pub(super) const GONE: u64 = 1 << 62;

impl Handle {
    pub(super) const fn new(channel: u8, place: u32, generation: u32) -> Self {
        Self((place as u64) << 40 | (channel as u64) << 32 | generation as u64)
    }

    /// A number from a guest.
    pub const fn from_u64(value: u64) -> Self {
        Self(value)
    }

    /// The number for a guest.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The channel that it names.
    pub const fn channel(self) -> u8 {
        self.0.to_le_bytes()[4]
    }

    /// The place among the channel's maps.
    pub const fn place(self) -> u32 {
        let [.., a, b, c] = self.0.to_le_bytes();
        u32::from_le_bytes([a, b, c, 0])
    }

    #[inline]
    pub(super) const fn index(self) -> usize {
        self.place() as usize
    }

    /// Which of the place's maps, one after the other.
    pub const fn generation(self) -> u32 {
        let [a, b, c, d, ..] = self.0.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    pub(super) const fn next(self) -> Self {
        let generation = match self.generation().wrapping_add(1) {
            0 => 1,
            generation => generation,
        };
        Self::new(self.channel(), self.place(), generation)
    }
}
