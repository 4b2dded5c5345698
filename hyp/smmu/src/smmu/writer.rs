//! The one writer of stream table entries (security rule 3, IHI 0070 3.21.3).

use bulkhead_core::{addr::PhysAddr, ids::StreamId};

use super::Smmu;
use crate::{
    command::Command,
    error::Error,
    platform::Platform,
    ste::{STE_BYTES, Ste},
};

impl<P: Platform> Smmu<P> {
    /// Replaces the entry of `stream` with `ste`, whatever it was.
    ///
    /// Invalid, forgotten by the SMMU; the body, forgotten again (the SMMU may have read parts of an invalid entry);
    /// then valid by one store of word 0, forgotten again (it may have cached that the entry is invalid). No moment
    /// shows a mixture. An error leaves the entry invalid or new in memory, and what the SMMU has cached unknown.
    pub(super) fn write_entry(&mut self, stream: StreamId, ste: &Ste) -> Result<(), Error> {
        let place = self.table.find_or_add(&mut self.platform, &self.features, stream)?;
        if let Some((descriptor, value)) = place.new_descriptor {
            self.store(descriptor, value);
            self.forget(stream, false)?;
            self.table.set_found(stream);
        }
        let [word0, body @ ..] = *ste.words();
        self.store(place.entry, Ste::INVALID_WORD);
        self.forget(stream, true)?;
        for (word, at) in body.into_iter().zip((8u64..).step_by(8)) {
            if let Some(at) = place.entry.checked_add(at) {
                self.platform.write_memory(at, word);
            }
        }
        self.publish(place.entry, STE_BYTES);
        self.forget(stream, true)?;
        self.store(place.entry, word0);
        self.forget(stream, true)
    }

    /// Makes the entry of `stream` invalid in memory and waits for nothing: for an SMMU that does not answer, should
    /// it look again.
    pub(super) fn invalidate_entry(&mut self, stream: StreamId) {
        if let Some(entry) = self.table.find(stream) {
            self.store(entry, Ste::INVALID_WORD);
            self.platform.barrier();
        }
    }

    /// One 64-bit store that the SMMU will see.
    fn store(&mut self, at: PhysAddr, value: u64) {
        self.platform.write_memory(at, value);
        self.publish(at, 8);
    }

    fn publish(&mut self, at: PhysAddr, bytes: u64) {
        if !self.features.is_coherent {
            self.platform.clean(at, bytes);
        }
    }

    fn forget(&mut self, stream: StreamId, is_leaf: bool) -> Result<(), Error> {
        self.cmdq.submit(&mut self.platform, &[Command::CfgiSte { stream, is_leaf }])
    }
}

#[cfg(test)]
mod tests;
