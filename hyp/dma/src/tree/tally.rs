//! What a test's thread does to entries of tables.

use core::cell::Cell;
use std::thread_local;

/// Accesses of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// 64-bit stores.
    pub stores: u64,
    /// 64-bit loads.
    pub loads: u64,
    /// Atomic read-modify-writes.
    pub exchanges: u64,
}

thread_local! {
    static TALLY: Cell<Tally> = const { Cell::new(Tally { stores: 0, loads: 0, exchanges: 0 }) };
}

/// Counts an access.
pub fn note(count: impl FnOnce(&mut Tally)) {
    TALLY.with(|cell| {
        let mut tally = cell.get();
        count(&mut tally);
        cell.set(tally);
    });
}

/// What was counted since the last time, by this thread.
#[cfg(not(feature = "model"))]
pub fn take() -> Tally {
    TALLY.take()
}
