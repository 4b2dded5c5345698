//! Deferred flushes: an unload that nobody follows up is flushed in time, by EL2's timer; a load before that flushes.
#![no_std]
#![no_main]

use bulkhead_abi::{Counter, Direction, Features, Flags, Function, MapState, NO_LIMIT};
use bulkhead_guest_tests::{
    check,
    edu::{BUFFER_BYTES, Edu},
    hypercall, mem, params, program, timer,
};

program!(main);

/// Far more than the manifest's window, and its timer's tick.
const LONG_MS: u64 = 500;

fn call(function: Function, arguments: &[u64]) -> [u64; 4] {
    hypercall::hvc(function.id(), arguments)
}

fn load(handle: u64, array: u64, ipa: u64) -> (u64, u64) {
    mem::write64(array, ipa);
    mem::write64(array + 8, BUFFER_BYTES);
    let [status, iova, ..] = call(Function::Load, &[handle, array, 1, Direction::Both.number().into()]);
    (status, iova)
}

fn syncs() -> u64 {
    call(Function::Stats, &[Counter::Syncs.number()])[1]
}

fn state(handle: u64) -> u64 {
    call(Function::Query, &[handle])[1]
}

fn main() {
    let edu = Edu::first();
    let flags = call(Function::Features, &[Features::Functions as u64])[1];
    check!(flags & Flags::DEFERRED.bits() != 0, "the guest is told");
    let (array, page) = (params::scratch(), params::scratch() + 0x10_0000);
    let [status, handle, ..] = call(Function::Create, &[0, BUFFER_BYTES, 1, 0, 0, NO_LIMIT]);
    let (loaded, iova) = load(handle, array, page);
    check!((status, loaded) == (0, 0), "create, load");
    mem::fill(page, BUFFER_BYTES, 1);
    check!(edu.read(iova, 0, BUFFER_BYTES), "the device has its translation");

    check!(call(Function::Unload, &[handle])[0] == 0, "unload");
    check!(syncs() == 0 && state(handle) == MapState::Unflushed.number(), "nothing is flushed yet"; syncs());
    timer::delay_ms(LONG_MS);
    check!(syncs() == 1 && state(handle) == MapState::Created.number(), "the timer has flushed it"; syncs());
    mem::fill(page, BUFFER_BYTES, 2);
    edu.write(iova, 0, BUFFER_BYTES);
    check!(mem::find_changed(page, BUFFER_BYTES, 2).is_none(), "the device reaches nothing any more");

    let (loaded, _) = load(handle, array, page);
    check!(loaded == 0 && call(Function::Unload, &[handle])[0] == 0, "load and unload again");
    let before = syncs();
    let (loaded, iova) = load(handle, array, page + BUFFER_BYTES);
    check!(loaded == 0 && syncs() == before + 1, "a load before its flush has it flushed"; syncs());
    mem::fill(page, 2 * BUFFER_BYTES, 3);
    edu.write(iova, 0, BUFFER_BYTES);
    check!(mem::find_changed(page, BUFFER_BYTES, 3).is_none(), "the page of before is out of reach");
    check!(call(Function::Destroy, &[handle])[0] == 0 && syncs() > before + 1, "destroy does not wait for the timer");
}
