//! Both sides together: the guest's words, the hypervisor's decoder, naive maps behind it.

mod fake;

use bulkhead_bus_dma::{
    Buffers, Bus, Counter, Direction, Done, Error, Hypervisor, Loaded, Map, MapState, Ring, Segment, Span, SyncOp, Tag,
    abi,
};
use fake::{Fake, RAM, Vm};
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

type Buffer = &'static mut [u8];

/// Would miss: maps that a program uses although nobody is there who keeps them.
#[test]
fn attaches_to_this_hypervisor_alone() {
    struct Other([u64; 4]);
    impl Hypervisor for Other {
        fn call(&self, _: u32, _: &[u64; 6]) -> [u64; 4] {
            self.0
        }
        fn ipa(&self, _: usize) -> u64 {
            0
        }
    }
    let vm = Vm::new();
    assert_eq!(Bus::attach(Other([u64::MAX, 0, 0, 0]), vm.array).err(), Some(Error::NoBus));
    assert_eq!(Bus::attach(Other([0; 4]), vm.array).err(), Some(Error::NoBus));
    assert_eq!(Bus::attach(vm.fake, &vm.array[..191]).err(), Some(Error::Memory(1528, RAM)));
    assert_eq!(Bus::attach(Vm::of_version(0x2_0000), vm.array).err(), Some(Error::Version(0x2_0000)));
    assert!(Bus::attach(Vm::of_version(0x1_0005), vm.array).is_ok());
    let bus = vm.bus();
    assert_eq!(bus.limits().map(|limits| (limits.maps, limits.segments, limits.run)), Ok((64, 64, 128)));
    assert_eq!(bus.window().map(|window| window.page), Ok(4096));
}

/// Would miss: an IOVA that leads elsewhere than to its buffer, buffers that come back while a device reaches them.
#[test]
fn a_map_holds_its_buffers_while_it_is_loaded() {
    let mut vm = Vm::new();
    let bus = vm.bus();
    let buffers: [Buffer; 3] = [vm.cut(66), vm.cut(1448), vm.cut(5000)];
    let places = buffers.each_ref().map(|buffer| (vm.fake.ipa(buffer.as_ptr().addr()), buffer.len() as u64));
    let map = Map::create(&bus, 2, &Tag::new(8192, 3)).expect("created");
    assert_eq!(map.handle().channel(), 2);
    assert_eq!(map.lease_bytes(), (2 + 3 + 1) * 4096);
    let loaded = map.load(&bus, Direction::DeviceWrites, buffers).expect("loaded");
    assert_eq!(loaded.map().state(&bus), Ok(Some(MapState::Loaded)));
    assert_eq!(loaded.iova(), loaded.segments()[0].iova);
    for ((ipa, bytes), segment) in places.into_iter().zip(loaded.segments()) {
        assert_eq!((segment.ipa, segment.bytes), (ipa, bytes));
        for offset in [0, bytes - 1] {
            assert_eq!(vm.fake.model.reach(segment.iova + offset, true), Some(ipa + offset));
            assert_eq!(vm.fake.model.reach(segment.iova + offset, false), None);
        }
    }
    assert_eq!(loaded.sync(&bus, SyncOp::POSTREAD, 0, 6514), Ok(()));
    let (map, buffers) = loaded.unload(&bus).expect("unloaded");
    assert_eq!((vm.fake.model.reachable_pages(), buffers.map(|buffer| buffer.len())), (0, [66, 1448, 5000]));
    assert_eq!(map.state(&bus), Ok(Some(MapState::Created)));
    map.destroy(&bus).expect("destroyed");
    assert_eq!((bus.counter(Counter::Maps), bus.counter(Counter::LeasedBytes)), (Ok(0), Ok(0)));
}

