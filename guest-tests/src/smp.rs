//! Secondary CPUs: each runs a function and turns itself off.

use bulkhead_core::vplat::VCPUS_MAX;
use spin::mutex::TicketMutex;

use crate::{boot, psci};

type Entry = TicketMutex<Option<fn()>>;

static ENTRIES: [Entry; VCPUS_MAX] = [const { TicketMutex::new(None) }; VCPUS_MAX];

/// Starts `cpu` at `entry`; CPU_ON's status.
pub fn start(cpu: usize, entry: fn()) -> i64 {
    *ENTRIES[cpu].lock() = Some(entry);
    psci::cpu_on(cpu as u64, boot::secondary_entry(), cpu as u64)
}

pub(crate) fn run_entry(cpu: usize) {
    let entry = ENTRIES.get(cpu).and_then(|entry| *entry.lock());
    match entry {
        Some(entry) => entry(),
        None => panic!("cpu {cpu} was started with a context that is no CPU of ours"),
    }
}
