//! Everything gathered is covered by every scope, and nothing is settled before its SYNC.

use std::{collections::BTreeSet, vec::Vec};

use bulkhead_core::ids::{SmmuId, Vmid};
use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};

use super::{Fake, VMID, batch, iova};
use crate::flush::{BLOCK_STRIDE, Batch, Command, EpochError, FlushError, Scope, Stamp, retire};

fn pages_of(command: Command) -> (u64, u64) {
    match command {
        Command::Page { page } => (page, page + 1),
        Command::Range { page, num, scale } => (page, page + ((u64::from(num) + 1) << scale)),
        Command::Context => (0, u64::MAX),
    }
}

fn ranges() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let ring = (0u64..300, 1u64..8).prop_map(|(slot, pages)| (0x1000 + slot * 8, pages));
    let far = (0u64..1 << 14, 1u64..60);
    let block = (0u64..16).prop_map(|slot| (slot * 1024, 512));
    proptest::collection::vec(proptest::prop_oneof![4 => ring, 1 => far, 1 => block], 1..90)
}

/// Would miss: a command for each block of a ring of blocks, or a gap as long for pages, whose neighbours are in use.
#[test]
fn blocks_of_a_ring_are_one_run_and_pages_as_far_apart_are_not() {
    let mut batch = batch(true);
    for (pages, runs) in [(512, 1), (3, 4), (512, 1)] {
        for slot in 0..4 {
            let _ = batch.add(iova(0x10_0000 + slot * 1024), pages);
        }
        assert_eq!(batch.runs(), runs, "of {pages} pages");
        let _ = batch.close(Scope::Runs);
    }
}

/// Would miss: a block that is gathered beside pages, or in a ring, and that no command covers; one counted twice.
#[test]
fn blocks_and_pages_are_all_covered() {
    const BLOCK: u64 = 512 * 4096;
    for scope in [Scope::Runs, Scope::Range, Scope::Pages, Scope::Context] {
        let mut batch = batch(true);
        // With and without pages, and with a block elsewhere.
        for (pages, elsewhere) in [(false, false), (true, false), (false, true), (true, true), (false, false)] {
            let mut ranges = std::vec![];
            for number in 20..23 {
                let block = number * BLOCK_STRIDE;
                let stamp = batch.stamp();
                if batch.is_last_block(block - BLOCK_STRIDE) {
                    batch.extend_blocks(block);
                } else {
                    batch.add_block(block);
                }
                assert!(!batch.is_settled(stamp) && batch.is_open(stamp));
                ranges.push((block / 4096, 512));
            }
            if pages {
                let _ = batch.add(iova(5), 3);
                ranges.push((5, 3));
            }
            if elsewhere {
                let _ = batch.add_block(7 * BLOCK);
                ranges.push((7 * 512, 512));
            }
            let gathered = ranges.iter().map(|range| range.1).sum::<u64>();
            assert_eq!((batch.pages(), batch.maps() as usize), (gathered, ranges.len()));
            let hull = batch.hull();
            let runs = batch.runs() as usize;
            let work = batch.close(scope);
            assert!(scope != Scope::Runs || work.commands().count() == runs);
            let commands: Vec<(u64, u64)> = work.commands().map(pages_of).collect();
            for (first, pages) in ranges {
                assert!(hull.first <= first && first + pages <= hull.end);
                let is_covered = |page| commands.iter().any(|(start, end)| (*start..*end).contains(&page));
                assert!((first..first + pages).all(is_covered), "{first:#x} by {scope:?}");
            }
            assert!(batch.is_empty() && batch.pages() == 0 && batch.maps() == 0);
        }
    }
}