/// Would miss: a refusal that swallows the map or the buffers, an error that has lost its name.
#[test]
fn refusals_return_what_was_given() {
    let mut vm = Vm::new();
    let bus = vm.bus();
    assert_eq!(Map::create(&bus, 8, &Tag::single(1)).err(), Some(Error::Call(abi::Error::NoChannel)));
    assert_eq!(Map::create(&bus, 0, &Tag::single(0)).err(), Some(Error::Call(abi::Error::Invalid)));
    assert_eq!(Map::create(&bus, 0, &Tag::single(1).limit(0x1000)).err(), Some(Error::Call(abi::Error::NoSpace)));
    let map = Map::create(&bus, 0, &Tag::new(64, 2)).expect("created");
    let refused = map.load(&bus, Direction::Both, vm.cut(3 * 4096 + 1)).expect_err("too long");
    assert_eq!(refused.error, Error::Call(abi::Error::TooLong));
    assert_eq!(refused.to_string(), "longer than the map");
    let (map, buffer) = refused.given;
    assert_eq!(buffer.len(), 3 * 4096 + 1);
    let constant: &'static [u8] = b"constant";
    let refused = map.load(&bus, Direction::DeviceWrites, constant).expect_err("not to be written");
    assert_eq!(refused.error, Error::ReadOnly);
    let (map, _) = refused.given;
    let five = [Span { ipa: RAM, bytes: 1 }; 5];
    let refused = map.load(&bus, Direction::Both, five).expect_err("five");
    assert_eq!(refused.error, Error::Segments(5, 4));
    let refused = refused.given.0.load(&bus, Direction::Both, None::<Span>).expect_err("none");
    assert_eq!(refused.error, Error::Segments(0, 4));
    let outside = Span { ipa: 0x0900_0000, bytes: 64 };
    let refused = refused.given.0.load(&bus, Direction::Both, outside).expect_err("the UART");
    assert_eq!((refused.error, refused.given.1), (Error::Call(abi::Error::NotRam), outside));
    let loaded = refused.given.0.load(&bus, Direction::Both, (vm.cut(8), vm.cut(8))).expect("loaded");
    vm.fake.model.set_stuck(true);
    let refused = loaded.unload(&bus).expect_err("no flush");
    assert_eq!(refused.error, Error::Call(abi::Error::Quarantined));
    assert_eq!(refused.given.segments().len(), 2);
}

/// Would miss: constraints that do not arrive.
#[test]
fn tags_constrain_leases() {
    let vm = Vm::new();
    let bus = vm.bus();
    let _small = Map::create(&bus, 0, &Tag::single(1)).expect("created");
    let aligned = Map::create(&bus, 0, &Tag::single(4096).alignment(1 << 21).bits32()).expect("created");
    assert_eq!((aligned.base() % (1 << 21), aligned.base() >> 32), (0, 0));
    let bounded = Map::create(&bus, 0, &Tag::single(8192).boundary(1 << 14)).expect("created");
    assert_eq!(bounded.base() >> 14, (bounded.base() + bounded.lease_bytes() - 1) >> 14);
}

/// Would miss: a load of more segments than a ring entry has.
#[test]
fn raw_loads_take_many_segments() {
    let vm = Vm::new();
    let bus = vm.bus();
    let map = Map::create(&bus, 0, &Tag::new(64 * 4096, 64)).expect("created");
    let mut segments: Vec<_> = (0..64).map(|n| Segment { ipa: RAM + n * 0x1100, bytes: 0x200, iova: 0 }).collect();
    let loaded = map.load_raw(&bus, Direction::DeviceReads, &mut segments).expect("loaded");
    for segment in &segments {
        assert_eq!(vm.fake.model.reach(segment.iova, false), Some(segment.ipa));
    }
    loaded.destroy(&bus).expect("destroyed");
    let map = Map::create(&bus, 0, &Tag::new(64 * 4096, 64)).expect("created");
    let mut too_many = vec![Segment { ipa: RAM, bytes: 1, iova: 0 }; 65];
    assert_eq!(map.load_raw(&bus, Direction::Both, &mut too_many).expect_err("65").error, Error::Segments(65, 64));
}

fn create<const N: usize>(bus: &Bus<'_, &Fake>) -> [Map; N] {
    std::array::from_fn(|_| Map::create(bus, 1, &Tag::new(4096, 2)).expect("created"))
}

