//! One DMA map by the calls themselves: create, load, the edu reaches it, unload, the edu reaches nothing.
#![no_std]
#![no_main]

use bulkhead_abi::{Counter, Direction, Error, Function, Handle, MapState, NO_LIMIT, Segment, UID, VERSION};
use bulkhead_guest_tests::{
    check,
    edu::{BUFFER_BYTES, Edu},
    hypercall, mem, params, program,
};

program!(main);

fn call(function: Function, arguments: &[u64]) -> [u64; 4] {
    hypercall::hvc(function.id(), arguments)
}

/// Bytes from `from` to `to` through the device; whether they came.
fn round_trip(edu: Edu, from: (u64, u64), to: (u64, u64), bytes: u64) -> bool {
    let ((ipa, iova), (target, target_iova)) = (from, to);
    mem::fill(ipa, bytes, ipa);
    mem::fill(target, bytes, 0xdead);
    let is_ended = edu.read(iova, 0, bytes) && edu.write(target_iova, 0, bytes);
    is_ended && mem::find_changed(target, bytes, ipa).is_none()
}

/// Whether a write of the device to `iova` changes nothing at `ipa`.
fn is_refused(edu: Edu, ipa: u64, iova: u64) -> bool {
    mem::fill(ipa, BUFFER_BYTES, 0x5afe);
    edu.write(iova, 0, BUFFER_BYTES) && mem::find_changed(ipa, BUFFER_BYTES, 0x5afe).is_none()
}

fn load(handle: u64, array: u64, segments: &[(u64, u64)], direction: Direction) -> [u64; 4] {
    for (place, (ipa, bytes)) in (0..).zip(segments) {
        let at = array + place * size_of::<Segment>() as u64;
        mem::write64(at, *ipa);
        mem::write64(at + 8, *bytes);
        mem::write64(at + 16, 0);
    }
    call(Function::Load, &[handle, array, segments.len() as u64, direction.number().into()])
}

fn counter(counter: Counter) -> u64 {
    call(Function::Stats, &[counter.number()])[1]
}

fn main() {
    let edu = Edu::first();
    check!(call(Function::Version, &[])[..2] == [0, VERSION], "version");
    check!(call(Function::CallUid, &[]) == UID.map(u64::from), "uid");

    let array = params::scratch();
    let (from, to) = (array + 0x10_0000, array + 0x20_0000);
    check!(is_refused(edu, from, from), "before any map: nothing at the address as the CPU knows it");

    let [status, handle, base, bytes] = call(Function::Create, &[0, 4 * BUFFER_BYTES, 2, 0, 0, NO_LIMIT]);
    check!(status == 0 && Handle::from_register(handle).channel() == 0, "create"; status);
    check!(bytes >= 4 * BUFFER_BYTES && base != 0, "its lease"; bytes);
    check!(is_refused(edu, from, base), "created: nothing in its lease");

    let [status, first, pages, _] = load(handle, array, &[(from, BUFFER_BYTES), (to, BUFFER_BYTES)], Direction::Both);
    let (iova, second) = (mem::read64(array + 16), mem::read64(array + 40));
    check!(status == 0 && first == iova && pages == 2, "load"; status);
    check!(round_trip(edu, (from, iova), (to, second), BUFFER_BYTES), "loaded: the device reads and writes");
    let [_, state, ..] = call(Function::Query, &[handle]);
    check!(state == MapState::Loaded.number(), "query says so"; state);
    check!(load(handle, array, &[(from, 64)], Direction::Both)[0] == Error::Loaded.register(), "no second load");

    check!(call(Function::Unload, &[handle])[0] == 0, "unload");
    check!(is_refused(edu, to, second), "unloaded: nothing at the IOVA of before");

    let [status, iova, ..] = load(handle, array, &[(from + 0x18, 64)], Direction::DeviceReads);
    check!(status == 0 && iova & 0xfff == 0x18, "load again, the offset in the page kept"; iova);
    mem::fill(from, 0x1000, 9);
    check!(edu.read(iova, 0, 64) && is_refused(edu, from, iova & !0xfff), "for reading alone: no write");

    check!(load(handle, array, &[(0x0800_0000, 64)], Direction::Both)[0] == Error::Loaded.register(), "still loaded");
    check!(call(Function::Destroy, &[handle])[0] == 0, "destroy, loaded as it is");
    check!(call(Function::Unload, &[handle])[0] == Error::NoMap.register(), "its handle is dead");
    check!(is_refused(edu, from, iova & !0xfff), "destroyed: nothing");
    check!(counter(Counter::Maps) == 0 && counter(Counter::LeasedBytes) == 0, "no map and no lease is left");
    check!(counter(Counter::Timeouts) == 0 && counter(Counter::Syncs) > 0, "flushes were confirmed");
}
