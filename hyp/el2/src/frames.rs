//! Frames of EL2's own memory: one pool behind the image, and what the image gives back.

use bitvec::{BitArr, array::BitArray, order::Lsb0};
use bulkhead_core::addr::{AddrRange, PAGE_SIZE, PhysAddr};

/// Frames of image and pool at most (linker/hyp.ld holds it: 6 MiB).
const FRAMES_MAX: usize = 1536;

/// What a frame is for, so that `mem` and the benchmark can say what a VM costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Use {
    /// The hypervisor: its page tables, stacks, per-CPU blocks.
    Hypervisor = 0,
    /// Stream tables and queues of the SMMUs.
    Smmu = 1,
    /// Tables of the VM with this index, from 2 on.
    Vm0 = 2,
}

/// Kinds of use that are counted: the two above and every VM.
pub const USES: usize = 2 + bulkhead_core::vplat::VMS_MAX;

/// The index under which a VM's frames are counted.
pub const fn vm_use(vm: bulkhead_core::ids::VmId) -> usize {
    Use::Vm0 as usize + vm.index()
}

/// A bitmap over image and pool. First fit; frames are zeroed by whoever takes them.
pub struct FramePool {
    base: PhysAddr,
    frames: usize,
    /// Frames of the image, which are marked as taken and count as none.
    foreign: usize,
    taken: BitArr!(for FRAMES_MAX, in u64, Lsb0),
    held: [usize; USES],
    peak: [usize; USES],
}

impl FramePool {
    /// The pool at the end of `image`, from `start` on; what is past 1,536 frames of the image stays unused.
    pub fn new(image: AddrRange<PhysAddr>, start: PhysAddr) -> Self {
        let frames = |bytes: u64| usize::try_from(bytes / PAGE_SIZE).unwrap_or(0).min(FRAMES_MAX);
        let foreign = start.checked_sub(image.start()).map_or(0, frames);
        let mut taken: BitArr!(for FRAMES_MAX, in u64, Lsb0) = BitArray::ZERO;
        if let Some(image) = taken.get_mut(..foreign) {
            image.fill(true);
        }
        let frames = frames(image.size_bytes());
        Self { base: image.start(), frames, foreign, taken, held: [0; USES], peak: [0; USES] }
    }

    /// Takes `count` frames in a row, the first on a multiple of `alignment` bytes; `None` when there is no such run.
    pub fn take(&mut self, count: usize, alignment: u64, owner: usize) -> Option<PhysAddr> {
        let mut first = 0;
        while first + count <= self.frames {
            let address = self.base.checked_add(first as u64 * PAGE_SIZE)?;
            if !address.is_aligned(alignment.max(PAGE_SIZE)) {
                first += 1;
                continue;
            }
            match self.taken.get(first..first + count)?.last_one() {
                Some(last) => first += last + 1,
                None => {
                    self.taken.get_mut(first..first + count)?.fill(true);
                    let held = self.held.get_mut(owner)?;
                    *held += count;
                    let peak = self.peak.get_mut(owner)?;
                    *peak = (*peak).max(*held);
                    return Some(address);
                }
            }
        }
        None
    }

    /// Gives `count` frames from `address` back.
    pub fn give_back(&mut self, address: PhysAddr, count: usize, owner: usize) {
        let Some(offset) = address.checked_sub(self.base) else { return };
        let Ok(first) = usize::try_from(offset / PAGE_SIZE) else { return };
        if let Some(run) = self.taken.get_mut(first..first + count) {
            run.fill(false);
            if let Some(held) = self.held.get_mut(owner) {
                *held = held.saturating_sub(count);
            }
        }
    }

    /// Takes `count` frames of the image from `address` on into the pool.
    pub fn adopt(&mut self, address: PhysAddr, count: usize) {
        self.give_back(address, count, USES);
        self.foreign = self.foreign.saturating_sub(count);
    }

    /// Frames in the pool, and frames taken.
    pub fn totals(&self) -> (usize, usize) {
        (self.frames - self.foreign, self.taken.count_ones() - self.foreign)
    }

    /// Most frames that `owner` ever held at once.
    pub fn peak(&self, owner: usize) -> usize {
        self.peak.get(owner).copied().unwrap_or(0)
    }
}
