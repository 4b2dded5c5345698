//! DMA maps by HVC: the conduit of `bulkhead-bus-dma`, and memory that both sides write.

mod probe;

use core::{slice, sync::atomic::AtomicU64};

use bulkhead_bus_dma::{Bus, Hypervisor};

pub use probe::{PROBE_BYTES, Probe};

use crate::{hypercall, params};

/// The HVC instruction. This program's addresses are IPAs.
#[derive(Clone, Copy, Debug)]
pub struct Hvc;

impl Hypervisor for Hvc {
    fn call(&self, function: u32, arguments: &[u64; 6]) -> [u64; 4] {
        hypercall::hvc(function, arguments)
    }

    fn ipa(&self, address: usize) -> u64 {
        address as u64
    }
}

/// The bus of a bare-metal program.
pub type HvcBus = Bus<'static, Hvc>;

/// The bus, its array in the page at `at` in scratch memory. A CPU each its own.
#[track_caller]
pub fn attach(at: u64) -> HvcBus {
    Bus::attach(Hvc, words(at, 4096)).unwrap_or_else(|error| panic!("no DMA maps: {error}"))
}

/// Scratch memory as words that devices, the hypervisor and other CPUs may write as well.
#[track_caller]
pub fn words(at: u64, bytes: u64) -> &'static [AtomicU64] {
    let end = at.checked_add(bytes).expect("an end");
    assert!(at >= params::scratch() && end <= params::ram_end() && at.is_multiple_of(8), "no scratch memory: {at:#x}");
    let (Ok(place), Ok(words)) = (usize::try_from(at), usize::try_from(bytes / 8)) else { panic!("64-bit addresses") };
    let first = core::ptr::with_exposed_provenance::<AtomicU64>(place);
    // SAFETY: RAM that no Rust object lies in, aligned, of any value; whoever else looks there uses plain or atomic
    // words, as `mem` does.
    unsafe { slice::from_raw_parts(first, words) }
}
