//! Maps: loaded and unloaded in ring order, a batch's flush included; created and destroyed.

mod commands;
mod life;
mod rig;
mod trace;

use bulkhead_core::{
    addr::{Ipa, PAGE_SIZE},
    bundle::DmamapStrategy,
};
use bulkhead_dma::map::{Channel, Direction, Handle, HandleError, LoadError, MapParams, Segment};
use bulkhead_guest_tests::println;

use self::rig::{RAM, Rig, flush};
use crate::meter;

/// Maps of the ring.
const RING: usize = 256;

/// What a round calls, by pointers: neither is inlined into the harness, and both take the same arguments.
#[derive(Clone, Copy)]
struct Calls {
    load: fn(&mut Channel<'static>, Handle, Direction, &mut [Segment]) -> Result<u32, LoadError>,
    unload: fn(&mut Channel<'static>, Handle) -> Result<(), HandleError>,
    flush: fn(&mut Channel<'static>),
}

impl Calls {
    /// What is measured.
    const REAL: Self = Self { load: Channel::load, unload: Channel::unload, flush };
    /// What the harness takes.
    const IDLE: Self = Self { load: |_, _, _, _| Ok(1), unload: |_, _| Ok(()), flush: |_| () };
}

fn segments<const N: usize>(bytes: u64) -> [Segment; N] {
    core::array::from_fn(|at| {
        let at = Ipa::new(RAM + (at as u64 * 7 + 1) * bytes.next_multiple_of(PAGE_SIZE));
        Segment::new(at, bytes)
    })
}

/// Loads and unloads the ring's maps in order, a flush for each `batch`.
fn ring<const N: usize>(name: &str, batch: usize, bytes: u64, params: &MapParams) {
    let Some(mut rig) = Rig::new(DmamapStrategy::Reserve, RING, params) else {
        println!("FAIL: {name}: no maps");
        return;
    };
    let mut segments = segments::<N>(bytes);
    let mut refused = 0_u32;
    meter::measure_net(name, batch as u64, Calls::REAL, Calls::IDLE, |calls, rounds| {
        let Calls { load, unload, flush } = core::hint::black_box(calls);
        let direction = core::hint::black_box(Direction::Both);
        let starts = (0..RING).step_by(batch).cycle();
        for (_, start) in (0..rounds).zip(starts) {
            let Rig { channel, handles, .. } = &mut rig;
            let handles = handles.get(start..start + batch).unwrap_or_default();
            for handle in handles {
                refused = refused.wrapping_add(u32::from(load(channel, *handle, direction, &mut segments).is_err()));
            }
            for handle in handles {
                refused = refused.wrapping_add(u32::from(unload(channel, *handle).is_err()));
            }
            flush(channel);
        }
    });
    if refused > 0 {
        println!("FAIL: {name}: {refused} refused");
    }
}

/// Counts a map's life.
pub fn run() {
    let packet = MapParams::new(3 * PAGE_SIZE, 3);
    for batch in [1, 16, 64] {
        let name = alloc::format!("load + unload, 3 pages, batch {batch}, reserve");
        ring::<3>(&name, batch, 1024, &packet);
    }
    ring::<1>("load + unload, 64 KiB", 16, 64 << 10, &MapParams::new(64 << 10, 1));
    let block = MapParams { align: 2 << 20, ..MapParams::new(2 << 20, 1) };
    ring::<1>("load + unload, 2 MiB block", 16, 2 << 20, &block);
    trace::run(&packet);
    commands::run(&packet);
    life::run(&packet);
}
