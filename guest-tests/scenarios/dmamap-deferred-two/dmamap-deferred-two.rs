//! Deferred flushes of two VMs: EL2's timer looks after each on its own CPUs, so that no VM finds its channel busy
//! because of the other.
#![no_std]
#![no_main]

use bulkhead_abi::{Direction, Error, Function, NO_LIMIT};
use bulkhead_guest_tests::{check, hypercall, mem, params, program};

program!(main);

const ROUNDS: usize = 40_000;

fn call(function: Function, arguments: &[u64]) -> [u64; 4] {
    hypercall::hvc(function.id(), arguments)
}

fn main() {
    let array = params::scratch();
    mem::write64(array, array + 0x10_0000);
    mem::write64(array + 8, 4096);
    let [status, handle, ..] = call(Function::Create, &[0, 4096, 1, 0, 0, NO_LIMIT]);
    check!(status == 0, "a map"; status);
    let (mut busy, mut failed) = (0, 0);
    for _ in 0..ROUNDS {
        let loaded = call(Function::Load, &[handle, array, 1, Direction::Both.number().into()])[0];
        let unloaded = call(Function::Unload, &[handle])[0];
        for status in [loaded, unloaded] {
            busy += u64::from(status == Error::Busy.register());
            failed += u64::from(status != 0);
        }
    }
    check!(busy == 0, "the only vCPU never finds its channel busy"; busy);
    check!(failed == 0, "all loads and unloads"; failed);
}
