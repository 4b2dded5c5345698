//! EL2's own memory: the frame pool and the tables that map it, behind one lock.
//!
//! Taken at boot, when a VM is created, and when a guest first maps a BAR; the last from frames that were set aside before.

use bulkhead_core::addr::{AddrRange, PAGE_SIZE, PhysAddr};

use crate::{
    frames::{FramePool, USES},
    lock::Mutex,
    mmu::{Access, MapError, Mmu, WindowTable},
};

/// The pool and EL2's tables.
pub struct Memory {
    /// The pool.
    pub pool: FramePool,
    /// The tables.
    pub mmu: Mmu,
}

static MEMORY: Mutex<Option<Memory>> = Mutex::new(None);

/// Hands the early, unlocked memory over: the MMU is on, exclusive accesses work.
pub fn adopt(memory: Memory) {
    *MEMORY.lock() = Some(memory);
}

fn with<R>(f: impl FnOnce(&mut Memory) -> R) -> Option<R> {
    MEMORY.lock().as_mut().map(f)
}

/// Takes `count` zeroed frames in a row, aligned to `alignment` bytes, counted under `owner`.
pub fn take(count: usize, alignment: u64, owner: usize) -> Option<PhysAddr> {
    let address = with(|memory| memory.pool.take(count, alignment, owner))??;
    zero(address, count);
    Some(address)
}

fn zero(address: PhysAddr, count: usize) {
    let start: *mut u8 = crate::pointer::to(address.as_u64());
    let bytes = usize::try_from(count as u64 * PAGE_SIZE).unwrap_or(0);
    // SAFETY: the frames were just taken from the pool, or are on their way there: mapped read-write, nobody else's.
    unsafe { start.write_bytes(0, bytes) };
}

/// Gives frames back.
pub fn give_back(address: PhysAddr, count: usize, owner: usize) {
    let _ = with(|memory| memory.pool.give_back(address, count, owner));
}

/// Maps a range of the machine at EL2 where it lies.
///
/// # Errors
/// The pool is exhausted.
pub fn map(range: AddrRange<PhysAddr>, access: Access) -> Result<(), MapError> {
    with(|memory| memory.mmu.map(range, access, &mut memory.pool)).unwrap_or(Err(MapError(range)))
}

/// Makes memory of the pool of the code in `range`, whole pages; how many frames.
///
/// # Safety
/// No CPU runs or will run any of it.
pub unsafe fn adopt_text(range: AddrRange<PhysAddr>) -> usize {
    let frames = usize::try_from(range.size_bytes() / PAGE_SIZE).unwrap_or(0);
    let is_data = with(|memory| memory.mmu.make_data(range)).unwrap_or(false);
    if !is_data {
        return 0;
    }
    zero(range.start(), frames);
    let _ = with(|memory| memory.pool.adopt(range.start(), frames));
    frames
}

/// Takes a stack with a guard page below it; its top address.
pub fn take_stack(size_bytes: u64) -> Option<u64> {
    let pages = usize::try_from(size_bytes / PAGE_SIZE).ok()?;
    let bottom = take(pages + 1, PAGE_SIZE, crate::frames::Use::Hypervisor as usize)?;
    if !with(|memory| memory.mmu.unmap_page(bottom))? {
        return None;
    }
    Some(bottom.as_u64() + PAGE_SIZE + size_bytes)
}

/// The table of windows onto guest memory.
pub fn window_table() -> Option<WindowTable> {
    with(|memory| memory.mmu.window_table())
}

/// What a secondary CPU loads into its registers.
pub fn registers() -> Option<crate::mmu::Registers> {
    with(|memory| memory.mmu.registers())
}

/// Frames in all, frames taken, and the most that each owner held.
pub fn usage() -> (usize, usize, [usize; USES]) {
    with(|memory| {
        let (total, taken) = memory.pool.totals();
        let mut peaks = [0; USES];
        for (owner, peak) in peaks.iter_mut().enumerate() {
            *peak = memory.pool.peak(owner);
        }
        (total, taken, peaks)
    })
    .unwrap_or((0, 0, [0; USES]))
}
