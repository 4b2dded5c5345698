//! Random histories of two channels, with a device that touches every page as soon as it is loaded.

use std::{collections::BTreeSet, vec, vec::Vec};

use bulkhead_core::bundle::DmamapStrategy;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

use super::{
    STRATEGIES,
    harness::{Machine, PHYS, RAM, segment},
};
use crate::map::{Direction, Handle, LoadError, MapParams, Segment};

#[derive(Clone, Debug)]
enum Step {
    Create(u64, u32, bool),
    Load(Vec<(u64, u64)>, u8),
    Unload,
    Sync,
    Destroy,
}

fn step() -> impl Strategy<Value = Step> {
    let segments = proptest::collection::vec((0u64..0x1_0000, 1u64..0x2800), 1..6);
    proptest::prop_oneof![
        2 => (1u64..0x8000, 1u32..6, any::<bool>()).prop_map(|(size, segments, is_low)| Step::Create(size, segments, is_low)),
        5 => (segments, 0u8..3).prop_map(|(segments, direction)| Step::Load(segments, direction)),
        4 => proptest::strategy::Just(Step::Unload),
        2 => proptest::strategy::Just(Step::Sync),
        1 => proptest::strategy::Just(Step::Destroy),
    ]
}

struct Model {
    handle: Handle,
    loaded: Option<(Vec<Segment>, Direction)>,
}

fn pages(segment: &Segment) -> impl Iterator<Item = (u64, u64)> {
    let (first, last) = (segment.iova.as_u64() / 4096, (segment.iova.as_u64() + segment.bytes() - 1) / 4096);
    let phys = (PHYS + segment.ipa().as_u64() - RAM) / 4096;
    (first..=last).zip(phys..)
}

fn run(
    strategy: DmamapStrategy,
    is_sampled: bool,
    steps: Vec<(Step, usize, usize)>,
) -> Result<(), proptest::test_runner::TestCaseError> {
    let mut machine = Machine::with(strategy, 12, 40, 43);
    if is_sampled {
        machine.sample();
    }
    let mut maps: Vec<Model> = vec![];
    // Pages whose unload no SYNC of their channel covers.
    let mut pending = [BTreeSet::new(), BTreeSet::new()];
    for (step, which, channel) in steps {
        let before = machine.mapped();
        let at = if maps.is_empty() { None } else { Some(which % maps.len()) };
        match (step, at) {
            (Step::Create(size, segments, is_low), _) => {
                let limit = if is_low { 0xff_ffff } else { u64::MAX };
                if let Ok(created) = machine.create(channel, &MapParams { limit, ..MapParams::new(size, segments) }) {
                    maps.push(Model { handle: created.handle, loaded: None });
                }
                prop_assert_eq!(&machine.mapped(), &before);
            }
            (Step::Load(list, direction), Some(at)) => {
                let direction =
                    [Direction::DeviceReads, Direction::DeviceWrites, Direction::Both][usize::from(direction)];
                let mut list: Vec<_> = list.into_iter().map(|(offset, bytes)| segment(offset, bytes)).collect();
                let was_loaded = maps[at].loaded.is_some();
                match machine.load(maps[at].handle, direction, &mut list) {
                    Ok(_) => {
                        prop_assert!(!was_loaded);
                        maps[at].loaded = Some((list, direction));
                    }
                    Err(error) => {
                        prop_assert!(!was_loaded || error == LoadError::Loaded);
                        prop_assert_eq!(&machine.mapped(), &before);
                    }
                }
            }
            (step @ (Step::Unload | Step::Destroy), Some(at)) => {
                let model = &mut maps[at];
                let handle = model.handle;
                if let Some((list, _)) = model.loaded.take() {
                    let gone = list.iter().flat_map(pages).map(|(page, _)| page);
                    pending[usize::from(handle.channel())].extend(gone);
                }
                if matches!(step, Step::Unload) {
                    machine.unload(handle).expect("a map");
                } else {
                    machine.destroy(handle).expect("a map");
                    maps.swap_remove(at);
                }
            }
            _ => {
                machine.sync(channel);
                pending[channel].clear();
            }
        }
        // The device touches all it can, so that the TLB remembers all that was ever mapped.
        let mut expected = BTreeSet::new();
        for (list, direction) in maps.iter().filter_map(|map| map.loaded.as_ref()) {
            for (page, phys) in list.iter().flat_map(pages) {
                let reach = machine.touch(page * 4096);
                prop_assert_eq!(reach, Some((phys * 4096, direction.access())));
                let is_new = expected.insert(page);
                prop_assert!(is_new || strategy == DmamapStrategy::OneToOne, "{} is in two maps", page);
            }
        }
        prop_assert!(machine.mapped().keys().eq(expected.iter()));
        for (page, reach) in &machine.smmu.tlb {
            match machine.walk(*page) {
                Some(now) => prop_assert_eq!(now, *reach, "{} was used again before its SYNC", page),
                None => prop_assert!(pending.iter().any(|pending| pending.contains(page)), "{} is stale", page),
            }
        }
    }
    for map in maps {
        machine.destroy(map.handle).expect("a map");
    }
    for channel in [0, 1, 0, 1] {
        machine.space.drain(&mut machine.channels[channel]);
        machine.sync(channel);
    }
    prop_assert!(machine.smmu.tlb.is_empty() && machine.mapped().is_empty());
    prop_assert_eq!((machine.space.leased_pages(), machine.space.live()), (0, 0));
    prop_assert_eq!(machine.pool.out(), 3);
    Ok(())
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(48))]

    /// Would miss: an address used again before its SYNC, under any strategy; a page that is mapped and should not
    /// be, or the other way round; a lease, a table or a place that is lost.
    #[test]
    fn every_strategy_is_strict_and_leaks_nothing(
        steps in proptest::collection::vec((step(), any::<usize>(), 0usize..2), 1..120),
    ) {
        for strategy in STRATEGIES {
            run(strategy, false, steps.clone())?;
        }
        run(DmamapStrategy::Reserve, true, steps)?;
    }
}
