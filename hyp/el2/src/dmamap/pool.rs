//! A VM's table pages: taken from the frame pool when the VM is made, as many as its quota, so that no call allocates.

use bulkhead_core::{
    addr::{PAGE_SIZE, PhysAddr},
    ids::VmId,
};
use bulkhead_dma::tree::{Entry, Table, TableSource};

use crate::{arena::Array, frames, memory, pointer};

/// Pages that are in no tree, the last one given back first.
pub struct TablePool {
    pages: &'static mut [PhysAddr],
    free: usize,
}

impl TablePool {
    /// A pool of `count` pages of zeros; `None` when the frame pool has no more.
    pub fn new(vm: VmId, count: usize) -> Option<Self> {
        let owner = frames::vm_use(vm);
        // SAFETY: nobody has filled it before, and nobody will again.
        let pages = unsafe { Array::new(count, owner)?.fill(|| PhysAddr::new(0)) };
        for page in pages.iter_mut() {
            *page = memory::take(1, PAGE_SIZE, owner)?;
        }
        Some(Self { pages, free: count })
    }

    /// Zeroes what is in no tree: after a tree was taken down, the tables above its leaves.
    pub fn zero(&mut self) {
        for page in self.pages.iter().take(self.free) {
            for entry in entries(*page) {
                entry.store(0);
            }
        }
    }
}

/// The descriptors of one of a pool's pages.
fn entries(page: PhysAddr) -> &'static [Entry; 512] {
    let table: *const [Entry; 512] = pointer::to(page.as_u64());
    // SAFETY: the page was taken from the frame pool for good, is mapped where it lies, zeroed, and reached by entries
    // alone, which are atomics.
    unsafe { &*table }
}

impl TableSource<'static> for TablePool {
    fn take(&mut self) -> Option<Table<'static>> {
        self.free = self.free.checked_sub(1)?;
        let phys = *self.pages.get(self.free)?;
        Some(Table { entries: entries(phys), phys })
    }

    fn give(&mut self, table: Table<'static>) {
        if let Some(slot) = self.pages.get_mut(self.free) {
            *slot = table.phys;
            self.free += 1;
        }
    }
}
