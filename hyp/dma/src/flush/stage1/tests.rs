//! Nothing gathered is lost, and what is sent is the cheapest of what suffices.

mod cover;
mod modes;
mod traces;

use std::vec::Vec;

use bulkhead_core::{
    addr::PAGE_SIZE,
    stage1::{Stage1Flush, Stage1Pages},
};

use super::{Stage1Batch, Stage1Mode, Stage1Policy};
use crate::flush::Costs;

/// Pages of ASID `asid`, by number.
fn pages(asid: u16, first: u64, pages: u64) -> Stage1Flush {
    Stage1Flush::Pages(Stage1Pages { asid: Some(asid), first: first * PAGE_SIZE, pages, is_leaf: true })
}

fn policy(mode: Stage1Mode, has_ranges: bool) -> Stage1Policy {
    Stage1Policy::new(mode, has_ranges, Costs::START)
}

/// What is sent for `added` by a new batch.
fn sent(policy: &mut Stage1Policy, added: &[Stage1Flush]) -> Vec<Stage1Flush> {
    let mut batch = Stage1Batch::new();
    added.iter().for_each(|flush| batch.add(*flush));
    let work = batch.close(policy);
    let (only, work) = (work.only(), work.iter().collect::<Vec<_>>());
    assert!(only.is_none() || work == [only.expect("one")]);
    assert!(batch.is_empty());
    assert!(batch.close(policy).is_empty());
    work
}
