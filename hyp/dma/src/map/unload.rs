//! Unload: leaves are cleared, and their pages gathered for the batch's flush.

use bulkhead_core::addr::{Iova, PAGE_SIZE};

use super::{Channel, Handle, HandleError, piece::clear, record::Kind};
use crate::{
    flush::Stamp,
    strategy::{leave, owner},
    tree::ZERO,
};

impl Channel<'_> {
    /// Takes everything out of a map. It is unflushed then, until the channel's batch is settled. A map that is not
    /// loaded stays as it is.
    pub fn unload(&mut self, handle: Handle) -> Result<(), HandleError> {
        let Some(record) = self.records.get_mut(handle.index()) else { return self.unload_run(handle) };
        let (mark, follows) = (record.mark, record.follows);
        if let Some(block) = record.block {
            if self.batch.is_last_block(follows) & (mark == handle.0) {
                block.store(ZERO);
                record.set_stamp(self.batch.extend_blocks(record.base));
                return Ok(());
            }
        } else if self.batch.is_next(follows) & (mark == handle.0) {
            match record.loaded {
                [one, two, three] => {
                    one.store(ZERO);
                    two.store(ZERO);
                    three.store(ZERO);
                    record.set_stamp(self.batch.extend(follows, 3));
                }
                [] => return self.unload_other(handle),
                several => {
                    clear(several);
                    record.set_stamp(self.batch.extend(follows, several.len() as u64));
                }
            }
            return Ok(());
        }
        self.unload_run(handle)
    }

    /// As the everyday way, where another run of the batch begins.
    #[inline(never)]
    fn unload_run(&mut self, handle: Handle) -> Result<(), HandleError> {
        if let Some(record) = self.records.get_mut(handle.index())
            && record.mark == handle.0
        {
            if let Some(block) = record.block {
                block.store(ZERO);
                record.set_stamp(self.batch.add_block(record.base));
                return Ok(());
            }
            if let [first, rest @ ..] = record.loaded {
                first.store(ZERO);
                rest.iter().for_each(|slot| slot.store(ZERO));
                record.set_stamp(self.batch.add_pages(record.first(), record.loaded.len() as u64));
                return Ok(());
            }
        }
        self.unload_other(handle)
    }

    /// What lies in several tables, and every error.
    #[cold]
    #[inline(never)]
    fn unload_other(&mut self, handle: Handle) -> Result<(), HandleError> {
        let record = self.find(handle)?;
        if !record.is_loaded() {
            return Ok(());
        }
        let (base, kind, pieces) = (Iova::new(self.base(record) * PAGE_SIZE), record.kind, record.pieces);
        let (used, pages) = (record.used(), record.pages());
        let mut stamp = Stamp::new(0);
        if kind == Kind::PerSegment {
            let mut at = pieces;
            while let Some(piece) = self.pieces.get(at) {
                leave(piece, owner(handle));
                let first = Iova::new(u64::from(piece.first) * PAGE_SIZE);
                stamp = self.batch.add(first, piece.slots.len() as u64);
                at = piece.next;
            }
        } else {
            if kind == Kind::Sampled {
                self.clear_sampled(pieces, used);
            } else {
                self.pieces.cursor(pieces).clear(used as usize);
            }
            stamp = self.batch.add(base, pages.into());
        }
        let record = self.find_mut(handle)?;
        record.set_stamp(stamp);
        if matches!(kind, Kind::PerLoad | Kind::PerSegment) {
            self.list(handle.place());
        }
        Ok(())
    }
}
