//! What a guest's invalidations cost to gather, and its SYNC to turn into commands.

use core::hint::black_box;

use bulkhead_core::{
    addr::PAGE_SIZE,
    stage1::{Stage1Flush, Stage1Pages},
};
use bulkhead_dma::flush::{Costs, Stage1Batch, Stage1Mode, Stage1Policy};

use crate::meter;

/// What is done with one command of the guest, and with its SYNC.
#[derive(Clone, Copy)]
struct Calls {
    add: fn(&mut Stage1Batch, Stage1Flush),
    close: fn(&mut Stage1Batch, &mut Stage1Policy) -> u64,
}

fn add(batch: &mut Stage1Batch, flush: Stage1Flush) {
    batch.add(flush);
}

fn close(batch: &mut Stage1Batch, policy: &mut Stage1Policy) -> u64 {
    let sum = |sum: u64, flush| match flush {
        Stage1Flush::Pages(pages) => sum.wrapping_add(pages.pages),
        Stage1Flush::Asid(_) | Stage1Flush::All => sum,
    };
    batch.close(policy).iter().fold(0, sum)
}

fn add_nothing(_: &mut Stage1Batch, flush: Stage1Flush) {
    black_box(&flush);
}

fn close_nothing(_: &mut Stage1Batch, _: &mut Stage1Policy) -> u64 {
    0
}

/// Rounds of `count` ranges and a SYNC, the ranges `stride` pages apart.
fn count(name: &str, units: u64, calls: Calls, count: u64, stride: u64) {
    let idle = Calls { add: add_nothing, close: close_nothing };
    meter::measure_net(name, units, calls, idle, |calls, rounds| {
        let calls = black_box(calls);
        let mut policy = Stage1Policy::new(Stage1Mode::Auto, true, Costs::START);
        let mut batch = Stage1Batch::new();
        for round in 0..rounds {
            for at in 0..count {
                let first = (round * 64 + at * stride) * PAGE_SIZE;
                (calls.add)(
                    &mut batch,
                    Stage1Flush::Pages(Stage1Pages { asid: Some(1), first, pages: 3, is_leaf: true }),
                );
            }
            black_box((calls.close)(&mut batch, &mut policy));
        }
    });
}

/// Counts both.
pub fn run() {
    count("stage 1: gathering a range", 1024, Calls { add, close: close_nothing }, 1024, 3);
    count("stage 1: a range and its SYNC", 1, Calls { add, close }, 1, 3);
    count("stage 1: 32 scattered ranges and their SYNC", 1, Calls { add, close }, 32, 1000);
}
