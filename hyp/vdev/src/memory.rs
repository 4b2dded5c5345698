//! A guest's memory, word by word.

use core::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use bulkhead_core::addr::Ipa;

/// Bytes of a word.
pub const WORD_BYTES: usize = size_of::<u64>();

/// A word of a guest's memory. Another vCPU may write it at any time; each load is made once, and whole (an atomic access
/// is never split, doubled or made up for: LLVM's rules for `monotonic`).
pub trait Word {
    /// What it holds.
    fn get(&self) -> u64;
    /// What it holds; later loads see what the guest stored before it stored that.
    fn get_acquire(&self) -> u64;
    /// Stores.
    fn set(&self, value: u64);
    /// Stores after everything that was stored before.
    fn set_release(&self, value: u64);
}

impl Word for AtomicU64 {
    #[inline(always)]
    fn get(&self) -> u64 {
        self.load(Relaxed)
    }
    #[inline(always)]
    fn get_acquire(&self) -> u64 {
        self.load(Acquire)
    }
    #[inline(always)]
    fn set(&self, value: u64) {
        self.store(value, Relaxed);
    }
    #[inline(always)]
    fn set_release(&self, value: u64) {
        self.store(value, Release);
    }
}

/// A VM's memory as the hypervisor reaches it.
pub trait GuestMemory {
    /// `count` words from `at` on, a multiple of 8, within one block of 2 MiB. `None` if not all of it is the VM's own RAM.
    fn words(&mut self, at: Ipa, count: usize) -> Option<&[AtomicU64]>;
}
