//! A guest's call for DMA maps, from its registers back into them.

use core::sync::atomic::Ordering::Relaxed;

use bulkhead_abi::{Counter, Error, Function};
use bulkhead_vdev::dmamap::{answer, owns};

use super::Maps;
use crate::{guest_view::GuestView, percpu::PerCpu, stats::CallSums, time, vm::Vm};

/// Answers a call with x0 to x6; `None` when it is not one for DMA maps.
pub fn call(cpu: &'static PerCpu, vm: &'static Vm, x: &[u64; 7]) -> Option<[u64; 4]> {
    if !owns(x[0]) {
        return None;
    }
    let refused = |error: Error| Some([error.register(), 0, 0, 0]);
    let Some(maps) = vm.dma.maps() else { return refused(Error::NotSupported) };
    let function = u32::try_from(x[0] & 0xffff_ffff).unwrap_or(0);
    if function == Function::Stats.id()
        && let Some(counter) = Counter::from_number(x[1])
        && counter as u64 + 2 >= Counter::Calls as u64
    {
        return Some(stats(maps, vm, counter));
    }
    // Nothing else on this CPU has the window during a guest's exit.
    let Some(mut memory) = GuestView::new(cpu, vm) else { return refused(Error::Busy) };
    let result = answer(maps, &mut memory, x);
    if function == Function::RingRun.id() && result[0] == 0 {
        maps.ring_runs.fetch_add(1, Relaxed);
        maps.ring_entries.fetch_add(result[1], Relaxed);
    }
    Some(result)
}

/// Three counters, those of calls among them, which are kept by CPU.
fn stats(maps: &Maps, vm: &Vm, first: Counter) -> [u64; 4] {
    let calls = sums(vm);
    let value = |number: u64| match Counter::from_number(number) {
        Some(Counter::Calls) => calls.count,
        Some(Counter::CallNs) => time::to_ns(calls.ticks),
        Some(Counter::CallNsMax) => time::to_ns(calls.worst_ticks),
        Some(counter) => maps.counter(counter),
        None => 0,
    };
    let number = first.number();
    [0, value(number), value(number + 1), value(number + 2)]
}

/// What the calls of all vCPUs cost.
pub fn sums(vm: &Vm) -> CallSums {
    let mut sums = CallSums::default();
    vm.cpus().for_each(|cpu| cpu.calls.add_to(&mut sums));
    sums
}
