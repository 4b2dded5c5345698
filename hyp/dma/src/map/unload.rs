//! Unload: leaves are cleared, and their pages gathered for the batch's flush.

use bulkhead_core::addr::{Iova, PAGE_SIZE};

use super::{Channel, Handle, HandleError, handle::LOADED, piece::clear, record::Kind};
use crate::{
    strategy::{leave, owner},
    tree::ZERO,
};

impl Channel<'_> {
    /// Takes everything out of a map. It is unflushed then, until the channel's batch is settled. A map that is not
    /// loaded stays as it is.
    pub fn unload(&mut self, handle: Handle) -> Result<(), HandleError> {
        if let Some(record) = self.records.get_mut(handle.index())
            && record.word == handle.0 | LOADED
            && self.batch.is_next(record.first)
        {
            let (first, slots) = (record.first, record.loaded);
            let pages = match slots {
                [one, two, three] => {
                    one.store(ZERO);
                    two.store(ZERO);
                    three.store(ZERO);
                    (record.word, record.stamp) = (handle.0, self.batch.extend(first, 3));
                    return Ok(());
                }
                [] => return self.unload_other(handle),
                [only] => {
                    only.store(ZERO);
                    u64::from(record.leaf_pages())
                }
                several => {
                    clear(several);
                    several.len() as u64
                }
            };
            (record.word, record.stamp) = (handle.0, self.batch.extend(first, pages));
            return Ok(());
        }
        self.unload_run(handle)
    }

    /// As the everyday way, where another run of the batch begins.
    #[inline(never)]
    fn unload_run(&mut self, handle: Handle) -> Result<(), HandleError> {
        if let Some(record) = self.records.get_mut(handle.index())
            && record.word == handle.0 | LOADED
            && !record.loaded.is_empty()
        {
            record.loaded.iter().for_each(|slot| slot.store(ZERO));
            record.word = handle.0;
            record.stamp = self.batch.add_pages(record.first, record.pages().into());
            return Ok(());
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
        let mut stamp = record.stamp;
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
        record.word &= !LOADED;
        record.stamp = stamp;
        if matches!(kind, Kind::PerLoad | Kind::PerSegment) {
            self.list(handle.place());
        }
        Ok(())
    }
}