proptest! {
    /// Would miss: a range dropped when runs are merged or run out, a batch that goes on after it was closed.
    #[test]
    fn every_scope_covers_what_was_gathered(ranges in ranges(), has_ranges in proptest::bool::ANY) {
        let scopes = if has_ranges { [Scope::Runs, Scope::Range, Scope::Context] } else { [Scope::Pages; 3] };
        for scope in scopes {
            let mut batch = batch(has_ranges);
            // The second begins where the first has ended.
            for number in 1..=2 {
                for (first, pages) in &ranges {
                    prop_assert_eq!(batch.add(iova(*first), *pages), Stamp::new(number));
                }
                let mut commands: Vec<(u64, u64)> = {
                    let work = batch.close(scope);
                    if let Some(single) = work.single() {
                        prop_assert_eq!(work.commands().collect::<Vec<_>>(), [single]);
                    }
                    work.commands().map(pages_of).collect()
                };
                commands.sort_unstable();
                for (first, pages) in &ranges {
                    let is_covered = commands.iter().any(|(start, end)| *start <= *first && first + pages <= *end)
                        || (*first..first + pages).all(|page| commands.binary_search(&(page, page + 1)).is_ok());
                    prop_assert!(is_covered, "{first:#x} by {scope:?} of batch {number}");
                }
                prop_assert!(batch.is_empty());
            }
            prop_assert_eq!(batch.close(scope).commands().count(), 0);
        }
    }

    /// Would miss: page commands for pages that nobody unmapped, where there is no range to excuse them.
    #[test]
    fn without_ranges_few_runs_are_exact(slots in proptest::collection::btree_set(0u64..300, 1..32)) {
        let mut batch = batch(false);
        for slot in &slots {
            let _ = batch.add(iova(slot * 8), 3);
        }
        let work = batch.close(Scope::Pages);
        let sent: BTreeSet<u64> = work.commands().map(|command| pages_of(command).0).collect();
        prop_assert_eq!(sent, slots.iter().flat_map(|slot| slot * 8..slot * 8 + 3).collect());
    }

    /// Would miss: something settled before its SYNC, by the SYNC of another batch, or after a SYNC that failed.
    #[test]
    fn nothing_is_settled_before_its_sync(steps in proptest::collection::vec(0u8..20, 1..80)) {
        let mut batch = batch(true);
        let mut smmu = Fake::new(0);
        let (mut open, mut flushed, mut is_broken): (Vec<Stamp>, Vec<Stamp>, bool) = Default::default();
        for step in steps {
            match step {
                0..=11 => open.push(batch.add(iova(u64::from(step) * 5), 3)),
                12..=17 => {
                    let epoch = retire(batch.close(Scope::Range), &mut [&mut smmu]).expect("it works");
                    if is_broken {
                        prop_assert_eq!(batch.accept(&epoch), Err(EpochError::Quarantined));
                    } else {
                        batch.accept(&epoch).expect("in order");
                        flushed.append(&mut open);
                    }
                }
                18 => drop(batch.close(Scope::Range)),
                _ => {
                    smmu.fails_to = Some("wait");
                    let _ = batch.add(iova(1), 1);
                    prop_assert!(retire(batch.close(Scope::Range), &mut [&mut smmu]).is_err());
                    smmu.fails_to = None;
                    batch.quarantine();
                }
            }
            // What was dropped on its way is never settled, nor is anything after it.
            is_broken |= step >= 18;
            if step == 18 {
                batch.quarantine();
            }
            prop_assert!(open.iter().all(|stamp| !batch.is_settled(*stamp)));
            prop_assert!(flushed.iter().all(|stamp| batch.is_settled(*stamp)));
        }
    }
}

/// Would miss: a batch settled while one of the VM's SMMUs still holds its translations, or by another VM's flush.
#[test]
fn every_smmu_of_the_vm_has_to_sync() {
    let mut batch = Batch::new(VMID, [SmmuId(0), SmmuId(2)], true);
    let stamp = batch.add(iova(9), 1);
    let missing = retire(batch.close(Scope::Range), &mut [Fake::new(0)]);
    let expected = EpochError::Missing { number: 1, missing: 1 << 2 };
    assert_eq!(missing.expect_err("one is missing"), FlushError::Epoch(expected));
    assert!(!batch.is_settled(stamp));

    let mut batch = Batch::new(VMID, [SmmuId(0), SmmuId(2)], true);
    let stamp = batch.add(iova(9), 1);
    let other = Vmid::new(4).expect("not zero");
    let foreign = Fake { vmid: other, ..Fake::new(2) };
    assert!(retire(batch.close(Scope::Range), &mut [Fake::new(0), foreign]).is_err());

    let mut batch_of_other = Batch::new(other, [SmmuId(0)], true);
    let _ = batch_of_other.add(iova(9), 1);
    let epoch = retire(batch_of_other.close(Scope::Range), &mut [Fake { vmid: other, ..Fake::new(0) }]);
    let wrong = EpochError::WrongVmid { flushed: other, owner: VMID };
    assert_eq!(batch.accept(&epoch.expect("its own")), Err(wrong));
    assert!(!batch.is_settled(stamp));

    let mut batch = Batch::new(VMID, [SmmuId(0), SmmuId(2)], true);
    let stamp = batch.add(iova(9), 1);
    let mut both = [Fake::new(0), Fake::new(2)];
    let epoch = retire(batch.close(Scope::Range), &mut both).expect("both");
    batch.accept(&epoch).expect("next");
    assert!(batch.is_settled(stamp));
    assert_eq!(both.map(|fake| (fake.sent.len(), fake.syncs)), [(1, 1); 2]);
    let again = EpochError::OutOfOrder { number: 1, next: 2 };
    assert_eq!(batch.accept(&epoch), Err(again));
}

/// Would miss: a batch settled over an earlier one whose flush nobody proved.
#[test]
fn epochs_are_accepted_in_order_alone() {
    let mut batch = batch(true);
    let lost = batch.add(iova(1), 1);
    drop(batch.close(Scope::Range));
    let _ = batch.add(iova(2), 1);
    let epoch = retire(batch.close(Scope::Range), &mut [Fake::new(0)]).expect("flushed");
    assert_eq!(batch.accept(&epoch), Err(EpochError::OutOfOrder { number: 2, next: 1 }));
    assert!(!batch.is_settled(lost));
}

/// Would miss: a flush after a table was unlinked that leaves the pointer to it cached; one that goes on for ever.
#[test]
fn tables_make_one_flush_non_leaf() {
    let mut batch = batch(true);
    let _ = batch.add_tables(iova(512), 512);
    assert!(!batch.close(Scope::Range).is_leaf());
    let _ = batch.add(iova(512), 1);
    assert!(batch.close(Scope::Range).is_leaf());
}
