//! A heap for programs that declare it theirs: memory past the program, given out upwards and never taken back.

use core::{
    alloc::{GlobalAlloc, Layout},
    arch::asm,
    ptr,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use crate::params;

/// Of every block at least: copies then go by words.
const ALIGN: usize = 64;
/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;

/// Where the next block begins, and where memory ends.
static NEXT: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);

/// The allocator, for a program's `#[global_allocator]`. Everything is made at start and lives until the VM ends, so
/// nothing is ever given back.
#[derive(Debug)]
pub struct Heap;

/// Begins to give out memory: before that there is none.
pub fn init() {
    let address = |address: u64| usize::try_from(address).unwrap_or_default();
    NEXT.store(address(params::scratch()), Ordering::Relaxed);
    END.store(address(params::ram_end()), Ordering::Relaxed);
}

// SAFETY: each block is cut once from memory that `params::scratch` keeps free of Rust objects.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let start = NEXT.load(Ordering::Relaxed).next_multiple_of(layout.align().max(ALIGN));
        let end = start.saturating_add(layout.size());
        if end > END.load(Ordering::Relaxed) {
            return ptr::null_mut();
        }
        NEXT.store(end, Ordering::Relaxed);
        ptr::with_exposed_provenance_mut(start)
    }

    unsafe fn dealloc(&self, _block: *mut u8, _layout: Layout) {}
}

/// `count` zeroed pages, for good: what a device reads or writes shares its pages with nothing else.
pub fn pages(count: usize) -> &'static mut [u8] {
    aligned_pages(count, PAGE_BYTES)
}

fn aligned_pages(count: usize, align: usize) -> &'static mut [u8] {
    let bytes = count * PAGE_BYTES;
    let layout = Layout::from_size_align(bytes, align).expect("few pages");
    // SAFETY: the layout is not empty.
    let start = unsafe { Heap.alloc_zeroed(layout) };
    assert!(!start.is_null(), "no {count} pages of memory are left");
    // SAFETY: the block is new, zeroed, of this many bytes, and never freed.
    unsafe { core::slice::from_raw_parts_mut(start, bytes) }
}

/// `count` zeroed pages of words, for good, which others write to as well. Up to 2 MiB of them cross no multiple of 2 MiB.
pub fn words(count: usize) -> &'static [AtomicU64] {
    let align = (count * PAGE_BYTES).next_power_of_two();
    let (words, _) = aligned_pages(count, align).as_chunks_mut::<8>();
    let (start, len) = (words.as_mut_ptr().cast::<AtomicU64>(), words.len());
    // SAFETY: pages are aligned for words, any bytes are words, and these are borrowed for good.
    unsafe { core::slice::from_raw_parts(start, len) }
}

/// Runs `program` with a stack of `count` pages: what the runtime gives is 32 KiB.
pub fn with_stack(count: usize, program: extern "C" fn()) {
    let top = pages(count).as_mut_ptr_range().end;
    // SAFETY: the stack is this call's alone, its top aligned; the old one is back when the call returns, with the
    // registers that the ABI keeps.
    unsafe {
        asm!(
            "mov x20, sp",
            "mov sp, {top}",
            "blr {program}",
            "mov sp, x20",
            top = in(reg) top,
            program = in(reg) program,
            out("x20") _,
            clobber_abi("C"),
        );
    }
}
