//! The ticket lock, waiting in one place rather than inlined wherever something is locked.

use spin::mutex::{TicketMutex, TicketMutexGuard};

/// What only one CPU at a time may use. See hyp/README.md for the order of locks.
pub struct Mutex<T>(TicketMutex<T>);

/// The right to use what a [`Mutex`] holds, until it is dropped.
pub type MutexGuard<'a, T> = TicketMutexGuard<'a, T>;

impl<T> Mutex<T> {
    /// An open lock.
    pub const fn new(value: T) -> Self {
        Self(TicketMutex::new(value))
    }

    /// Waits for its turn.
    #[inline(never)]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }

    /// The lock, if nobody has it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock()
    }

    /// What it holds, past the lock: for a panic alone.
    pub fn as_mut_ptr(&self) -> *mut T {
        self.0.as_mut_ptr()
    }
}
