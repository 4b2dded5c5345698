//! Ranges, batches, proofs, and the policy against the best fixed one.

mod batches;
mod policies;

use std::vec::Vec;

use bulkhead_core::{
    addr::{Iova, PAGE_SIZE},
    ids::{SmmuId, Vmid},
};

use super::{Batch, Command, Covering, Invalidate, Run, SyncWitness, Work};

const VMID: Vmid = Vmid::new(3).expect("not zero");

fn iova(page: u64) -> Iova {
    Iova::new(page * PAGE_SIZE)
}

fn batch(has_ranges: bool) -> Batch {
    Batch::new(VMID, [SmmuId(0)], has_ranges)
}

/// An SMMU that does what it is told, unless it is to fail.
#[derive(Clone)]
struct Fake {
    smmu: SmmuId,
    vmid: Vmid,
    sent: Vec<Command>,
    syncs: u32,
    fails_to: Option<&'static str>,
}

impl Fake {
    fn new(smmu: u8) -> Self {
        Self { smmu: SmmuId(smmu), vmid: VMID, sent: Vec::new(), syncs: 0, fails_to: None }
    }
}

struct Done(SmmuId, Vmid);

impl SyncWitness for Done {
    fn smmu(&self) -> SmmuId {
        self.0
    }
    fn vmid(&self) -> Vmid {
        self.1
    }
}

impl Invalidate for Fake {
    type Ticket = ();
    type Witness = Done;
    type Error = &'static str;

    fn submit(&mut self, work: &Work<'_>) -> Result<(), &'static str> {
        self.sent.extend(work.commands());
        self.syncs += 1;
        self.fails_to.filter(|step| *step == "submit").map_or(Ok(()), Err)
    }
    fn wait(&mut self, (): ()) -> Result<Done, &'static str> {
        self.fails_to.filter(|step| *step == "wait").map_or(Ok(Done(self.smmu, self.vmid)), Err)
    }
}

/// Would miss: a page left out at the end of a range, one that is more than 1/16 too long, the reserved encoding.
#[test]
fn one_range_covers_any_run_and_is_at_most_a_sixteenth_too_long() {
    let spots = (0..36).flat_map(|bit| (0..64u64).map(move |more| (1u64 << bit) + more * (1 << bit) / 64));
    for pages in (1..=70_000).chain(spots).filter(|pages| *pages <= 1 << 36) {
        let covering = Covering::of(pages).expect("at most 2^36 pages");
        let covered = covering.pages();
        assert!(covered >= pages && (covered - pages) * 16 <= pages, "{pages}: {covering:?}");
        match covering {
            Covering::Page => assert_eq!(pages, 1),
            Covering::Range { num, scale } => assert!(num < 32 && scale < 32 && (num, scale) != (0, 0)),
        }
    }
    assert_eq!((Covering::of(0), Covering::of((1 << 36) + 1)), (None, None));
    assert_eq!(Command::covering(Run { first: 7, end: 8 }), Command::Page { page: 7 });
    assert_eq!(Command::covering(Run { first: 0, end: 1 << 37 }), Command::Context);
}
