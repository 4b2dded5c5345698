//! The end of the boot: code that ran for it alone becomes memory of the pool.
//!
//! Which code that is, the tools compute at the link and check in the image (`tools/src/boot_only`). A CPU is past it once
//! it is in [`idle::after_boot`](crate::idle::after_boot), which never goes back. The last one to come there gives the
//! code's frames back. One that was asked to start and did not come may still come: then nothing is given back.

use core::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{AcqRel, Acquire, Release},
};

use log::info;

use crate::{memory, text::Bytes};

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

/// Whether the code is gone: what runs there now is lost.
pub fn is_gone() -> bool {
    IS_GONE.load(Acquire)
}

/// This CPU is past its boot. The last one gives the code's frames back.
pub fn leave() {
    if CPUS.fetch_sub(1, AcqRel) != 1 {
        return;
    }
    IS_GONE.store(true, Release);
    // SAFETY: every CPU that was started is past its boot, each has said so by the counter, and none goes back.
    let frames = unsafe { memory::adopt_boot_text() };
    info!("boot is over: {} of its code given back", Bytes(frames as u64 * 4096));
}
