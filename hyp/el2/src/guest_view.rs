//! A guest's memory as EL2 reads and writes it during one call: through the CPU's window, a block at a time.

use core::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};

use bulkhead_core::addr::{BLOCK_2M, Ipa, PhysAddr};
use bulkhead_vdev::dmamap::GuestMemory;

use crate::{mmu::WindowTable, percpu::PerCpu, pointer, vm::Vm};

/// The memory of the VM that this CPU runs.
pub struct GuestView {
    cpu: &'static PerCpu,
    vm: &'static Vm,
    /// The block that the window is open on.
    open: Option<PhysAddr>,
}

impl GuestView {
    /// Takes the window of this CPU; `None` while something else on it holds it.
    #[inline(always)]
    pub fn new(cpu: &'static PerCpu, vm: &'static Vm) -> Option<Self> {
        let was_in_use = cpu.window_in_use.swap(true, Acquire);
        (!was_in_use).then_some(Self { cpu, vm, open: None })
    }

    #[inline(always)]
    fn close(&mut self) {
        if self.open.take().is_some() {
            self.cpu.windows.close(self.cpu.id);
        }
    }
}

impl GuestMemory for GuestView {
    fn words(&mut self, at: Ipa, count: usize) -> Option<&[AtomicU64]> {
        let bytes = u64::try_from(size_of::<AtomicU64>().checked_mul(count)?).ok()?;
        let start = self.vm.translate_range(at, bytes)?;
        let offset = start.as_u64() % BLOCK_2M;
        if !start.is_aligned(align_of::<AtomicU64>() as u64) || bytes > BLOCK_2M - offset {
            return None;
        }
        let block = start.align_down(BLOCK_2M);
        if self.open != Some(block) {
            // The old entry is gone before the new one is there.
            self.close();
            self.cpu.windows.open(self.cpu.id, block);
            self.open = Some(block);
        }
        let first = pointer::to::<AtomicU64>(WindowTable::address(self.cpu.id) + offset);
        // SAFETY: the window maps this aligned, initialised memory, and stays open while the words are borrowed. The guest's
        // other vCPUs may write them meanwhile: they are atomic.
        Some(unsafe { core::slice::from_raw_parts(first, count) })
    }
}

impl Drop for GuestView {
    #[inline(always)]
    fn drop(&mut self) {
        self.close();
        self.cpu.window_in_use.store(false, Release);
    }
}
