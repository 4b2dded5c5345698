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
        let Some(record) = self.records.get_mut(handle.index()) else { return Err(HandleError::new(handle)) };
        let (mark, follows, stamp) = (record.mark, record.follows, self.batch.stamp());
        if self.batch.is_last_block(follows) & (mark == handle.0) {
            // Both are read before the store, and so at once.
            let (block, base) = (record.block, record.base);
            block.store(ZERO);
            self.batch.extend_blocks(base);
            record.set_stamp(stamp);
            return Ok(());
        }
        if self.batch.is_next(follows) & (mark == handle.0) {
            if let [one, two, three] = record.loaded {
                one.store(ZERO);
                two.store(ZERO);
                three.store(ZERO);
                self.batch.extend(follows, 3);
                record.set_stamp(stamp);
                return Ok(());
            }
            if let Some(sixteen) = record.loaded.as_array::<16>() {
                sixteen.iter().for_each(|slot| slot.store(ZERO));
                self.batch.extend(follows, 16);
                record.set_stamp(stamp);
                return Ok(());
            }
        }
        // Not as the last call: its frame would be made for the everyday ways, too.
        self.unload_run(handle, stamp).map(|_| ())
    }

    /// As the everyday way, where another run of the batch begins. Tells the stamp.
    #[inline(never)]
    fn unload_run(&mut self, handle: Handle, stamp: Stamp) -> Result<Stamp, HandleError> {
        if let Some(record) = self.records.get_mut(handle.index())
            && record.mark == handle.0
        {
            if record.is_block() {
                record.block.store(ZERO);
                self.batch.add_block(record.base);
                record.set_stamp(stamp);
                return Ok(stamp);
            }
            if !record.loaded.is_empty() {
                clear(record.loaded);
                self.batch.add_pages(record.first(), record.loaded.len() as u64);
                record.set_stamp(stamp);
                return Ok(stamp);
            }
        }
        self.unload_other(handle).map(|()| stamp)
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
        let stamp = self.batch.stamp();
        if kind == Kind::PerSegment {
            let mut at = pieces;
            while let Some(piece) = self.pieces.get(at) {
                leave(piece, owner(handle));
                let first = Iova::new(u64::from(piece.first) * PAGE_SIZE);
                self.batch.add(first, piece.slots.len() as u64);
                at = piece.next;
            }
        } else {
            if kind == Kind::Sampled {
                self.clear_sampled(pieces, used);
            } else {
                self.pieces.cursor(pieces).clear(used as usize);
            }
            self.batch.add(base, pages.into());
        }
        let record = self.find_mut(handle)?;
        record.set_stamp(stamp);
        if matches!(kind, Kind::PerLoad | Kind::PerSegment) {
            self.list(handle.place());
        }
        Ok(())
    }
}
