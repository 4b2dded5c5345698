//! What can be said of a map: for queries.

use bulkhead_core::addr::{Iova, PAGE_SIZE};

use super::Record;
use crate::flush::Batch;

/// A map as it is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    /// First address of its lease; of its last load where each load takes one.
    pub base: Iova,
    /// Pages that are loaded.
    pub pages: u64,
    /// It is loaded.
    pub is_loaded: bool,
    /// It was unloaded, and that is not flushed.
    pub is_unflushed: bool,
}

impl View {
    pub(super) fn of(record: &Record<'_>, base: u64, batch: &Batch) -> Self {
        let is_loaded = record.is_loaded();
        Self {
            base: Iova::new(base * PAGE_SIZE),
            pages: if is_loaded { record.pages().into() } else { 0 },
            is_loaded,
            is_unflushed: !is_loaded && !batch.is_settled(record.stamp()),
        }
    }
}
