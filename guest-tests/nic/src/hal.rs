//! What `virtio-drivers` asks of the program: addresses, which the DMA maps have settled before.
//!
//! The driver loads whole packets, `virtio-drivers` shares segment by segment. So the driver offers the addresses of a
//! packet's segments, and `share` takes them one by one.

use core::{
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use virtio_drivers::{BufferDirection, Hal, PhysAddr};

use crate::{
    dma::{Direction, Dma, SEGMENTS_MAX, Segment},
    heap::{self, PAGE_BYTES},
};

/// Blocks of one virtqueue: descriptors with the driver's ring, and the device's ring.
const BLOCKS: usize = 2;

/// One CPU, so these are cells rather than signals: each is written just before the call that reads it.
static OFFERED: [AtomicU64; SEGMENTS_MAX] = [const { AtomicU64::new(0) }; SEGMENTS_MAX];
static TAKEN: AtomicUsize = AtomicUsize::new(0);
static BLOCK_IOVAS: [AtomicU64; BLOCKS] = [const { AtomicU64::new(0) }; BLOCKS];
static BLOCK_ADDRESSES: [AtomicU64; BLOCKS] = [const { AtomicU64::new(0) }; BLOCKS];
static BLOCKS_TAKEN: AtomicUsize = AtomicUsize::new(0);

/// Offers where the device finds the segments that the next addition to a virtqueue shares.
pub fn offer(iovas: [u64; SEGMENTS_MAX]) {
    for (cell, iova) in OFFERED.iter().zip(iovas) {
        cell.store(iova, Ordering::Relaxed);
    }
    TAKEN.store(0, Ordering::Relaxed);
}

/// Maps the blocks of the next virtqueue, in the order in which it asks for them.
pub fn prepare_queue<D: Dma>(dma: &mut D, pages: [usize; BLOCKS]) {
    let directions = [Direction::DeviceReads, Direction::Both];
    // QEMU reads back the flags that it writes to its own ring.
    for ((block, count), direction) in pages.into_iter().enumerate().zip(directions) {
        let (memory, iova) = map_for_good(dma, count, direction);
        BLOCK_IOVAS[block].store(iova, Ordering::Relaxed);
        BLOCK_ADDRESSES[block].store(Segment::of(memory).address, Ordering::Relaxed);
    }
    BLOCKS_TAKEN.store(0, Ordering::Relaxed);
}

/// New pages that the device reaches for as long as the program runs, and where it finds them.
pub fn map_for_good<D: Dma>(dma: &mut D, pages: usize, direction: Direction) -> (&'static mut [u8], u64) {
    let memory = heap::pages(pages);
    let segment = Segment::of(memory);
    let mut map = dma.create(segment.bytes, 1);
    dma.load(&mut map, &[segment], direction);
    dma.run();
    let [iova, ..] = dma.iovas(&map);
    // A map that goes away without an unload stays loaded.
    core::mem::forget(map);
    (memory, iova)
}

/// The program's side of `virtio-drivers`.
#[derive(Debug)]
pub struct NicHal;

// SAFETY: the blocks come from the heap's pages, each handed out once, zeroed; registers are mapped where they lie.
unsafe impl Hal for NicHal {
    fn dma_alloc(_pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let block = BLOCKS_TAKEN.fetch_add(1, Ordering::Relaxed);
        let address = BLOCK_ADDRESSES[block].load(Ordering::Relaxed);
        (BLOCK_IOVAS[block].load(Ordering::Relaxed), pointer(address))
    }

    unsafe fn dma_dealloc(_paddr: PhysAddr, _vaddr: NonNull<u8>, _pages: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, _size: usize) -> NonNull<u8> {
        pointer(paddr)
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        let taken = TAKEN.load(Ordering::Relaxed);
        TAKEN.store(taken + 1, Ordering::Relaxed);
        let iova = OFFERED[taken].load(Ordering::Relaxed);
        // The offset in the page is the same for the device as for the CPU, whatever the way.
        let (theirs, ours) = (iova % PAGE_BYTES as u64, (buffer.addr().get() % PAGE_BYTES) as u64);
        assert_eq!(theirs, ours, "another buffer than the one that was loaded");
        iova
    }

    unsafe fn unshare(_paddr: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}

fn pointer(address: u64) -> NonNull<u8> {
    let address = usize::try_from(address).unwrap_or_default();
    NonNull::new(ptr::with_exposed_provenance_mut(address)).expect("nothing lies at 0")
}
