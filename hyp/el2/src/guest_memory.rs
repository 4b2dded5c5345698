//! Writing guest RAM: scrub before a boot, then the images from the bundle.
//!
//! Through the CPU's 2 MiB window, so that no guest memory stays mapped at EL2. Everything is cleaned to the point of
//! coherency: a guest starts with its caches off.

use core::sync::atomic::Ordering::{Acquire, Release};

use bulkhead_core::{
    addr::{AddrRange, BLOCK_2M, PhysAddr},
    ids::{SmmuId, Vmid},
};
use bulkhead_dma::{Flushed, Unflushed};

use crate::{cache, mmu::Window, percpu::PerCpu, sysreg};

/// Runs `f` on the part of each 2 MiB block that `range` covers: EL2 address, offset into `range`, bytes.
fn for_each_block(range: AddrRange<PhysAddr>, mut f: impl FnMut(u64, u64, u64)) {
    let cpu = PerCpu::current();
    let was_in_use = cpu.window_in_use.swap(true, Acquire);
    assert!(!was_in_use, "two users of one CPU's window");
    let mut at = range.start().as_u64();
    while at < range.end().as_u64() {
        let block_end = (at | (BLOCK_2M - 1)) + 1;
        let bytes = block_end.min(range.end().as_u64()) - at;
        let window = Window::open(cpu.windows, cpu.id, PhysAddr::new(at));
        f(window.address() + at % BLOCK_2M, at - range.start().as_u64(), bytes);
        at += bytes;
    }
    cpu.window_in_use.store(false, Release);
}

/// A VM's RAM. Only flushed RAM is scrubbed and loaded: no device may write meanwhile (rule 5).
#[derive(Debug)]
pub struct GuestRam(AddrRange<PhysAddr>);

impl GuestRam {
    /// RAM that the ledger gave to a VM, and that no SMMU leads to yet.
    pub fn fresh(range: AddrRange<PhysAddr>, vmid: Vmid) -> Unflushed<Self> {
        Unflushed::new(Self(range), vmid, [])
    }

    /// Makes the RAM that of a machine just switched on: zero, but for what `loads` puts there.
    pub fn prepare<'a>(flushed: Flushed<Self>, loads: impl Iterator<Item = (&'a [u8], PhysAddr)>) -> Self {
        let ram = flushed.into_inner();
        scrub(ram.0);
        for (source, target) in loads {
            copy(source, target);
        }
        ram
    }

    /// The RAM of a VM whose streams are to be taken back: `walkers` led there.
    pub fn retire(self, vmid: Vmid, walkers: impl Iterator<Item = SmmuId>) -> Unflushed<Self> {
        Unflushed::new(self, vmid, walkers)
    }
}

/// Zeroes `range`, whole cache lines at a time where DC ZVA is allowed.
fn scrub(range: AddrRange<PhysAddr>) {
    let dczid = sysreg::read!("dczid_el0");
    let is_prohibited = dczid & 1 << 4 != 0;
    let zva_bytes = 4u64 << (dczid & 0xf);
    for_each_block(range, |address, _, bytes| {
        if is_prohibited || !(address | bytes).is_multiple_of(zva_bytes) {
            fill(address, bytes);
        } else {
            let mut at = address;
            while at < address + bytes {
                // SAFETY: the window maps this block of guest memory, Normal write-back, for this CPU alone.
                unsafe { core::arch::asm!("dc zva, {}", in(reg) at, options(nostack)) };
                at += zva_bytes;
            }
        }
        cache::clean_invalidate(address, bytes);
    });
}

fn pointer(address: u64) -> *mut u8 {
    crate::pointer::to(address)
}

fn fill(address: u64, bytes: u64) {
    // SAFETY: the window maps this block for this CPU alone; guest memory is never a Rust object.
    unsafe { pointer(address).write_bytes(0, usize::try_from(bytes).unwrap_or(0)) };
}

/// Copies `source` to guest memory at `target`.
fn copy(source: &[u8], target: PhysAddr) {
    let Some(range) = AddrRange::new(target, source.len() as u64) else { return };
    for_each_block(range, |address, offset, bytes| {
        let (offset, bytes_usize) = (usize::try_from(offset).unwrap_or(0), usize::try_from(bytes).unwrap_or(0));
        let Some(part) = source.get(offset..offset + bytes_usize) else { return };
        // SAFETY: the window maps these bytes for this CPU alone, and the bundle does not overlap guest memory.
        unsafe { core::ptr::copy_nonoverlapping(part.as_ptr(), pointer(address), bytes_usize) };
        cache::clean_invalidate(address, bytes);
    });
}
