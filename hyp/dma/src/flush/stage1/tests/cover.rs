//! What is sent against a naive set of cached entries.

use std::vec::Vec;

use bulkhead_core::{
    addr::PAGE_SIZE,
    stage1::{Stage1Flush, Stage1Pages},
};
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{pages, policy, sent};
use crate::flush::{Costs, Kind, Stage1Batch, Stage1Mode, Stage1Policy};

/// One past the last page of a 64-bit address.
const PAGES_END: u64 = 1 << 52;

/// Something that a TLB can hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    /// Of the last level, nG = 1.
    Own { asid: u16, page: u64 },
    /// Of the last level, nG = 0: filled by one ASID, good for all.
    Global { page: u64 },
    /// Above the last level.
    Table { asid: u16, page: u64 },
}

/// Whether `flush` forgets `entry`, by IHI 0070 4.4.2.
fn forgets(flush: &Stage1Flush, entry: Entry) -> bool {
    match *flush {
        Stage1Flush::All => true,
        Stage1Flush::Asid(flushed) => match entry {
            Entry::Own { asid, .. } | Entry::Table { asid, .. } => asid == flushed,
            Entry::Global { .. } => false,
        },
        Stage1Flush::Pages(flushed) => {
            let first = flushed.first / PAGE_SIZE;
            let is_at = |page: u64| first <= page && page - first < flushed.pages;
            let is_of = |asid: u16| flushed.asid.is_none_or(|flushed| flushed == asid);
            match entry {
                Entry::Own { asid, page } => is_at(page) && is_of(asid),
                Entry::Global { page } => is_at(page),
                Entry::Table { asid, page } => is_at(page) && is_of(asid) && !flushed.is_leaf,
            }
        }
    }
}

/// Entries at and beside the ends of what was added, of every ASID.
fn entries(added: &[Stage1Flush]) -> Vec<Entry> {
    let ends = added.iter().flat_map(|flush| match *flush {
        Stage1Flush::Pages(Stage1Pages { first, pages, .. }) => {
            let (first, last) = (first / PAGE_SIZE, (first / PAGE_SIZE).saturating_add(pages - 1).min(PAGES_END - 1));
            Vec::from([first, first + (last - first) / 2, last])
        }
        _ => Vec::from([7]),
    });
    let at = |page| {
        let own = (0..12).flat_map(move |asid| [Entry::Own { asid, page }, Entry::Table { asid, page }]);
        own.chain([Entry::Global { page }])
    };
    ends.flat_map(at).collect()
}

fn flushes() -> impl Strategy<Value = Vec<Stage1Flush>> {
    let place = prop_oneof![
        6 => (0u64..100, 1u64..20),
        2 => (0u64..1 << 20, 1u64..3000),
        1 => (PAGES_END - 300..PAGES_END, 1u64..600),
        1 => (any::<u64>().prop_map(|page| page % PAGES_END), 1..u64::MAX),
    ];
    let asid =
        prop_oneof![6 => (0u16..3).prop_map(Some), 1 => (0u16..12).prop_map(Some), 1 => proptest::strategy::Just(None)];
    let by_address = (asid, place, any::<bool>()).prop_map(|(asid, (page, pages), is_leaf)| {
        Stage1Flush::Pages(Stage1Pages { asid, first: page * PAGE_SIZE, pages, is_leaf })
    });
    let flush = prop_oneof![
        60 => by_address,
        3 => (0u16..12).prop_map(Stage1Flush::Asid),
        1 => proptest::strategy::Just(Stage1Flush::All),
    ];
    proptest::collection::vec(flush, 1..60)
}

fn modes() -> impl Strategy<Value = Stage1Mode> {
    let fixed = [Kind::Page, Kind::Range, Kind::Context].map(Stage1Mode::Fixed);
    prop_oneof![4 => proptest::strategy::Just(Stage1Mode::Auto), 3 => proptest::sample::select(fixed.to_vec())]
}

fn costs() -> impl Strategy<Value = Costs> {
    (1u32..2000, 1u32..2000, 16u32..4096).prop_map(|(command_ns, refill_ns, tlb_entries)| Costs {
        command_ns,
        refill_ns,
        tlb_entries,
    })
}

proptest! {
    /// Would miss: something gathered and not flushed, whatever was gathered beside it and however it was merged,
    /// widened or superseded; global entries that a flush of an ASID leaves; tables that a leaf flush leaves.
    #[test]
    fn all_that_was_added_is_flushed(
        batches in proptest::collection::vec(flushes(), 1..4),
        mode in modes(),
        has_ranges in any::<bool>(),
        costs in costs(),
    ) {
        let mut policy = Stage1Policy::new(mode, has_ranges, costs);
        for added in batches {
            let sent = sent(&mut policy, &added);
            for entry in entries(&added) {
                let is_due = added.iter().any(|flush| forgets(flush, entry));
                let is_done = sent.iter().any(|flush| forgets(flush, entry));
                prop_assert!(is_done || !is_due, "{entry:?} by {sent:?}");
            }
            prop_assert!(sent.len() <= 128);
            for command in &sent {
                if let Stage1Flush::Pages(Stage1Pages { first, pages, .. }) = *command {
                    let scale = (64 - (pages - 1).leading_zeros()).saturating_sub(5);
                    let is_one_command = pages == 1 || has_ranges && scale <= 31 && pages % (1 << scale) == 0;
                    prop_assert!(is_one_command, "{command:?}");
                    prop_assert!(first % PAGE_SIZE == 0 && first / PAGE_SIZE + pages <= PAGES_END, "{command:?}");
                }
            }
        }
    }

    /// Would miss: pages flushed that nobody gave up, where nothing pays for that.
    #[test]
    fn page_by_page_is_exact(slots in proptest::collection::btree_set(0u64..300, 1..32)) {
        let mut policy = policy(Stage1Mode::Fixed(Kind::Page), true);
        let added: Vec<_> = slots.iter().rev().map(|slot| pages(3, slot * 8, 3)).collect();
        let expected: Vec<_> = slots.iter().rev().flat_map(|slot| slot * 8..slot * 8 + 3).map(|at| pages(3, at, 1)).collect();
        prop_assert_eq!(sent(&mut policy, &added), expected);
    }
}

