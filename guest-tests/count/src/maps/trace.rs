//! All strategies on one trace: a NIC's, with receive maps that stay loaded, and sends of three segments in FIFO order.

use alloc::vec::Vec;

use bulkhead_core::{
    addr::{Ipa, PAGE_SIZE},
    bundle::DmamapStrategy,
};
use bulkhead_dma::map::{Channel, Direction, Handle, MapParams, Segment, Space};
use bulkhead_guest_tests::println;

use super::rig::{RAM, Rig, Tables, flush};
use crate::meter::{self, test};

/// The strategies, the product first.
const STRATEGIES: [(&str, DmamapStrategy); 6] = [
    ("reserve", DmamapStrategy::Reserve),
    ("magazine", DmamapStrategy::Magazine),
    ("one-to-one", DmamapStrategy::OneToOne),
    ("bitmap", DmamapStrategy::Bitmap),
    ("per-load", DmamapStrategy::PerLoad),
    ("per-segment", DmamapStrategy::PerSegment),
];
/// Maps of the send ring.
const RING: usize = 256;
/// Packets that the NIC has at a time: the oldest are unloaded for as many new ones.
const IN_FLIGHT: usize = 64;
/// Loads, then unloads, for one flush.
const BATCH: usize = 16;
/// Receive buffers of a page each, loaded before the trace and to its end.
const RECEIVE: usize = 64;
/// Packets of the trace, then it begins again.
const PACKETS: usize = 1024;

/// A packet's segments: a header in an mbuf, and its payload in two clusters of 2 KiB.
type Packet = [Segment; 3];

fn packets() -> Vec<Packet> {
    const HEADERS: u64 = RAM + (4 << 20);
    const CLUSTERS: u64 = RAM + (8 << 20);
    let mut random = 1_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut packet = || {
        let header = HEADERS + next(1024) * 256 + 64;
        let [first, second] = [next(2048), next(2048)].map(|cluster| CLUSTERS + cluster * 2048);
        let segment = |ipa, bytes| Segment::new(Ipa::new(ipa), bytes);
        [segment(header, 66), segment(first, 724), segment(second, 724)]
    };
    (0..PACKETS).map(|_| packet()).collect()
}

/// What a round calls: see [`Calls`](super::Calls).
#[derive(Clone, Copy)]
struct Calls {
    load: fn(&mut Space<'static>, &mut Channel<'static>, Handle, &mut [Segment], &mut Tables) -> bool,
    unload: fn(&mut Channel<'static>, Handle) -> bool,
    flush: fn(&mut Space<'static>, &mut Channel<'static>, Handle, &mut Tables),
}

const REAL: Calls = Calls {
    load: |space, channel, handle, segments, tables| {
        space.load(channel, handle, Direction::DeviceReads, segments, tables).is_ok()
    },
    unload: |channel, handle| channel.unload(handle).is_ok(),
    flush: |space, channel, _, tables| {
        flush(channel);
        if channel.has_retired() || space.has_retired_tables() {
            space.reap(channel, tables);
        }
    },
};

/// What the harness takes, with `TESTS` tests in each.
const fn idle<const TESTS: usize>() -> Calls {
    Calls {
        load: |_, _, handle, _, _| {
            test::<TESTS>(handle.as_u64());
            true
        },
        unload: |_, handle| {
            test::<TESTS>(handle.as_u64());
            true
        },
        flush: |_, _, handle, _| test::<TESTS>(handle.as_u64()),
    }
}

/// Counts a packet's way by each strategy.
pub fn run(params: &MapParams) {
    let packets = packets();
    for (name, strategy) in STRATEGIES {
        if strategy_on(name, strategy, params, &packets).is_none() {
            println!("FAIL: trace, {name}: refused");
        }
    }
}

fn strategy_on(name: &str, strategy: DmamapStrategy, params: &MapParams, packets: &[Packet]) -> Option<()> {
    let mut rig = Rig::new(strategy, RING + RECEIVE, params)?;
    for (place, handle) in (0..).zip(rig.handles.split_off(RING)) {
        let mut buffer = [Segment::new(Ipa::new(RAM + place * PAGE_SIZE), PAGE_SIZE)];
        rig.space.load(&mut rig.channel, handle, Direction::DeviceWrites, &mut buffer, &mut rig.tables).ok()?;
    }
    let Rig { space, channel, tables, handles } = &mut rig;
    let (mut sent, mut refused) = (0_usize, 0_u32);
    let mut round = |calls: Calls, loads: usize, unloads: usize| {
        let Calls { load, unload, flush } = calls;
        for at in sent..sent + loads {
            let (Some(handle), Some(packet)) = (handles.get(at % RING), packets.get(at % PACKETS)) else { break };
            let mut segments = *packet;
            refused = refused.wrapping_add(u32::from(!load(space, channel, *handle, &mut segments, tables)));
        }
        sent = sent.wrapping_add(loads);
        for at in sent - IN_FLIGHT - unloads..sent - IN_FLIGHT {
            let Some(handle) = handles.get(at % RING) else { break };
            refused = refused.wrapping_add(u32::from(!unload(channel, *handle)));
        }
        if let [first, ..] = handles.as_slice() {
            flush(space, channel, *first, tables);
        }
    };
    round(REAL, IN_FLIGHT, 0);
    let title = alloc::format!("trace, {name}");
    meter::measure_inside(&title, BATCH as u64, REAL, [idle::<1>(), idle::<2>()], |calls, rounds| {
        let calls = core::hint::black_box(calls);
        for _ in 0..rounds {
            round(calls, BATCH, BATCH);
        }
    });
    (refused == 0).then_some(())
}
