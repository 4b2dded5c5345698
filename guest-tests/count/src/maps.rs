//! Maps: loaded and unloaded in ring order, a batch's flush included, by each strategy; created and destroyed.

use alloc::{boxed::Box, vec, vec::Vec};

use bulkhead_core::{
    addr::{AddrRange, Ipa, PAGE_SIZE, PhysAddr},
    bundle::DmamapStrategy,
    ids::{SmmuId, Vmid},
};
use bulkhead_dma::{
    flush::{Batch, Invalidate, Scope, SyncWitness, Work, retire},
    iova::{Node, nodes_for},
    map::{
        Channel, ChannelStorage, Direction, Handle, MapParams, Piece, Record, Segment, Space, SpaceConfig, SpaceStorage,
    },
    tree::{Entry, Region, Table, TableSource},
};
use bulkhead_guest_tests::println;

use crate::meter;

/// The strategies, the product first.
const STRATEGIES: [(&str, DmamapStrategy); 6] = [
    ("reserve", DmamapStrategy::Reserve),
    ("magazine", DmamapStrategy::Magazine),
    ("one-to-one", DmamapStrategy::OneToOne),
    ("bitmap", DmamapStrategy::Bitmap),
    ("per-load", DmamapStrategy::PerLoad),
    ("per-segment", DmamapStrategy::PerSegment),
];
/// Maps of the ring.
const RING: usize = 256;
/// Unloads for one flush.
const BATCH: usize = 16;
const RAM: u64 = 1 << 30;
const RAM_BYTES: u64 = 256 << 20;

/// A pool of tables, addresses made up: no SMMU walks them.
struct Tables {
    pool: Vec<Table<'static>>,
    next: u64,
}

impl TableSource<'static> for Tables {
    fn take(&mut self) -> Option<Table<'static>> {
        if let Some(table) = self.pool.pop() {
            return Some(table);
        }
        self.next += PAGE_SIZE;
        let entries: &'static [Entry; 512] = Box::leak(Box::new([const { Entry::new(0) }; 512]));
        Some(Table { entries, phys: PhysAddr::new(self.next) })
    }
    fn give(&mut self, table: Table<'static>) {
        self.pool.push(table);
    }
}

/// An SMMU that is always done: what is counted is the share of this side.
struct Done;
struct Proof(Vmid);

impl SyncWitness for Proof {
    fn smmu(&self) -> SmmuId {
        SmmuId(0)
    }
    fn vmid(&self) -> Vmid {
        self.0
    }
}

impl Invalidate for Done {
    type Ticket = Vmid;
    type Witness = Proof;
    type Error = core::convert::Infallible;

    fn submit(&mut self, work: &Work<'_>) -> Result<Vmid, Self::Error> {
        core::hint::black_box(work.single());
        Ok(work.vmid())
    }
    fn wait(&mut self, ticket: Vmid) -> Result<Proof, Self::Error> {
        Ok(Proof(ticket))
    }
}

/// A space, a channel and its maps.
struct Rig {
    space: Space<'static>,
    channel: Channel<'static>,
    tables: Tables,
    handles: Vec<Handle>,
}

impl Rig {
    fn new(strategy: DmamapStrategy, maps: usize, params: &MapParams) -> Option<Self> {
        let mut tables = Tables { pool: Vec::with_capacity(4096), next: 1 << 32 };
        let vmid = Vmid::new(1)?;
        let config = SpaceConfig {
            strategy,
            ram: AddrRange::new(Ipa::new(RAM), RAM_BYTES)?,
            phys: PhysAddr::new(1 << 31),
            input_bits: 39,
            output_bits: 44,
            vmid,
            maps: u32::try_from(maps + 1).ok()?,
            leaf_tables: u32::MAX,
            reserved: &[],
        };
        let storage = SpaceStorage {
            nodes: Vec::leak(vec![Node::EMPTY; nodes_for(maps * 3 + 64, 4)]),
            regions: Vec::leak((0..4096).map(|_| Region::EMPTY).collect()),
            bits: Vec::leak(vec![0; 4096 * 512 / 16 / 64]),
        };
        let space = Space::new(&config, storage, &mut tables).ok()?;
        let records = Vec::leak((0..maps + 1).map(|_| Record::EMPTY).collect());
        let pieces = Vec::leak((0..maps * 4 + 64).map(|_| Piece::EMPTY).collect());
        let batch = Batch::new(vmid, [SmmuId(0)], true);
        let channel = Channel::new(0, ChannelStorage { records, pieces }, &space, batch);
        let mut rig = Self { space, channel, tables, handles: Vec::with_capacity(maps) };
        for _ in 0..maps {
            rig.handles.push(rig.space.create(&mut rig.channel, params, &mut rig.tables).ok()?.handle);
        }
        Some(rig)
    }

