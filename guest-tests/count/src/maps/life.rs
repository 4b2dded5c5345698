//! Maps created and destroyed among many, and what they take of memory.

use bulkhead_core::bundle::DmamapStrategy;
use bulkhead_dma::map::{Channel, Handle, MapParams, Space};
use bulkhead_guest_tests::println;

use super::rig::{Rig, Tables, flush};
use crate::meter;

/// Maps that live meanwhile.
const LIVE: [usize; 2] = [256, 100_000];

/// Destroys a map and creates another.
type Renew = fn(&mut Space<'static>, &mut Channel<'static>, Handle, &MapParams, &mut Tables) -> Handle;

const REAL: Renew = |space, channel, handle, params, tables| {
    if space.destroy(channel, handle).is_ok()
        && let Ok(created) = space.create(channel, params, tables)
    {
        return created.handle;
    }
    handle
};

/// What the harness takes, with `TESTS` tests.
fn idle<const TESTS: usize>(
    _: &mut Space<'static>,
    _: &mut Channel<'static>,
    handle: Handle,
    _: &MapParams,
    _: &mut Tables,
) -> Handle {
    meter::test::<TESTS>(handle.as_u64());
    handle
}

/// Counts them.
pub fn run(params: &MapParams) {
    for live in LIVE {
        if renew(live, params).is_none() {
            println!("FAIL: {live} live maps");
        }
    }
}

fn renew(live: usize, params: &MapParams) -> Option<()> {
    let mut rig = Rig::new(DmamapStrategy::Reserve, live, params)?;
    let leased = u64::from(rig.space.leased_pages());
    let (leaves, _) = rig.space.leaf_tables();
    meter::figure(&alloc::format!("leaf-table slack, {live} live"), u64::from(leaves) * 512, leased);
    let pages_per_mib = 256;
    let name = alloc::format!("bytes of leaf table per leased MiB, {live} live");
    meter::figure(&name, u64::from(leaves) * 4096 * pages_per_mib, leased);
    let mut random = 1_u32;
    let name = alloc::format!("create + destroy, {live} live");
    meter::measure_inside(&name, 1, REAL, [idle::<1>, idle::<2>], |call, rounds| {
        let call = core::hint::black_box(call);
        for _ in 0..rounds {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let Rig { space, channel, tables, handles } = &mut rig;
            let Some(handle) = handles.get_mut(random as usize % live) else { continue };
            *handle = call(space, channel, *handle, params, tables);
        }
    });
    flush(&mut rig.channel);
    // Space is returned: what was leased at first is leased still, by as many tables.
    let is_same = u64::from(rig.space.leased_pages()) == leased && rig.space.leaf_tables() == (leaves, 0);
    is_same.then_some(())
}