/// Would miss: a run that is not seen to go on, upward, downward or over itself; one that joins two ASIDs.
#[test]
fn what_touches_is_one_run() {
    let mut policy = policy(Stage1Mode::Auto, true);
    let up = [pages(1, 10, 2), pages(1, 12, 1), pages(1, 13, 16)];
    assert_eq!(sent(&mut policy, &up), [pages(1, 10, 19)]);
    let down = [pages(1, 13, 16), pages(1, 12, 1), pages(1, 10, 2), pages(1, 11, 3)];
    assert_eq!(sent(&mut policy, &down), [pages(1, 10, 19)]);
    let two = [pages(1, 10, 2), pages(2, 12, 1)];
    assert_eq!(sent(&mut policy, &two), two);
    // 33 pages are 17 units of 2.
    assert_eq!(sent(&mut policy, &[pages(1, 10, 33)]), [pages(1, 10, 34)]);
}

/// Would miss: pages past the last address, which would be those at the first.
#[test]
fn nothing_lies_past_the_last_page() {
    let last = pages(1, PAGES_END - 1, 1);
    let mut paged = policy(Stage1Mode::Fixed(Kind::Page), false);
    assert_eq!(sent(&mut paged, &[pages(1, PAGES_END - 1, 9)]), [last]);
    assert_eq!(sent(&mut paged, &[pages(1, PAGES_END - 1, 9), pages(1, 3, 1)]), [last, pages(1, 3, 1)]);
    let mut ranges = policy(Stage1Mode::Auto, true);
    assert_eq!(sent(&mut ranges, &[pages(1, PAGES_END - 33, 99)]), [pages(1, PAGES_END - 34, 34)]);
}

/// Would miss: memory that overflows into nothing, or at once into everything.
#[test]
fn what_does_not_fit_is_widened() {
    let mut policy = policy(Stage1Mode::Fixed(Kind::Range), true);
    let mut added: Vec<_> = (0..32).map(|slot| pages(1, slot * 100, 1)).collect();
    added.push(pages(1, 3205, 1));
    let work = sent(&mut policy, &added);
    assert_eq!((work.len(), work.last()), (32, Some(&pages(1, 3100, 108))));
    added.push(pages(2, 7, 1));
    assert_eq!(sent(&mut policy, &added), [Stage1Flush::All]);

    let asids: Vec<_> = (0..9).map(Stage1Flush::Asid).collect();
    assert_eq!(sent(&mut policy, &asids[..8]), asids[..8]);
    assert_eq!(sent(&mut policy, &asids), [Stage1Flush::All]);
    let twice: Vec<_> = (0..100).map(|_| Stage1Flush::Asid(5)).collect();
    assert_eq!(sent(&mut policy, &twice), [Stage1Flush::Asid(5)]);
}

/// Would miss: a batch that holds what the one before held.
#[test]
fn a_closed_batch_is_empty() {
    let mut policy = policy(Stage1Mode::Auto, true);
    let mut batch = Stage1Batch::new();
    for flush in [Stage1Flush::All, Stage1Flush::Asid(1), pages(1, 2, 3)] {
        batch.add(flush);
        assert!(!batch.is_empty());
        assert_eq!(batch.close(&mut policy).iter().collect::<Vec<_>>(), [flush]);
        assert!(batch.is_empty());
    }
    assert_eq!(batch.close(&mut policy).iter().count(), 0);
}

/// Would miss: a run before the first or after the last of those that one range takes in; one that is sent besides.
#[test]
fn one_range_takes_the_runs_of_its_asid_in() {
    let costs = Costs { command_ns: 1000, refill_ns: 100, tlb_entries: 512 };
    let scattered = |asid: u16| (0..12).map(move |at| pages(asid, 100 + at * 2, 1));
    let mixed = || scattered(1).rev().zip(scattered(2)).flat_map(|(one, two)| [one, two]);
    for (added, expected) in [
        (scattered(1).collect::<Vec<_>>(), Vec::from([pages(1, 100, 23)])),
        (scattered(1).rev().collect(), Vec::from([pages(1, 100, 23)])),
        (scattered(1).chain(scattered(2).rev()).collect(), Vec::from([pages(1, 100, 23), pages(2, 100, 23)])),
        (mixed().collect(), Vec::from([pages(1, 100, 23), pages(2, 100, 23)])),
        ([pages(1, 90, 1)].into_iter().chain(mixed()).collect(), Vec::from([pages(1, 90, 34), pages(2, 100, 23)])),
    ] {
        let mut policy = Stage1Policy::new(Stage1Mode::Auto, true, costs);
        assert_eq!(sent(&mut policy, &added), expected);
        assert_eq!(policy.counters().sent.range, expected.len() as u64);
    }
}
