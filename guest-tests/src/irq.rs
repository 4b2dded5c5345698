//! Interrupts: acknowledge, hand to the program's handler, end.

use core::sync::atomic::{AtomicU32, Ordering};

use bulkhead_core::vplat::{INTIDS, VCPUS_MAX};
use spin::mutex::TicketMutex;

use crate::{
    cpu,
    sysreg::{ICC_EOIR1_EL1, ICC_IAR1_EL1},
};

static HANDLER: TicketMutex<Option<fn(u32)>> = TicketMutex::new(None);
static COUNTS: [[AtomicU32; INTIDS as usize]; VCPUS_MAX] =
    [const { [const { AtomicU32::new(0) }; INTIDS as usize] }; VCPUS_MAX];
static SPURIOUS: AtomicU32 = AtomicU32::new(0);

/// Calls `handler` with the INTID between acknowledge and end of each interrupt. It must not print.
pub fn set_handler(handler: fn(u32)) {
    let was_masked = cpu::is_masked();
    cpu::mask();
    *HANDLER.lock() = Some(handler);
    if !was_masked {
        cpu::unmask();
    }
}

/// How often `intid` came to `cpu`.
pub fn count(cpu: usize, intid: u32) -> u32 {
    COUNTS[cpu][intid as usize].load(Ordering::SeqCst)
}

/// How often there was nothing to acknowledge.
pub fn spurious() -> u32 {
    SPURIOUS.load(Ordering::SeqCst)
}

pub(crate) fn dispatch() {
    #[allow(clippy::cast_possible_truncation, reason = "INTIDs have 24 bits")]
    let intid = ICC_IAR1_EL1.read() as u32;
    let Some(count) = COUNTS[cpu::index()].get(intid as usize) else {
        SPURIOUS.fetch_add(1, Ordering::SeqCst);
        return;
    };
    count.fetch_add(1, Ordering::SeqCst);
    let handler = *HANDLER.lock();
    if let Some(handler) = handler {
        handler(intid);
    }
    ICC_EOIR1_EL1.write(u64::from(intid));
}