    fn flush(&mut self) {
        flush(&mut self.channel);
    }
}

#[inline]
fn flush(channel: &mut Channel<'_>) {
    let batch = channel.batch_mut();
    if let Ok(epoch) = retire(batch.close(Scope::Range), &mut [Done]) {
        core::hint::black_box(batch.accept(&epoch).is_ok());
    }
}

fn segments<const N: usize>(bytes: u64) -> [Segment; N] {
    core::array::from_fn(|at| {
        Segment::new(Ipa::new(RAM + (at as u64 * 7 + 1) * bytes.next_multiple_of(PAGE_SIZE)), bytes)
    })
}

/// Loads and unloads the ring's maps in order, a flush for each batch.
fn ring<const N: usize>(name: &str, strategy: DmamapStrategy, bytes: u64, params: MapParams) {
    let Some(mut rig) = Rig::new(strategy, RING, &params) else {
        println!("FAIL: {name}: no maps");
        return;
    };
    let mut segments = segments::<N>(bytes);
    let mut refused = 0_u32;
    let leases = strategy != DmamapStrategy::Reserve;
    meter::measure(name, BATCH as u64, |rounds| {
        for round in 0..rounds {
            let start = (round as usize * BATCH) % RING;
            let Rig { space, channel, tables, handles } = &mut rig;
            let handles = handles.get(start..start + BATCH).unwrap_or_default();
            for handle in handles {
                let loaded = if leases {
                    space.load(channel, *handle, Direction::Both, &mut segments, tables).is_ok()
                } else {
                    channel.load(*handle, Direction::Both, &mut segments).is_ok()
                };
                refused += u32::from(!loaded);
            }
            for handle in handles {
                refused += u32::from(channel.unload(*handle).is_err());
            }
            flush(channel);
            if leases {
                space.reap(channel, tables);
            }
        }
    });
    if refused > 0 {
        println!("FAIL: {name}: {refused} refused");
    }
}

/// Counts a map's life.
pub fn run() {
    let packet = MapParams::new(3 * PAGE_SIZE, 3);
    parts(&packet);
    for (name, strategy) in STRATEGIES {
        let title = alloc::format!("load + unload, 3 pages, batch 16, {name}");
        ring::<3>(&title, strategy, 1024, packet);
    }
    ring::<1>("load + unload, 64 KiB", DmamapStrategy::Reserve, 64 << 10, MapParams::new(64 << 10, 1));
    let block = MapParams { align: 2 << 20, ..MapParams::new(2 << 20, 1) };
    ring::<1>("load + unload, 2 MiB block", DmamapStrategy::Reserve, 2 << 20, block);
    for (name, live) in [("create + destroy, 256 live", 256), ("create + destroy, 100000 live", 100_000)] {
        create_destroy(name, live, &packet);
    }
}

/// What a batch of the product is made of.
fn parts(params: &MapParams) {
    let Some(mut rig) = Rig::new(DmamapStrategy::Reserve, RING, params) else { return };
    let mut segments = segments::<3>(1024);
    for (name, loads, flushes) in
        [("part: flush of an empty batch", 0, 1), ("part: flush of one map", 1, 1), ("part: flush of 16 maps", 16, 1)]
    {
        meter::measure(name, 1, |rounds| {
            for _ in 0..rounds {
                let Rig { channel, handles, .. } = &mut rig;
                for handle in handles.iter().take(loads) {
                    core::hint::black_box(channel.load(*handle, Direction::Both, &mut segments).is_ok());
                    core::hint::black_box(channel.unload(*handle).is_ok());
                }
                for _ in 0..flushes {
                    flush(channel);
                }
            }
        });
    }
    let Rig { channel, handles, .. } = &mut rig;
    let Some(handle) = handles.first() else { return };
    meter::measure("part: unload of an unloaded map", 1, |rounds| {
        for _ in 0..rounds {
            core::hint::black_box(channel.unload(*handle).is_ok());
        }
    });
}

fn create_destroy(name: &str, live: usize, params: &MapParams) {
    let Some(mut rig) = Rig::new(DmamapStrategy::Reserve, live, params) else {
        println!("FAIL: {name}: no maps");
        return;
    };
    let pages = rig.space.leased_pages();
    let (tables, _) = rig.space.leaf_tables();
    println!("memory {name}: leaf tables {tables}, slack {}/100", u64::from(tables) * 512 * 100 / u64::from(pages));
    let mut random = 1_u32;
    meter::measure(name, 1, |rounds| {
        for _ in 0..rounds {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let Rig { space, channel, tables, handles } = &mut rig;
            let Some(handle) = handles.get_mut(random as usize % live) else { continue };
            core::hint::black_box(space.destroy(channel, *handle).is_ok());
            if let Ok(created) = space.create(channel, params, tables) {
                *handle = created.handle;
            }
        }
    });
    rig.flush();
}
