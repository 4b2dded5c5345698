//! Deferred flushes of maps that lease when they are loaded: what EL2's timer has flushed comes back when the maps go.
#![no_std]
#![no_main]

use bulkhead_abi::{Counter, Direction, Function, NO_LIMIT};
use bulkhead_guest_tests::{check, hypercall, mem, params, program, timer};

program!(main);

/// As the manifest has it.
const MAPS: usize = 16;
/// Far more than the manifest's window, and its timer's tick.
const LONG_MS: u64 = 500;

fn call(function: Function, arguments: &[u64]) -> [u64; 4] {
    hypercall::hvc(function.id(), arguments)
}

fn create() -> [u64; 2] {
    let [status, handle, ..] = call(Function::Create, &[0, 4096, 1, 0, 0, NO_LIMIT]);
    [status, handle]
}

fn counter(counter: Counter) -> u64 {
    call(Function::Stats, &[counter.number()])[1]
}

fn main() {
    let array = params::scratch();
    mem::write64(array, array + 0x10_0000);
    mem::write64(array + 8, 4096);
    let maps: [[u64; 2]; MAPS] = core::array::from_fn(|_| create());
    check!(maps.iter().all(|[status, _]| *status == 0), "as many maps as there can be");
    let both = Direction::Both.number().into();
    let is_loaded = |[_, handle]: [u64; 2]| call(Function::Load, &[handle, array, 1, both])[0] == 0;
    let is_unloaded = |[_, handle]: [u64; 2]| call(Function::Unload, &[handle])[0] == 0;
    let is_destroyed = |[_, handle]: [u64; 2]| call(Function::Destroy, &[handle])[0] == 0;
    check!(maps.into_iter().all(is_loaded), "all loaded");
    check!(maps.into_iter().all(is_unloaded) && counter(Counter::Syncs) == 0, "all unloaded, nothing flushed");
    timer::delay_ms(LONG_MS);
    check!(counter(Counter::Syncs) == 1, "the timer has flushed them"; counter(Counter::Syncs));
    check!(maps.into_iter().all(is_destroyed), "all destroyed");
    check!(counter(Counter::LeasedBytes) == 0, "their leases are back"; counter(Counter::LeasedBytes));
    let [status, _] = create();
    check!(status == 0, "a map can be created"; status);
}
