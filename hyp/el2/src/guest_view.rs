//! A guest's memory as EL2 reads and writes it during one call: through the CPU's window, a block at a time.

use core::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};

use bulkhead_core::addr::{AddrRange, BLOCK_2M, Ipa};
use bulkhead_vdev::dmamap::GuestMemory;

use crate::{mmu::Window, percpu::PerCpu, pointer, vm::Vm};

/// The memory of the VM that this CPU runs.
pub struct GuestView {
    cpu: &'static PerCpu,
    vm: &'static Vm,
    open: Option<Window>,
}

impl GuestView {
    /// Takes the window of this CPU; `None` while something else on it holds it.
    pub fn new(cpu: &'static PerCpu, vm: &'static Vm) -> Option<Self> {
        let was_in_use = cpu.window_in_use.swap(true, Acquire);
        (!was_in_use).then_some(Self { cpu, vm, open: None })
    }
}

impl GuestMemory for GuestView {
    fn words(&mut self, at: Ipa, count: usize) -> Option<&[AtomicU64]> {
        let bytes = u64::try_from(size_of::<AtomicU64>().checked_mul(count)?).ok()?;
        let range = AddrRange::new(at, bytes)?;
        if !self.vm.ram.contains_range(range) {
            return None;
        }
        let start = self.vm.translate(at)?;
        let offset = start.as_u64() % BLOCK_2M;
        if !start.is_aligned(align_of::<AtomicU64>() as u64) || bytes > BLOCK_2M - offset {
            return None;
        }
        // The old window is gone before the new one is there: one entry serves both.
        self.open = None;
        let window = self.open.insert(Window::open(self.cpu.windows, self.cpu.id, start));
        let first = pointer::to::<AtomicU64>(window.address() + offset);
        // SAFETY: the window maps this aligned, initialised memory, and stays open while the words are borrowed. The guest's
        // other vCPUs may write them meanwhile: they are atomic.
        Some(unsafe { core::slice::from_raw_parts(first, count) })
    }
}

impl Drop for GuestView {
    fn drop(&mut self) {
        self.open = None;
        self.cpu.window_in_use.store(false, Release);
    }
}
