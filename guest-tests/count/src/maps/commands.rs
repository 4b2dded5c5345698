//! What SMMUs are told: by the real policy and the real driver, counted by the driver and at its doorbell.

use bulkhead_core::{
    addr::{Ipa, PAGE_SIZE},
    bundle::DmamapStrategy,
    ids::{SmmuId, Vmid},
};
use bulkhead_dma::{
    flush::{Command, Costs, Invalidate, Live, Mode, Policy, SyncWitness, Work, retire},
    map::{Direction, MapParams},
};
use bulkhead_guest_tests::println;
use bulkhead_smmu::{Error, Invalidation, Mark, Smmu, Synced, Ticket};

use super::{RING, rig::Rig, segments};
use crate::{
    meter,
    submit::{self, Fake},
};

/// Unloads for one flush.
const BATCH: usize = 32;
/// Loads for the question whether anything grows.
const MANY: usize = 1_000_000;

/// A driver, as a flush sees it.
struct Walker<'a>(&'a mut Smmu<Fake<true>>);

struct Witness(Synced);

impl SyncWitness for Witness {
    fn smmu(&self) -> SmmuId {
        self.0.smmu()
    }
    fn vmid(&self) -> Vmid {
        self.0.vmid()
    }
}

impl Invalidate for Walker<'_> {
    type Ticket = Ticket;
    type Witness = Witness;
    type Error = Error;

    fn submit(&mut self, work: &Work<'_>) -> Result<Ticket, Error> {
        let is_leaf = work.is_leaf();
        let address = |page: u64| Ipa::new(page * PAGE_SIZE);
        let invalidation = |command| match command {
            Command::Page { page } => Invalidation::Page { ipa: address(page), is_leaf },
            Command::Range { page, num, scale } => Invalidation::Range { ipa: address(page), num, scale, is_leaf },
            Command::Context => Invalidation::Context,
        };
        match work.single() {
            Some(command) => self.0.submit(work.vmid(), invalidation(command), Mark::NEVER),
            None => self.0.submit_all(work.vmid(), work.commands().map(invalidation)),
        }
        .map_err(|failed| self.0.reason(&failed))
    }
    fn wait(&mut self, ticket: Ticket) -> Result<Witness, Error> {
        self.0.wait(ticket).map(Witness).map_err(|failed| self.0.reason(&failed))
    }
}

/// Commands of TLBs, CMD_SYNCs and doorbells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Told {
    tlb: u64,
    syncs: u64,
    doorbells: u64,
}

struct Counted {
    driver: Smmu<Fake<true>>,
    policy: Policy,
}

impl Counted {
    fn told(&mut self) -> Told {
        let sent = self.driver.counters().commands;
        Told { tlb: sent.tlb, syncs: sent.syncs, doorbells: submit::doorbells(&mut self.driver) }
    }

    /// Flushes as the policy decides: what the SMMU was told.
    fn flush(&mut self, rig: &mut Rig) -> Option<Told> {
        let before = self.told();
        let batch = rig.channel.batch_mut();
        let scope = self.policy.decide(batch, Live { entries: RING as u64 }, 0)?;
        let epoch = retire(self.policy.close(batch, scope), &mut [Walker(&mut self.driver)]).ok()?;
        batch.accept(&epoch).ok()?;
        let after = self.told();
        Some(Told {
            tlb: after.tlb - before.tlb,
            syncs: after.syncs - before.syncs,
            doorbells: after.doorbells - before.doorbells,
        })
    }
}

/// Counts commands, and looks for growth.
pub fn run(params: &MapParams) {
    let Ok(driver) = submit::driver::<true>() else {
        println!("FAIL: no driver");
        return;
    };
    let mut counted = Counted { driver, policy: Policy::new(Mode::Auto, true, Costs::START) };
    if ring(&mut counted, params).is_none() || sizes(&mut counted).is_none() {
        println!("FAIL: commands");
    }
}

/// The ring goes round, a flush for each 32 unloads.
fn ring(counted: &mut Counted, params: &MapParams) -> Option<()> {
    let mut rig = Rig::new(DmamapStrategy::Reserve, RING, params)?;
    let mut segments = segments::<3>(1024);
    let tables =
        |rig: &Rig| (rig.space.leaf_tables(), rig.space.leased_pages(), rig.tables.pool.len(), rig.tables.taken());
    let before = tables(&rig);
    let (mut commands, mut maps) = (0, 0);
    for start in (0..RING).step_by(BATCH).cycle().take(MANY / BATCH) {
        for at in start..start + BATCH {
            rig.channel.load(*rig.handles.get(at)?, Direction::Both, &mut segments).ok()?;
        }
        for at in start..start + BATCH {
            rig.channel.unload(*rig.handles.get(at)?).ok()?;
        }
        let told = counted.flush(&mut rig)?;
        commands += told.tlb + told.syncs;
        maps += BATCH as u64;
    }
    meter::figure("commands per map, ring, batch 32", commands, maps);
    let grown = u64::from(tables(&rig) != before);
    meter::figure("grown after a million loads: table pages, leases, pool", grown, 1);
    Some(())
}

/// Retirements of 1 page to 512 MiB.
fn sizes(counted: &mut Counted) -> Option<()> {
    let mut most = Told { tlb: 0, syncs: 0, doorbells: 0 };
    let block = MapParams { align: 2 << 20, ..MapParams::new(2 << 20, 1) };
    for (params, bytes, maps) in [
        (MapParams::new(PAGE_SIZE, 1), 1, 1),
        (MapParams::new(64 << 10, 1), 64 << 10, 1),
        (MapParams::new(64 << 10, 1), 64 << 10, 256),
        (block, 2 << 20, 1),
        (block, 2 << 20, 256),
    ] {
        let mut rig = Rig::new(DmamapStrategy::Reserve, maps, &params)?;
        let mut segments = segments::<1>(bytes);
        for handle in &rig.handles {
            rig.channel.load(*handle, Direction::Both, &mut segments).ok()?;
        }
        for handle in &rig.handles {
            rig.channel.unload(*handle).ok()?;
        }
        let told = counted.flush(&mut rig)?;
        most.tlb = most.tlb.max(told.tlb);
        most.syncs = most.syncs.max(told.syncs);
        most.doorbells = most.doorbells.max(told.doorbells);
    }
    for (name, count) in [("TLBIs", most.tlb), ("SYNCs", most.syncs), ("doorbells", most.doorbells)] {
        meter::figure(&alloc::format!("{name} of a retirement, 1 page to 512 MiB"), count, 1);
    }
    Some(())
}