/// Would miss: a batch that takes more than one call, an outcome that is another entry's.
#[test]
fn a_ring_loads_and_unloads_with_one_call() {
    let mut vm = Vm::new();
    let bus = vm.bus();
    let mut ring: Ring<Buffer, 16> = Ring::setup(&bus, 1, vm.ring).expect("a ring");
    for round in 0..40 {
        for map in create::<16>(&bus) {
            let span = if round == 0 { vm.cut(100) } else { vm.cut(0) };
            if let Err(refused) = ring.load(&bus, map, Direction::Both, span) {
                panic!("{:?}", refused.error);
            }
        }
        let calls = ring.run(&bus).expect("run");
        assert_eq!((calls.consumed, calls.left), (16, 0));
        let mut loaded = Vec::new();
        while let Some(done) = ring.take() {
            match done {
                Done::Loaded(map) => loaded.push(map),
                // Buffers of no length are refused, each in its place.
                Done::NotLoaded(map, _, error) => {
                    assert_eq!((round > 0, error), (true, Error::Call(abi::Error::BadSegment)));
                    map.destroy(&bus).expect("destroyed");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(loaded.len(), if round == 0 { 16 } else { 0 });
        for map in &loaded {
            let segment = map.segments()[0];
            assert_eq!(vm.fake.model.reach(segment.iova + 99, true), Some(segment.ipa + 99));
        }
        let syncs = bus.counter(Counter::Syncs).expect("a counter");
        for map in loaded {
            ring.unload(map).expect("room");
        }
        ring.run(&bus).expect("run");
        if round == 0 {
            assert_eq!(bus.counter(Counter::Syncs), Ok(syncs + 1));
        }
        assert_eq!(vm.fake.model.reachable_pages(), 0);
        while let Some(Done::Unloaded(map, buffer)) = ring.take() {
            assert_eq!(buffer.len(), 100);
            map.destroy(&bus).expect("destroyed");
        }
        assert_eq!((ring.free(), ring.done(), ring.pending()), (16, 0, 0));
    }
    ring.remove(&bus).expect("removed");
}

/// Would miss: an entry overwritten before it is taken, a map on another channel's ring, a busy channel that loses a batch.
#[test]
fn a_ring_refuses_what_it_cannot_hold() {
    let mut vm = Vm::new();
    let bus = vm.bus();
    assert!(matches!(Ring::<Buffer, 4>::setup(&bus, 1, &vm.ring[..95]), Err(Error::Memory(760, _))));
    assert!(matches!(Ring::<Buffer, 4>::setup(&bus, 1, &vm.ring[1..]), Err(Error::Call(abi::Error::BadAddress))));
    let mut ring: Ring<Buffer, 4> = Ring::setup(&bus, 1, vm.ring).expect("a ring");
    let [a, b, c, d, e] = create(&bus);
    for map in [a, b, c, d] {
        ring.load(&bus, map, Direction::Both, vm.cut(1)).expect("room");
    }
    let refused = ring.load(&bus, e, Direction::Both, vm.cut(1)).expect_err("full");
    assert_eq!((refused.error, ring.free(), ring.pending()), (Error::Full, 0, 4));
    vm.fake.model.set_claimed(1, true);
    assert_eq!(ring.run(&bus), Err(Error::Call(abi::Error::Busy)));
    vm.fake.model.set_claimed(1, false);
    assert_eq!((ring.take(), ring.pending()), (None, 4));
    assert_eq!(ring.run(&bus).map(|run| run.consumed), Ok(4));
    let (e, buffer) = refused.given;
    let refused = ring.load(&bus, e, Direction::Both, buffer).expect_err("not taken yet");
    assert_eq!((refused.error, ring.done()), (Error::Full, 4));
    assert!(matches!(ring.take(), Some(Done::Loaded(_))));
    ring.load(&bus, refused.given.0, Direction::Both, refused.given.1).expect("room");
    let other = Map::create(&bus, 3, &Tag::single(1)).expect("created");
    let refused = ring.load(&bus, other, Direction::Both, vm.cut(1)).expect_err("another channel");
    assert_eq!(refused.error, Error::Channel(3, 1));
}

/// Would miss: an unload that is called done although its flush was not confirmed.
#[test]
fn a_ring_tells_of_quarantine() {
    let mut vm = Vm::new();
    let bus = vm.bus();
    let mut ring: Ring<Buffer, 2> = Ring::setup(&bus, 1, vm.ring).expect("a ring");
    let [map] = create(&bus);
    let loaded = map.load(&bus, Direction::Both, vm.cut(10)).expect("loaded");
    vm.fake.model.set_stuck(true);
    ring.unload(loaded).expect("room");
    assert_eq!(ring.run(&bus).map(|run| run.failed), Ok(1));
    let done = ring.take();
    assert!(matches!(done, Some(Done::NotUnloaded(_, Error::Call(abi::Error::Quarantined)))), "{done:?}");
}

/// What a driver does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Load(u64, u64),
    Unload(usize),
    Run,
    Call(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..0x1000u64, 0..0x1800u64).prop_map(|(at, bytes)| Step::Load(at, bytes)),
        3 => any::<usize>().prop_map(Step::Unload),
        1 => Just(Step::Run),
        1 => (0..0x1000u64).prop_map(Step::Call),
    ];
    proptest::collection::vec(step, 0..120)
}

/// Every segment leads to its buffer, and pages are reachable through loaded maps alone.
fn check(vm: &Vm, loaded: &[Loaded<Span>]) {
    for segment in loaded.iter().flat_map(Loaded::segments) {
        for offset in [0, segment.bytes - 1] {
            assert_eq!(vm.fake.model.reach(segment.iova + offset, true), Some(segment.ipa + offset));
        }
    }
}

proptest! {
    /// Would miss: an order of loads and unloads, by ring and by call, after which something is reachable that should not be.
    #[test]
    fn any_driver_agrees_with_the_hypervisor(steps in steps()) {
        let vm = Vm::new();
        let bus = vm.bus();
        let mut ring: Ring<Span, 8> = Ring::setup(&bus, 1, vm.ring).expect("a ring");
        let mut created: Vec<Map> = create::<12>(&bus).into();
        let mut loaded: Vec<Loaded<Span>> = Vec::new();
        for step in steps.into_iter().chain([Step::Run]) {
            match step {
                Step::Load(at, bytes) => {
                    let Some(map) = created.pop() else { continue };
                    let span = Span { ipa: RAM + 0x10_0000 + at, bytes };
                    if let Err(refused) = ring.load(&bus, map, Direction::Both, span) {
                        assert_eq!(refused.error, Error::Full);
                        created.push(refused.given.0);
                    }
                }
                Step::Unload(which) => {
                    if loaded.is_empty() {
                        continue;
                    }
                    let map = loaded.swap_remove(which % loaded.len());
                    if let Err(refused) = ring.unload(map) {
                        assert_eq!(refused.error, Error::Full);
                        loaded.push(refused.given);
                    }
                }
                Step::Run => {
                    ring.run(&bus).expect("run");
                    while let Some(done) = ring.take() {
                        match done {
                            Done::Loaded(map) => loaded.push(map),
                            Done::Unloaded(map, _) => created.push(map),
                            Done::NotLoaded(map, span, error) => {
                                let expected = if span.bytes == 0 { abi::Error::BadSegment } else { abi::Error::TooLong };
                                assert_eq!(error, Error::Call(expected));
                                created.push(map);
                            }
                            Done::NotUnloaded(_, error) => panic!("{error}"),
                        }
                    }
                    let pages = |segment: &Segment| (segment.ipa % 4096 + segment.bytes).div_ceil(4096);
                    let expected: u64 = loaded.iter().flat_map(Loaded::segments).map(pages).sum();
                    assert_eq!(vm.fake.model.reachable_pages() as u64, expected);
                }
                Step::Call(at) => {
                    if let Some(map) = loaded.pop() {
                        created.push(map.unload(&bus).expect("unloaded").0);
                    } else if let Some(map) = created.pop() {
                        let span = Span { ipa: RAM + at, bytes: 1 + at };
                        loaded.push(map.load(&bus, Direction::Both, span).expect("loaded"));
                    }
                }
            }
            check(&vm, &loaded);
        }
    }
}

const _: () = assert!(<Buffer as Buffers>::IS_WRITABLE && !<&'static [u8] as Buffers>::IS_WRITABLE);
