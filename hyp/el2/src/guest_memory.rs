//! Writing guest RAM: scrub before a boot, then the images from the bundle.
//!
//! Through the CPU's 2 MiB window, so that no guest memory stays mapped at EL2. Everything is cleaned to the point of
//! coherency: a guest starts with its caches off. The loops are aligned so that each lies in one page of text: an emulator
//! looks the way up at every turn of one that does not.

use core::sync::atomic::Ordering::{Acquire, Release};

use bulkhead_core::{
    addr::{AddrRange, BLOCK_2M, PAGE_SIZE, PhysAddr},
    ids::{SmmuId, Vmid},
};
use bulkhead_dma::{Flushed, Unflushed};

use crate::{cache, mmu::Window, percpu::PerCpu};

/// Bytes that one turn of the copying loop moves.
const RUN_BYTES: usize = 64;

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
    pub fn prepare<'a>(flushed: Flushed<Self>, loads: impl Iterator<Item = (&'a [u8], PhysAddr)> + Clone) -> Self {
        let ram = flushed.into_inner();
        // What is loaded over needs no scrub, in whole pages; loads in any other order than upwards are scrubbed under.
        let mut scrubbed = ram.0.start();
        for (source, target) in loads.clone() {
            let end = target.as_u64().saturating_add(source.len() as u64) & !(PAGE_SIZE - 1);
            let start = PhysAddr::new(target.as_u64().next_multiple_of(PAGE_SIZE));
            if start >= scrubbed && start.as_u64() < end {
                scrub_between(scrubbed, start);
                scrubbed = PhysAddr::new(end);
            }
        }
        scrub_between(scrubbed, ram.0.end());
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

fn scrub_between(start: PhysAddr, end: PhysAddr) {
    let bytes = end.checked_sub(start).unwrap_or(0);
    if let Some(range) = AddrRange::new(start, bytes) {
        scrub(range);
    }
}

/// Zeroes `range`, which is whole pages. Plain stores: an emulator does them faster than DC ZVA, hardware as fast.
fn scrub(range: AddrRange<PhysAddr>) {
    for_each_block(range, |address, _, bytes| {
        // SAFETY: the window maps these whole pages of guest memory, Normal write-back, for this CPU alone.
        unsafe {
            core::arch::asm!(
                ".p2align 6",
                "2:",
                ".irp offset, 0, 16, 32, 48, 64, 80, 96, 112",
                "stp xzr, xzr, [{at}, #\\offset]",
                ".endr",
                "add {at}, {at}, #128",
                "cmp {at}, {end}",
                "b.lo 2b",
                at = inout(reg) address => _,
                end = in(reg) address + bytes,
                options(nostack),
            );
        }
        cache::clean_invalidate(address, bytes);
    });
}

/// Copies `source` to guest memory at `target`.
fn copy(source: &[u8], target: PhysAddr) {
    let Some(range) = AddrRange::new(target, source.len() as u64) else { return };
    for_each_block(range, |address, offset, bytes| {
        let (offset, bytes_usize) = (usize::try_from(offset).unwrap_or(0), usize::try_from(bytes).unwrap_or(0));
        let Some(part) = source.get(offset..offset + bytes_usize) else { return };
        let (runs, rest) = part.as_chunks::<RUN_BYTES>();
        let rest_at = address + bytes - rest.len() as u64;
        if !runs.is_empty() {
            // SAFETY: the window maps these bytes for this CPU alone, Normal write-back, where no load or store needs to be
            // aligned, and the bundle does not overlap guest memory.
            unsafe {
                core::arch::asm!(
                    ".p2align 6",
                    "2:",
                    ".irp offset, 0, 16, 32, 48",
                    "ldp {first}, {second}, [{from}, #\\offset]",
                    "stp {first}, {second}, [{at}, #\\offset]",
                    ".endr",
                    "add {from}, {from}, #64",
                    "add {at}, {at}, #64",
                    "cmp {at}, {end}",
                    "b.lo 2b",
                    from = inout(reg) runs.as_ptr() => _,
                    at = inout(reg) address => _,
                    end = in(reg) rest_at,
                    first = out(reg) _,
                    second = out(reg) _,
                    options(nostack),
                );
            }
        }
        // SAFETY: as above.
        unsafe { core::ptr::copy_nonoverlapping(rest.as_ptr(), crate::pointer::to(rest_at), rest.len()) };
        cache::clean_invalidate(address, bytes);
    });
}
