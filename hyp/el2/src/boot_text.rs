//! The end of the boot: code that ran for it alone becomes memory of the pool.
//!
//! Which code that is, the tools compute at the link and check in the image (`tools/src/boot_only`). A CPU is past it once
//! it is in [`idle::after_boot`](crate::idle::after_boot), which never goes back. The last one to come there gives the
//! code's frames back. One that was asked to start and did not come may still come: then nothing is given back.

use core::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{AcqRel, Acquire, Release},
};

use bulkhead_core::addr::{AddrRange, PhysAddr};
use log::info;

use crate::{image, memory, text::Bytes, vm};

/// CPUs that run boot code, or may yet: the boot CPU, and each that firmware was asked to start.
static CPUS: AtomicUsize = AtomicUsize::new(1);
static IS_GONE: AtomicBool = AtomicBool::new(false);

/// A CPU is about to be started.
pub fn expect_cpu() {
    CPUS.fetch_add(1, AcqRel);
}

/// It was not started.
pub fn expect_no_cpu() {
    CPUS.fetch_sub(1, AcqRel);
}

/// Whether an address is that of code which is gone: what runs there now is lost.
pub fn is_gone(address: u64) -> bool {
    IS_GONE.load(Acquire) && range().contains(PhysAddr::new(address))
}

/// The code that goes: a virtio IOMMU's too, where no VM is behind one and so nothing calls it.
fn range() -> AddrRange<PhysAddr> {
    let is_used = vm::all().any(|vm| vm.viommu.is_some());
    image::between(image::start(), if is_used { image::boot_text_end() } else { image::viommu_text_end() })
}

/// This CPU is past its boot. The last one gives the code's frames back.
pub fn leave() {
    if CPUS.fetch_sub(1, AcqRel) != 1 {
        return;
    }
    IS_GONE.store(true, Release);
    // SAFETY: every CPU that was started is past its boot, each has said so by the counter, and none goes
    // back; a virtio IOMMU's code is called for a VM that has one, and VMs are made at boot.
    let frames = unsafe { memory::adopt_text(range()) };
    info!("boot is over: {} of its code given back", Bytes(frames as u64 * 4096));
}
