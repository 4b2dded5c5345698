//! Arrays of a VM's own, carved out of the frame pool when the VM is made, for good.

use core::marker::PhantomData;

use bulkhead_core::addr::{PAGE_SIZE, PhysAddr};

use crate::{memory, pointer};

/// Room for `count` values of `T`.
pub struct Array<T> {
    start: PhysAddr,
    count: usize,
    values: PhantomData<fn() -> T>,
}

impl<T: 'static> Array<T> {
    /// Room for `count` values, counted under `owner`; `None` when the pool has no such run of frames.
    pub fn new(count: usize, owner: usize) -> Option<Self> {
        const { assert!(align_of::<T>() <= 4096) };
        let start = match frames_for::<T>(count) {
            0 => PhysAddr::new(PAGE_SIZE),
            frames => memory::take(frames, PAGE_SIZE, owner)?,
        };
        Some(Self { start, count, values: PhantomData })
    }

    /// Fills it with what `make` makes.
    ///
    /// # Safety
    /// Nothing that an earlier call gave is used any more.
    pub unsafe fn fill(&mut self, make: impl Fn() -> T) -> &'static mut [T] {
        let start: *mut T = pointer::to(self.start.as_u64());
        for place in 0..self.count {
            // SAFETY: the frames were taken for these values alone, and `place` is inside of them.
            unsafe { start.wrapping_add(place).write(make()) };
        }
        // SAFETY: the values were written above, the frames are never given back, and by the caller's promise nobody
        // else uses them.
        unsafe { core::slice::from_raw_parts_mut(start, self.count) }
    }
}

/// Frames that `count` values of `T` take.
pub const fn frames_for<T>(count: usize) -> usize {
    (size_of::<T>() * count).div_ceil(4096)
}
