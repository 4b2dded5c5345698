//! The allocator against a list of leases that knows nothing of blocks.

use std::{vec, vec::Vec};

use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{HIGH, IovaError, Iovas, Lease, Node, Wish, nodes_for};

fn wish() -> impl Strategy<Value = Wish> {
    let limit =
        prop_oneof![3 => proptest::strategy::Just(u32::MAX), 1 => proptest::strategy::Just(HIGH), 1 => 20u32..4000];
    let boundary = prop_oneof![2 => proptest::strategy::Just(0), 1 => (2u32..7).prop_map(|bit| 1 << bit)];
    let pages = prop_oneof![4 => 1u32..40, 1 => 500u32..600];
    (pages, prop_oneof![3 => 0u32..1, 1 => 1u32..10], boundary, limit)
        .prop_map(|(pages, align, boundary, limit)| Wish { pages, align: 1 << align, boundary, limit })
}

fn free_pages(iovas: &Iovas<'_>) -> u32 {
    iovas.free_blocks().map(|block| block.1).sum()
}

proptest! {
    /// Would miss: two leases that touch each other's pages, a lease out of its limits, space that is lost for good.
    #[test]
    fn leases_never_overlap_and_all_space_returns(
        steps in proptest::collection::vec((any::<bool>(), wish(), any::<proptest::sample::Index>()), 1..200),
        end in prop_oneof![1000u32..3000, HIGH - 100..HIGH + 2000],
    ) {
        let mut nodes = vec![Node::EMPTY; nodes_for(200, 1)];
        let mut iovas = Iovas::new(&mut nodes, end);
        iovas.reserve(100, 140).expect("free");
        let all = free_pages(&iovas);
        prop_assert_eq!(all, end - 1 - 40);
        let blocks: Vec<_> = iovas.free_blocks().collect();
        let mut live: Vec<Lease> = vec![];
        for (is_take, wish, which) in steps {
            if is_take || live.is_empty() {
                let before = free_pages(&iovas);
                match iovas.take(&wish, 7) {
                    Ok(lease) => {
                        let (first, last) = (lease.first, lease.first + lease.pages);
                        prop_assert_eq!(lease.pages, wish.pages);
                        prop_assert!(first >= 1 && last <= end.min(wish.limit) && first % wish.align == 0);
                        prop_assert!(last <= 100 || first >= 140);
                        if wish.boundary >= wish.pages {
                            prop_assert_eq!(first / wish.boundary, (last - 1) / wish.boundary);
                        }
                        for other in &live {
                            prop_assert!(last <= other.first || other.first + other.pages <= first);
                        }
                        live.push(lease);
                    }
                    Err(error) => {
                        prop_assert_eq!(error, IovaError::NoRange { pages: wish.pages });
                        prop_assert_eq!(free_pages(&iovas), before);
                        // A block twice as long as it could have to be would have been found.
                        let enough = 2 * (wish.pages + wish.align.max(wish.boundary));
                        let is_bounded = wish.limit < HIGH;
                        let is_out_of_reach = |first| wish.limit <= HIGH && first >= HIGH;
                        let is_full = iovas.free_blocks().all(|block| block.1 < enough || is_out_of_reach(block.0));
                        prop_assert!(is_bounded || is_full);
                    }
                }
            } else {
                let lease = live.swap_remove(which.index(live.len()));
                iovas.give(lease);
            }
            prop_assert_eq!(iovas.live() as usize, live.len());
            prop_assert_eq!(free_pages(&iovas) + iovas.leased_pages(), all);
            // Free blocks are never neighbours: everything merges.
            let free: Vec<_> = iovas.free_blocks().collect();
            prop_assert!(free.windows(2).all(|pair| pair[0].0 + pair[0].1 < pair[1].0 || pair[1].0 == HIGH));
        }
        for lease in live.drain(..) {
            iovas.give(lease);
        }
        prop_assert_eq!(iovas.free_blocks().collect::<Vec<_>>(), blocks);
    }
}

/// Would miss: ring slots spread over the space, which costs a TLB entry and a flush command each.
#[test]
fn leases_made_in_order_lie_in_order() {
    let mut nodes = vec![Node::EMPTY; nodes_for(1000, 0)];
    let mut iovas = Iovas::new(&mut nodes, HIGH / 2);
    let leases: Vec<_> = (0..512).map(|_| iovas.take(&Wish::pages(5), 0).expect("room").first).collect();
    assert!(leases.windows(2).all(|pair| pair[1] == pair[0] + 5));
}

/// Would miss: a space that runs out of nodes half way through a cut.
#[test]
fn without_nodes_nothing_changes() {
    let mut nodes = vec![Node::EMPTY; 6];
    let mut iovas = Iovas::new(&mut nodes, 1000);
    let _first = iovas.take(&Wish::pages(5), 0).expect("two nodes are spare");
    let second = iovas.take(&Wish::pages(5), 0).expect("two nodes are spare");
    let _third = iovas.take(&Wish::pages(5), 0);
    let before: Vec<_> = iovas.free_blocks().collect();
    assert_eq!(iovas.take(&Wish::pages(5), 0), Err(IovaError::NoNode));
    assert_eq!(iovas.free_blocks().collect::<Vec<_>>(), before);
    iovas.give(second);
    assert_eq!(iovas.nearest(6), Some((0, 1, 5)));
}

/// Would miss: leases that fragment the space under churn until leaf tables hold little: more than 1.15 times the need.
#[test]
fn churn_at_100_000_leases_stays_dense() {
    let mut nodes = vec![Node::EMPTY; nodes_for(100_001, 0)];
    let mut iovas = Iovas::new(&mut nodes, 1 << 22);
    let mut seed = 1u64;
    let mut random = move |bound: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        u32::try_from(seed % bound).expect("bounded")
    };
    let sizes = [3, 5, 5, 5, 8, 20, 34];
    let mut live = vec![];
    for _ in 0..400_000 {
        if live.len() == 100_000 {
            let lease = live.swap_remove(random(100_000) as usize);
            iovas.give(lease);
        }
        let wish = Wish { limit: HIGH * 4, ..Wish::pages(sizes[random(7) as usize]) };
        live.push(iovas.take(&wish, 0).expect("room"));
    }
    let mut is_touched = vec![false; 1 << 13];
    for lease in &live {
        is_touched[lease.first as usize / 512] = true;
        is_touched[(lease.first + lease.pages - 2) as usize / 512] = true;
    }
    let tables = is_touched.iter().filter(|touched| **touched).count();
    let needed = iovas.leased_pages().div_ceil(512) as usize;
    assert!(tables * 100 <= needed * 115, "{tables} tables for {needed}");
}
