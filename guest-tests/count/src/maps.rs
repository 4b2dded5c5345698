//! Maps: loaded and unloaded in ring order, a batch's flush included; created and destroyed.

mod commands;
mod life;
mod rig;
mod trace;

use core::num::NonZeroU64;

use bulkhead_core::{
    addr::{Ipa, PAGE_SIZE},
    bundle::DmamapStrategy,
};
use bulkhead_dma::map::{Channel, Direction, Handle, HandleError, LoadError, MapParams, Segment};
use bulkhead_guest_tests::println;

use self::rig::{RAM, Rig, flush};
use crate::meter::{self, test};

/// Maps of the ring.
const RING: usize = 256;

/// What a round calls, by pointers: neither is inlined into the harness, and both take the same arguments.
#[derive(Clone, Copy)]
struct Calls<L> {
    load: L,
    unload: fn(&mut Channel<'static>, Handle) -> Result<(), HandleError>,
    flush: fn(&mut Channel<'static>, Handle) -> bool,
}

impl<L> Calls<L> {
    /// What is measured.
    const fn real(load: L) -> Self {
        Self { load, unload: Channel::unload, flush: |channel, _| flush(channel) }
    }

    /// What the harness takes, with `TESTS` tests in each.
    const fn idle<const TESTS: usize>(load: L) -> Self {
        let flush = |_: &mut Channel<'static>, handle: Handle| {
            test::<TESTS>(handle.as_u64());
            true
        };
        let unload = |_: &mut Channel<'static>, handle: Handle| {
            test::<TESTS>(handle.as_u64());
            Ok(())
        };
        Self { load, unload, flush }
    }
}

/// A load of several segments.
type Load = fn(&mut Channel<'static>, Handle, Direction, &mut [Segment]) -> Result<u32, LoadError>;
/// A load of one.
type LoadOne = fn(&mut Channel<'static>, Handle, Direction, Ipa, u64) -> Option<NonZeroU64>;

fn idle<const TESTS: usize>(
    _: &mut Channel<'static>,
    handle: Handle,
    _: Direction,
    _: &mut [Segment],
) -> Result<u32, LoadError> {
    test::<TESTS>(handle.as_u64());
    Ok(1)
}

fn idle_one<const TESTS: usize>(
    _: &mut Channel<'static>,
    handle: Handle,
    _: Direction,
    _: Ipa,
    _: u64,
) -> Option<NonZeroU64> {
    test::<TESTS>(handle.as_u64());
    Some(NonZeroU64::MIN)
}

fn segments<const N: usize>(bytes: u64) -> [Segment; N] {
    core::array::from_fn(|at| {
        let at = Ipa::new(RAM + (at as u64 * 7 + 1) * bytes.next_multiple_of(PAGE_SIZE));
        Segment::new(at, bytes)
    })
}

/// Loads and unloads the ring's maps in order, a flush for each `batch`. `load` calls one of `loads`, the real one and
/// those with one test and two: whether it has loaded.
fn ring<L: Copy>(
    name: &str,
    batch: usize,
    params: &MapParams,
    loads: [L; 3],
    mut load: impl FnMut(L, &mut Channel<'static>, Handle, Direction) -> bool,
) {
    let Some(mut rig) = Rig::new(DmamapStrategy::Reserve, RING, params) else {
        println!("FAIL: {name}: no maps");
        return;
    };
    let mut refused = 0_u32;
    let [real, one, two] = loads;
    let idle = [Calls::idle::<1>(one), Calls::idle::<2>(two)];
    meter::measure_inside(name, batch as u64, Calls::real(real), idle, |calls, rounds| {
        let calls = core::hint::black_box(calls);
        let direction = core::hint::black_box(Direction::Both);
        let starts = (0..RING).step_by(batch).cycle();
        for (_, start) in (0..rounds).zip(starts) {
            let Rig { channel, handles, .. } = &mut rig;
            let handles = handles.get(start..start + batch).unwrap_or_default();
            for handle in handles {
                refused = refused.wrapping_add(u32::from(!load(calls.load, channel, *handle, direction)));
            }
            for handle in handles {
                refused = refused.wrapping_add(u32::from((calls.unload)(channel, *handle).is_err()));
            }
            if let [first, ..] = handles {
                refused = refused.wrapping_add(u32::from(!(calls.flush)(channel, *first)));
            }
        }
    });
    if refused > 0 {
        println!("FAIL: {name}: {refused} refused");
    }
}

/// One segment of so many bytes.
fn ring_of_one(name: &str, bytes: u64, params: &MapParams) {
    let loads: [LoadOne; 3] = [Channel::load_one, idle_one::<1>, idle_one::<2>];
    let [segment] = segments::<1>(bytes);
    let (ipa, bytes) = core::hint::black_box((segment.ipa(), bytes));
    ring(name, 16, params, loads, |load, channel, handle, direction| {
        load(channel, handle, direction, ipa, bytes).is_some()
    });
}

/// Counts a map's life.
pub fn run() {
    let packet = MapParams::new(3 * PAGE_SIZE, 3);
    for batch in [1, 16, 64] {
        let name = alloc::format!("load + unload, 3 pages, batch {batch}, reserve");
        let loads: [Load; 3] = [Channel::load, idle::<1>, idle::<2>];
        let mut segments = segments::<3>(1024);
        ring(&name, batch, &packet, loads, |load, channel, handle, direction| {
            load(channel, handle, direction, &mut segments).is_ok()
        });
    }
    ring_of_one("load + unload, 64 KiB", 64 << 10, &MapParams::new(64 << 10, 1));
    let block = MapParams { align: 2 << 20, ..MapParams::new(2 << 20, 1) };
    ring_of_one("load + unload, 2 MiB block", 2 << 20, &block);
    trace::run(&packet);
    commands::run(&packet);
    life::run(&packet);
}
