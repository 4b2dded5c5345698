//! The virtual SMMU's share of a trapped batch: the guest's store of CMDQ_PROD, its commands decoded, its CMD_SYNC's slot
//! cleared, as Linux wants it. What the host does with a flush is not in it.

use alloc::vec::Vec;
use core::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use bulkhead_core::{
    addr::Ipa,
    stage1::{Stage1Flush, StreamConfig},
};
use bulkhead_guest_tests::println;
use bulkhead_vdev::{
    memory::GuestMemory,
    mmio::Width,
    vsmmu::{Ability, Host, HostFailed, Next, Vsmmu},
};

use crate::meter;

/// A page of RAM, which is the command queue.
const QUEUE: u64 = 0x4000_0000;
/// Its commands.
const COMMANDS: u64 = 256;
const CMDQ_PROD: u64 = 0x98;

/// A page that lies where [`QUEUE`] says.
struct Page(Vec<AtomicU64>);

impl GuestMemory for Page {
    #[inline(never)]
    fn words(&mut self, at: Ipa, count: usize) -> Option<&[AtomicU64]> {
        let first = usize::try_from(at.as_u64().checked_sub(QUEUE)? / 8).ok()?;
        self.0.get(first..)?.get(..count)
    }
}

/// A host that does nothing.
struct Idle {
    flushes: u64,
    syncs: u64,
}

impl Host for Idle {
    fn has_stream(&self, _: u32) -> bool {
        true
    }
    fn streams(&self) -> impl Iterator<Item = u32> {
        core::iter::once(8)
    }
    #[inline(never)]
    fn configure(&mut self, _: u32, _: &StreamConfig) -> Result<(), HostFailed> {
        Ok(())
    }
    #[inline(never)]
    fn forget_context(&mut self, _: u32) -> Result<(), HostFailed> {
        Ok(())
    }
    #[inline(always)]
    fn flush(&mut self, flush: Stage1Flush) {
        black_box(&flush);
        self.flushes = self.flushes.wrapping_add(1);
    }
    #[inline(always)]
    fn sync(&mut self) -> Result<(), HostFailed> {
        self.syncs = self.syncs.wrapping_add(1);
        Ok(())
    }
}

/// A batch: its commands and a CMD_SYNC put into the queue, and, if `is_real`, the store.
fn batch(smmu: &mut Vsmmu, page: &mut Page, host: &mut Idle, commands: u64, is_real: bool, producer: u64) -> u64 {
    let slot = |place: u64| (place % COMMANDS) as usize * 2;
    for place in producer..producer + commands {
        // CMD_TLBI_NH_VA of 8 pages, with a range and the leaf hint.
        page.0[slot(place)].store(0x12 | 7 << 12 | 0x12 << 48, Relaxed);
        page.0[slot(place) + 1].store(place << 20 | 1 << 10 | 3 << 8 | 1, Relaxed);
    }
    let sync = slot(producer + commands);
    page.0[sync].store(0x46 | 1 << 12, Relaxed);
    page.0[sync + 1].store(QUEUE + sync as u64 * 8, Relaxed);
    let producer = (producer + commands + 1) % (2 * COMMANDS);
    if is_real {
        while smmu.write(CMDQ_PROD, Width::Word, producer, page, host) == Next::More {}
    }
    producer
}

/// Counts batches of one command and of seventeen, the CMD_SYNC apart.
pub fn run() {
    let ability = Ability { has_asid16: true, is_terminate_only: true, has_range_invalidation: true, oas_bits: 40 };
    let mut smmu = Vsmmu::new(ability);
    let mut page = Page((0..COMMANDS * 2).map(|_| AtomicU64::new(0)).collect());
    let mut host = Idle { flushes: 0, syncs: 0 };
    for (offset, value) in [(0x90, QUEUE | 8), (0x20, 0b1001)] {
        let _ = smmu.write(offset, Width::Double, value, &mut page, &mut host);
        let _ = smmu.write(offset, Width::Word, value, &mut page, &mut host);
    }
    let mut producer = 0;
    for (name, commands) in [("virtual SMMU: a TLBI and its SYNC", 1), ("virtual SMMU: 17 TLBIs and their SYNC", 17)] {
        meter::measure_net(name, 1, true, false, |is_real, rounds| {
            let is_real = black_box(is_real);
            for _ in 0..rounds {
                let next = batch(&mut smmu, &mut page, &mut host, commands, is_real, producer);
                // Without the store the queue stays where it was.
                producer = if is_real { next } else { producer };
            }
        });
    }
    if host.syncs != 2 * (256 + 1280) || host.flushes != 18 * (256 + 1280) {
        println!("FAIL: {} flushes, {} syncs", host.flushes, host.syncs);
    }
}
