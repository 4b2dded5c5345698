//! Destroy, and what comes back after the flush: leases, tables, places.

use super::{Channel, Handle, HandleError, Space, handle::GONE, piece::NONE};
use crate::tree::TableSource;

impl<'t> Space<'t> {
    /// Unloads a map and takes it away: its handle is void. Its lease returns after its flush: at once when nothing of
    /// it waits for one, else in [`Self::reap`].
    pub fn destroy(&mut self, channel: &mut Channel<'t>, handle: Handle) -> Result<(), HandleError> {
        if channel.find(handle)?.is_loaded() {
            channel.unload(handle)?;
        }
        let Some(record) = channel.records.get_mut(handle.index()) else { return Ok(()) };
        record.word = handle.next().0 | GONE;
        let (stamp, is_listed) = (record.stamp(), record.is_listed);
        channel.counted.destroyed = channel.counted.destroyed.wrapping_add(1);
        channel.counted.live = channel.counted.live.wrapping_sub(1);
        if is_listed || !channel.batch.is_settled(stamp) {
            channel.list(handle.place());
        } else {
            self.let_go(channel, handle.place());
        }
        Ok(())
    }

    /// Gives back what the channel's settled flushes have freed. To be called after a SYNC was accepted by the batch,
    /// where [`Channel::has_retired`] or [`Self::has_retired_tables`] says so; the batch may have tables to flush then.
    pub fn reap(&mut self, channel: &mut Channel<'t>, source: &mut dyn TableSource<'t>) {
        while let Some(at) = channel.unlist() {
            self.let_go(channel, at);
        }
        let batch = &channel.batch;
        self.tree.reap(channel.number, |stamp| batch.is_settled(stamp), source);
    }

    /// Whether leaf tables wait for a flush.
    pub const fn has_retired_tables(&self) -> bool {
        self.tree.has_retired()
    }

    /// A map that holds no pages any more: its pieces go, and its place where it was destroyed.
    #[inline(always)]
    fn let_go(&mut self, channel: &mut Channel<'t>, at: u32) {
        let Some(record) = channel.records.get_mut(at as usize) else { return };
        let pieces = core::mem::replace(&mut record.pieces, NONE);
        let is_gone = record.is_gone();
        let owner = u32::from(channel.number) << 24 | at;
        self.detach(channel, pieces, owner);
        if is_gone {
            channel.vacate(at);
            self.live = self.live.wrapping_sub(1);
        }
    }
}
