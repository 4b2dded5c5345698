//! Maps of blocks of 2 MiB: one store for each, into the table at level 2.

use bulkhead_core::addr::{BLOCK_2M, Iova};

use super::{Channel, Direction, LoadError, Record, Segment};

/// Pages of a block.
pub(super) const BLOCK_PAGES: u32 = 512;

impl Channel<'_> {
    /// Loads segments of whole blocks. No block is ever split: a map has blocks from its creation to its end.
    pub(super) fn load_blocks(
        &self,
        record: &Record<'_>,
        direction: Direction,
        segments: &mut [Segment],
    ) -> Result<u32, LoadError> {
        let slots = self.pieces.get(record.pieces).map_or(&[][..], |piece| piece.slots);
        let mut used = 0_usize;
        for (number, segment) in (0..).zip(&mut *segments) {
            let offset = self.ram.offset(segment).ok_or(LoadError::NotRam(number))?;
            if !(offset | segment.bytes()).is_multiple_of(BLOCK_2M) {
                return Err(LoadError::NotBlocks(number));
            }
            segment.iova = Iova::new(record.base + used as u64 * BLOCK_2M);
            used += usize::try_from(segment.bytes() / BLOCK_2M).unwrap_or(usize::MAX);
            if used > slots.len() {
                return Err(LoadError::TooLong(number));
            }
        }
        let mut rest = slots.iter();
        for segment in segments {
            let offset = segment.ipa.as_u64().wrapping_sub(self.ram.start);
            let mut descriptor = self.ram.block[direction as usize].wrapping_add(offset);
            for slot in rest.by_ref().take(usize::try_from(segment.bytes() / BLOCK_2M).unwrap_or(0)) {
                slot.store(descriptor);
                descriptor = descriptor.wrapping_add(BLOCK_2M);
            }
        }
        u32::try_from(used).map_err(|_| LoadError::TooLong(0))
    }
}
