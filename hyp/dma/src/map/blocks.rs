//! Maps of blocks of 2 MiB: one store for each, into the table at level 2.

use bulkhead_core::addr::{BLOCK_2M, Iova, PAGE_SIZE};

use super::{Channel, Direction, LoadError, Record, Segment, channel::Ram, piece::fill, record::Kind};

/// One segment of whole blocks, the everyday load of such a map.
#[inline]
pub(super) fn run_of_blocks(
    ram: &Ram,
    record: &Record<'_>,
    direction: Direction,
    segment: &mut Segment,
) -> Option<u32> {
    let offset = ram.offset(segment.ipa, segment.bytes)?;
    let is_whole = (offset | segment.bytes) & (BLOCK_2M - 1) == 0;
    if record.kind != Kind::Blocks || !is_whole {
        return None;
    }
    let blocks = segment.bytes / BLOCK_2M;
    let slots = record.slots.get(..usize::try_from(blocks).ok()?)?;
    segment.iova = Iova::new(record.first * PAGE_SIZE);
    fill(slots, ram.block[direction as usize].wrapping_add(offset), BLOCK_2M);
    u32::try_from(blocks).ok()
}

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
            let offset = self.ram.offset(segment.ipa, segment.bytes).ok_or(match segment.bytes {
                0 => LoadError::Empty(number),
                _ => LoadError::NotRam(number),
            })?;
            if !(offset | segment.bytes).is_multiple_of(BLOCK_2M) {
                return Err(LoadError::NotBlocks(number));
            }
            segment.iova = Iova::new(record.first * PAGE_SIZE + used as u64 * BLOCK_2M);
            used += usize::try_from(segment.bytes / BLOCK_2M).unwrap_or(usize::MAX);
            if used > slots.len() {
                return Err(LoadError::TooLong(number));
            }
        }
        let mut rest = slots;
        for segment in segments {
            let offset = segment.ipa.as_u64().wrapping_sub(self.ram.start);
            let blocks = usize::try_from(segment.bytes / BLOCK_2M).unwrap_or(0);
            let Some((here, others)) = rest.split_at_checked(blocks) else { break };
            fill(here, self.ram.block[direction as usize].wrapping_add(offset), BLOCK_2M);
            rest = others;
        }
        u32::try_from(used).map_err(|_| LoadError::TooLong(0))
    }
}
