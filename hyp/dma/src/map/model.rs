//! Two CPUs, two channels, one leaf table: every interleaving of their stores, by loom.

use std::{boxed::Box, vec, vec::Vec};

use bulkhead_core::{
    addr::{AddrRange, Ipa, PhysAddr},
    bundle::DmamapStrategy,
    ids::{SmmuId, Vmid},
};
use loom::{
    sync::{Arc, Mutex},
    thread,
};

use super::{
    Channel, ChannelStorage, Direction, Handle, LoadError, MapParams, Piece, Record, Segment, Space, SpaceConfig,
    SpaceStorage,
};
use crate::{
    flush::{Batch, Invalidate, Scope, SyncWitness, Work, retire},
    iova::{Node, nodes_for},
    tree::{Entry, Region, Table, TableSource},
};

const RAM: u64 = 0x20_0000;
const PHYS: u64 = 0x4560_0000;
const VMID: Vmid = Vmid::new(3).expect("not zero");

/// Tables that are zero from the start, and are not used twice.
#[derive(Default)]
struct Pool(Vec<&'static [Entry; 512]>);

impl TableSource<'static> for Pool {
    fn take(&mut self) -> Option<Table<'static>> {
        // Not by way of the stack: a model's threads have little.
        let entries: Box<[Entry]> = (0..512).map(|_| Entry::new(0)).collect();
        let entries: &'static [Entry; 512] = Box::leak(entries).as_array()?;
        self.0.push(entries);
        Some(Table { entries, phys: PhysAddr::new(self.0.len() as u64 * 4096) })
    }
    fn give(&mut self, _: Table<'static>) {}
}

/// An SMMU that is always done.
struct Smmu;

impl SyncWitness for Smmu {
    fn smmu(&self) -> SmmuId {
        SmmuId(0)
    }
    fn vmid(&self) -> Vmid {
        VMID
    }
}

impl Invalidate for Smmu {
    type Ticket = ();
    type Witness = Self;
    type Error = ();
    fn submit(&mut self, _: &Work<'_>) -> Result<(), ()> {
        Ok(())
    }
    fn wait(&mut self, (): ()) -> Result<Self, ()> {
        Ok(Self)
    }
}

struct Vm {
    space: Space<'static>,
    pool: Pool,
}

impl Vm {
    fn new(strategy: DmamapStrategy) -> (Self, [Channel<'static>; 2]) {
        let mut pool = Pool::default();
        let config = SpaceConfig {
            strategy,
            ram: AddrRange::new(Ipa::new(RAM), 0x20_0000).expect("ram"),
            phys: PhysAddr::new(PHYS),
            input_bits: 39,
            output_bits: 44,
            vmid: VMID,
            maps: 8,
            leaf_tables: 8,
            reserved: &[],
        };
        let storage = SpaceStorage {
            nodes: vec![Node::EMPTY; nodes_for(8, 2)].leak(),
            regions: vec![Region::EMPTY; 2].leak(),
            bits: &mut [],
        };
        let space = Space::new(&config, storage, &mut pool).expect("a space");
        let channels = [0, 1].map(|number| {
            let records = (0..4).map(|_| Record::empty()).collect::<Vec<_>>().leak();
            let pieces = (0..8).map(|_| Piece::EMPTY).collect::<Vec<_>>().leak();
            Channel::new(number, ChannelStorage { records, pieces }, &space, Batch::new(VMID, [SmmuId(0)], true))
        });
        (Self { space, pool }, channels)
    }

    /// Entries of the leaf table of the first region that has one.
    fn leaf(&self) -> &'static [Entry; 512] {
        self.pool.0.last().expect("a leaf table")
    }
}

fn load(
    vm: &Mutex<Vm>,
    channel: &mut Channel<'static>,
    handle: Handle,
    segments: &mut [Segment],
) -> Result<u32, LoadError> {
    match channel.load(handle, Direction::Both, segments) {
        Err(LoadError::NeedsSpace) => {
            let vm = &mut *vm.lock().expect("the lock");
            vm.space.load(channel, handle, Direction::Both, segments, &mut vm.pool)
        }
        done => done,
    }
}

/// The SMMU did what a batch asked for.
fn settle(channel: &mut Channel<'static>) {
    let work = channel.batch_mut().close(Scope::Context);
    let epoch = retire(work, &mut [Smmu]).expect("an SMMU that works");
    channel.batch_mut().accept(&epoch).expect("in order");
}

/// Every interleaving of the threads of `run`.
fn model(run: fn()) {
    loom::model(move || spawn(run).join().expect("a thread"));
}

/// A thread with room for a space on its stack.
fn spawn<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::Builder::new().stack_size(1 << 16).spawn(run).expect("a thread")
}

