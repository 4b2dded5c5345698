//! Random mappings, unmappings, flushes and accesses against a map of pages.

use std::{collections::BTreeMap, vec::Vec};

use bulkhead_core::{addr::PAGE_SIZE, stage2::Access};
use proptest::prelude::{Strategy, prop_oneof, proptest};

use super::machine::{Machine, PHYS, RAM, RW, Reach};
use crate::{
    domain::MapError,
    flush::{Kind, Mode},
};

#[derive(Clone, Copy, Debug)]
enum Op {
    Map { first: u64, pages: u64, ipa_page: u64, access: Access },
    Unmap { first: u64, pages: u64 },
    Flush,
    Access { page: u64 },
    Recreate,
}

/// Pages around the boundaries of blocks and of a GiB.
fn page() -> impl Strategy<Value = u64> {
    let near = |page: u64| page..page + 24;
    prop_oneof![near(500), near(1012), near((1 << 18) - 12), near((1 << 18) + 512 * 511 + 500)]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let pages = || prop_oneof![6 => 1..20u64, 1 => 500..1100u64];
    let access = prop_oneof![3 => proptest::prelude::Just(RW), 1 => proptest::prelude::Just(Access::READ)];
    let map = (page(), pages(), 0..40u64, 0..3u8, access).prop_map(|(first, pages, ipa, aligned, access)| {
        // With addresses that agree below 2 MiB, blocks can be used.
        let ipa_page = if aligned > 0 { first % 512 + 512 * ipa } else { ipa };
        Op::Map { first, pages, ipa_page, access }
    });
    proptest::collection::vec(
        prop_oneof![
            5 => map,
            3 => (page(), pages()).prop_map(|(first, pages)| Op::Unmap { first, pages }),
            2 => proptest::prelude::Just(Op::Flush),
            6 => page().prop_map(|page| Op::Access { page }),
            1 => proptest::prelude::Just(Op::Recreate),
        ],
        0..120,
    )
}

/// A mapping, page by page, and the number of the mapping that each is of.
#[derive(Default)]
struct Naive {
    pages: BTreeMap<u64, (Reach, usize)>,
    count: usize,
}

impl Naive {
    fn splits(&self, first: u64, end: u64) -> bool {
        let of = |page: Option<u64>| page.and_then(|page| self.pages.get(&page)).map(|page| page.1);
        let joins = |left: Option<u64>, right: u64| of(left).is_some() && of(left) == of(Some(right));
        joins(first.checked_sub(1), first) || joins(end.checked_sub(1), end)
    }
}

fn run(mode: Mode, ops: &[Op]) {
    let mut machine = Machine::new(24, mode);
    let mut naive = Naive::default();
    // What was unmapped and not flushed may still be reached, and nothing else.
    let mut stale: BTreeMap<u64, Reach> = BTreeMap::new();
    for op in ops {
        match *op {
            Op::Map { first, pages, ipa_page, access } => {
                let ipa = RAM + ipa_page * PAGE_SIZE;
                let is_free = naive.pages.range(first..first + pages).next().is_none();
                let outcome = machine.map(first * PAGE_SIZE, pages * PAGE_SIZE, ipa, access);
                match outcome {
                    Ok(_) => {
                        assert!(is_free, "{op:?} over another mapping");
                        assert!(
                            !stale.keys().any(|page| (first..first + pages).contains(page)),
                            "{op:?} over stale pages"
                        );
                        naive.count += 1;
                        for page in 0..pages {
                            let reach = (PHYS + (ipa_page + page) * PAGE_SIZE, access);
                            naive.pages.insert(first + page, (reach, naive.count));
                        }
                    }
                    Err(MapError::Mapped) => assert!(!is_free, "{op:?} over nothing"),
                    Err(MapError::Unflushed) => assert!(!machine.domain().is_flushed()),
                    Err(MapError::NoTables) => {
                        assert!(machine.arena.left() < 6, "{} tables left", machine.arena.left())
                    }
                    Err(other) => panic!("{op:?}: {other}"),
                }
            }
            Op::Unmap { first, pages } => {
                let end = first + pages;
                let outcome = machine.unmap(first * PAGE_SIZE, end * PAGE_SIZE - 1);
                assert_eq!(outcome.is_err(), naive.splits(first, end), "{op:?}");
                if outcome.is_ok() {
                    let gone: Vec<u64> = naive.pages.range(first..end).map(|page| *page.0).collect();
                    stale.extend(gone.iter().map(|page| (*page, naive.pages[page].0)));
                    naive.pages.retain(|page, _| !gone.contains(page));
                }
            }
            Op::Flush => {
                machine.flush().expect("flushed");
                stale.clear();
            }
            Op::Access { page } => {
                let reached = machine.access(page * PAGE_SIZE);
                let expected = naive.pages.get(&page).map(|page| page.0);
                let is_stale = reached.is_some() && reached == stale.get(&page).copied();
                assert!(reached == expected || is_stale, "{page:#x}: {reached:x?}, not {expected:x?}");
            }
            Op::Recreate => {
                machine.destroy();
                assert_eq!(machine.arena.left(), 24, "every table is back");
                machine.create(mode);
                naive.pages.clear();
                stale.clear();
            }
        }
    }
    machine.unmap(0, u64::MAX).expect("whole");
    machine.flush().expect("flushed");
    assert_eq!((machine.domain().leaves(), machine.arena.left()), (0, 23), "tables without entries are back");
    for page in naive.pages.keys() {
        assert_eq!(machine.access(page * PAGE_SIZE), None);
    }
}

proptest! {
    /// Would miss: any sequence after which a device reaches other memory than was mapped, or memory that was unmapped
    /// and flushed; a mapping that is split, a table that is lost or used while an SMMU has it cached.
    #[test]
    fn devices_reach_what_is_mapped_and_nothing_else(ops in ops(), kind in 0..4usize) {
        run([Mode::Auto, Mode::Fixed(Kind::Page), Mode::Fixed(Kind::Range), Mode::Fixed(Kind::Context)][kind], &ops);
    }
}