/// Would miss: a load or an unload that touches a neighbour's entry, a create that clears a table in use, a walk that
/// finds anything but nothing and the map's own page.
#[test]
fn neighbours_load_while_others_are_created_and_destroyed() {
    model(|| {
        let (mut vm, [mut one, mut two]) = Vm::new(DmamapStrategy::Reserve);
        let params = MapParams::new(4096, 1);
        let a = vm.space.create(&mut one, &params, &mut vm.pool).expect("room").handle;
        let leaf = vm.leaf();
        let vm = Arc::new(Mutex::new(vm));
        let other = vm.clone();
        let neighbour = spawn(move || {
            let b = {
                let vm = &mut *other.lock().expect("the lock");
                vm.space.create(&mut two, &params, &mut vm.pool).expect("room").handle
            };
            let mut segments = [Segment::new(Ipa::new(RAM + 0x3000), 4096)];
            load(&other, &mut two, b, &mut segments).expect("fits");
            let at = usize::try_from(segments[0].iova.as_u64() / 4096).expect("small");
            let reached = leaf[at].load();
            assert_eq!(reached & 0xffff_f000, PHYS + 0x3000);
            other.lock().expect("the lock").space.destroy(&mut two, b).expect("a map");
            assert_eq!(leaf[at].load(), 0);
        });
        let walker = spawn(move || {
            // Page 1 is map a's first.
            let seen = leaf[1].load();
            assert!(seen == 0 || seen & 0xffff_f000 == PHYS + 0x5000, "{seen:#x}");
        });
        let mut segments = [Segment::new(Ipa::new(RAM + 0x5000), 4096)];
        load(&vm, &mut one, a, &mut segments).expect("fits");
        assert_eq!(segments[0].iova.as_u64(), 0x1000);
        assert_eq!(leaf[1].load() & 0xffff_f000, PHYS + 0x5000);
        one.unload(a).expect("a map");
        assert_eq!(leaf[1].load(), 0);
        neighbour.join().expect("the other CPU");
        walker.join().expect("the SMMU");
        assert!(leaf[..8].iter().all(|entry| entry.load() == 0));
    });
}

/// Would miss: a user of a shared entry that is lost, or counted twice; an entry that is free before its flush.
#[test]
fn two_channels_share_an_address() {
    model(|| {
        let (mut vm, [mut one, mut two]) = Vm::new(DmamapStrategy::OneToOne);
        let params = MapParams::new(4096, 1);
        let a = vm.space.create(&mut one, &params, &mut vm.pool).expect("room").handle;
        let b = vm.space.create(&mut two, &params, &mut vm.pool).expect("room").handle;
        let vm = Arc::new(Mutex::new(vm));
        let page = Segment::new(Ipa::new(RAM + 0x5000), 4096);
        load(&vm, &mut one, a, &mut [page]).expect("fits");
        let leaf = vm.lock().expect("the lock").leaf();
        let other = vm.clone();
        let second = spawn(move || {
            let mut segments = [page];
            load(&other, &mut two, b, &mut segments).expect("fits, there or elsewhere");
            let is_shared = segments[0].iova.as_u64() == page.ipa.as_u64();
            if is_shared {
                assert_eq!(leaf[5].load() & 1, 1, "mapped while it is loaded");
            }
            two.unload(b).expect("a map");
            (two, is_shared)
        });
        one.unload(a).expect("a map");
        let (mut two, is_shared) = second.join().expect("the other CPU");
        let left = leaf[5].load();
        assert!(left != 0 && left & 1 == 0, "marked until the flush: {left:#x}");
        let vm = &mut *vm.lock().expect("the lock");
        let mut channels = [&mut one, &mut two];
        // Whoever left last has to flush before the mark goes.
        for channel in &mut channels {
            settle(channel);
            vm.space.reap(channel, &mut vm.pool);
        }
        assert_eq!(leaf[5].load(), 0, "shared: {is_shared}");
    });
}

/// Would miss: an access flag that the SMMU sets while an unload takes the leaf out and that does not count, or a leaf
/// that is there again after it.
#[test]
fn an_access_flag_is_set_while_a_sampled_map_is_unloaded() {
    model(|| {
        let (mut vm, [mut one, _]) = Vm::new(DmamapStrategy::Reserve);
        one.sample();
        let a = vm.space.create(&mut one, &MapParams::new(4096, 1), &mut vm.pool).expect("room").handle;
        let leaf = vm.leaf();
        one.load(a, Direction::Both, &mut [Segment::new(Ipa::new(RAM + 0x5000), 4096)]).expect("fits");
        // Page 1 is its first.
        let smmu = spawn(move || {
            let seen = leaf[1].load();
            seen & 1 != 0 && leaf[1].replace(seen, seen | 1 << 10).is_ok()
        });
        one.unload(a).expect("a map");
        let was_set = smmu.join().expect("the SMMU");
        assert_eq!(leaf[1].load(), 0);
        let counters = one.counters();
        assert_eq!((counters.sampled, counters.touched), (1, was_set.into()));
    });
}
