//! The real driver on a platform that breaks one of its habits.

use std::vec::Vec;

use bulkhead_core::{
    addr::{Iova, Ipa, PhysAddr},
    ids::{SmmuId, StreamId, Vmid},
    stage2::S2Config,
};

use crate::model::{
    Caching, DmaAccess, Model, ModelConfig, Mutant, Mutation, Outcome, TestTable, Violation, Visibility,
};
use crate::{
    error::Error,
    smmu::{Config, Smmu},
};

use super::{IOVA, NIC, is_foreign, is_freed, qemu};

struct Life {
    model: Model,
    violations: Vec<Violation>,
    error: Option<Error>,
    after_detach: Outcome,
}

/// One life: take-over, a VM gets a NIC, uses it, loses it; another VM with the same VMID gets it; all under attack.
fn live(config: ModelConfig, mutation: Mutation) -> Life {
    let model = Model::new(config);
    model.attack_with(NIC, IOVA);
    let platform = Mutant::new(model.clone(), mutation);
    let mut error = None;
    let mut note = |result: Result<(), Error>| {
        if let Err(found) = result {
            error.get_or_insert(found);
        }
    };
    let mut driver = match Smmu::take_over(platform, SmmuId(0), Config::new(40, 0x3ff)) {
        Ok(driver) => Some(driver),
        Err(found) => {
            note(Err(found));
            None
        }
    };
    let vmid = Vmid::new(1).expect("a vmid");
    if let Some(driver) = &mut driver {
        for _ in 0..2 {
            let frame = model.alloc(1, 4096);
            let mut table = TestTable::new(&model);
            table.map_page(Ipa::new(0x4000_0000), frame, true);
            let s2 = S2Config { root: table.root(), ipa_bits: 39, output_bits: 40, vmid };
            model.grant(NIC, frame, 4096);
            note(driver.attach(NIC, &s2));
            let _ = model.dma(NIC, IOVA, DmaAccess::Write);
            let _ = model.dma(NIC, Iova::new(0x5000_0000), DmaAccess::Write);
            // Events have to say what was written into them.
            driver.poll_events(100, |event, _| {
                assert!(mutation != Mutation::None || event.iova == Some(Iova::new(0x5000_0000)));
            });
            note(driver.detach(NIC).map(drop));
            model.revoke(NIC);
            model.release(frame, 4096);
            model.release(table.root(), 4096);
        }
    }
    let after_detach = model.dma(NIC, IOVA, DmaAccess::Write);
    Life { violations: model.violations(), model, error, after_detach }
}

/// One level: a missing invalidation of a level-1 descriptor would only keep a stream from coming alive.
fn linear() -> ModelConfig {
    let id = ModelConfig::QEMU;
    ModelConfig::new(crate::features::IdRegisters { idr0: id.idr0 & !(3 << 27), ..id })
}

fn assert_seen(life: &Life, what: fn(&Violation) -> bool) {
    assert!(life.violations.iter().any(what), "{:#x?} {:?}", life.violations, life.error);
}

#[test]
fn without_a_mutation_nothing_is_seen() {
    for id in [ModelConfig::QEMU, ModelConfig::MMU600] {
        let life = live(ModelConfig::new(id), Mutation::None);
        assert_eq!((life.violations, life.error), (Vec::new(), None));
        assert_eq!(life.after_detach, Outcome::Aborted);
        assert!(life.model.is_enabled());
    }
}

#[test]
fn a_missing_cfgi_is_seen() {
    let life = live(linear(), Mutation::DropCommand(0x03));
    assert_seen(&life, |violation| matches!(violation, Violation::LiveEntryChanged { .. }));
    // And where invalid entries are cached as a whole, the stream never comes alive.
    let whole = ModelConfig { caching: Caching::Whole, ..linear() };
    let life = live(whole, Mutation::DropCommand(0x03));
    assert!(life.violations.is_empty() && life.after_detach.is_contained());
}

#[test]
fn a_missing_cfgi_all_at_take_over_is_seen() {
    let life = live(qemu(), Mutation::DropCommand(0x04));
    assert_seen(&life, |violation| matches!(violation, Violation::Untranslated { stream: NIC }));
}

#[test]
fn a_missing_tlbi_is_seen() {
    // The firmware's translations of VMID 1, or the first VM's, reach the second's.
    let life = live(qemu(), Mutation::DropCommand(0x28));
    assert_seen(&life, is_freed);
    assert_seen(&life, is_foreign);
    // Without TLBI_NSNH_ALL the firmware's translations of other VMIDs stay.
    let life = live(qemu(), Mutation::DropCommand(0x30));
    assert_seen(&life, is_freed);
}

#[test]
fn a_missing_sync_is_seen() {
    let life = live(qemu(), Mutation::DropCommand(0x46));
    assert_seen(&life, |violation| {
        matches!(violation, Violation::Untranslated { .. } | Violation::LiveEntryChanged { .. })
    });
}

#[test]
fn an_entry_changed_while_valid_is_seen() {
    let life = live(qemu(), Mutation::KeepValid);
    assert_seen(&life, |violation| matches!(violation, Violation::LiveEntryChanged { .. }));
}

#[test]
fn missing_barriers_are_seen() {
    for visibility in [Visibility::Late, Visibility::Early] {
        let config = ModelConfig { visibility, ..qemu() };
        let life = live(config, Mutation::DropBarriers);
        assert_seen(&life, |violation| matches!(violation, Violation::CommandNotPublished { .. }));
    }
}

#[test]
fn missing_cleans_are_seen() {
    for visibility in [Visibility::Late, Visibility::Early] {
        let config = ModelConfig { visibility, ..ModelConfig::new(ModelConfig::MMU600) };
        let life = live(config, Mutation::DropCleans);
        assert_seen(&life, |violation| matches!(violation, Violation::CommandNotPublished { .. }));
    }
    // Where the SMMU is coherent they are never asked for.
    assert_eq!(live(qemu(), Mutation::DropCleans).violations, []);
}

#[test]
fn a_missing_invalidate_shows_stale_events() {
    // A queue of 256 events.
    let idr1 = ModelConfig::MMU600.idr1 & !(31 << 16) | 8 << 16;
    let id = crate::features::IdRegisters { idr1, ..ModelConfig::MMU600 };
    let model = Model::new(ModelConfig::new(id));
    let platform = Mutant::new(model.clone(), Mutation::DropInvalidates);
    let mut driver = Smmu::take_over(platform, SmmuId(0), Config::new(40, 0x3ff)).expect("take-over");
    let mut wrong = 0;
    // Two rounds of the queue: the second finds the first's lines in the CPU's cache.
    for round in 0..512 {
        let _ = model.dma(StreamId(round % 251), IOVA, DmaAccess::Read);
        driver.poll_events(10, |event, _| wrong += u32::from(event.stream.0 != round % 251));
        model.sleep(1_000_000);
    }
    assert_ne!(wrong, 0);
}

#[test]
fn half_the_alignment_is_refused_by_the_driver() {
    let life = live(linear(), Mutation::HalfAlignment);
    assert!(matches!(life.error, Some(Error::BadMemory { what: "stream table", alignment: 0x1_0000, .. })));
    assert!(life.model.is_global_abort() && !life.model.is_enabled());
}

#[test]
fn a_bypass_window_at_take_over_is_seen() {
    for mutation in [Mutation::KeepGlobalBypass, Mutation::DisableFirst] {
        let life = live(qemu(), mutation);
        assert_seen(&life, |violation| matches!(violation, Violation::DisabledIntoBypass));
    }
}

#[test]
fn bypass_on_detach_is_seen() {
    let life = live(qemu(), Mutation::BypassForAbort);
    assert_seen(&life, |violation| matches!(violation, Violation::BypassEntry { stream: NIC }));
    assert_eq!(life.after_detach, Outcome::Bypassed);
}

#[test]
fn another_vms_table_is_seen() {
    let config = qemu();
    let model = Model::new(config);
    let frame = model.alloc(1, 4096);
    let mut theirs = TestTable::new(&model);
    theirs.map_page(Ipa::new(0x4000_0000), frame, true);
    let platform = Mutant::new(model.clone(), Mutation::OtherRoot(theirs.root()));
    let mut driver = Smmu::take_over(platform, SmmuId(0), Config::new(40, 0x3ff)).expect("take-over");
    let ours = TestTable::new(&model);
    let vmid = Vmid::new(1).expect("a vmid");
    let s2 = S2Config { root: ours.root(), ipa_bits: 39, output_bits: 40, vmid };
    model.attack_with(NIC, IOVA);
    driver.attach(NIC, &s2).expect("attach");
    assert!(model.violations().iter().any(is_foreign));
}

#[test]
fn an_error_that_is_not_acknowledged_is_seen() {
    // The queue stays halted: the driver's waits end, and it does not say that the stream was detached.
    let model = Model::new(qemu());
    let platform = Mutant::new(model.clone(), Mutation::IgnoreErrors);
    let config = Config { timeout_us: 5_000, ..Config::new(40, 0x3ff) };
    let mut driver = Smmu::take_over(platform, SmmuId(0), config).expect("take-over");
    model.refuse(0x28, 1, 1);
    let vmid = Vmid::new(1).expect("a vmid");
    assert!(driver.flush_vmid(vmid).is_err());
    assert!(driver.flush_vmid(vmid).is_err(), "not a flush");
    assert_eq!(model.executed(0x28), 0);
}

#[test]
fn translated_transactions_without_atschk_are_seen() {
    let model = Model::new(ModelConfig::new(ModelConfig::MMU600));
    let platform = Mutant::new(model.clone(), Mutation::TrustTranslated);
    // CR0ACK never shows ATSCHK: the driver notices, and leaves everything in abort.
    let taken = Smmu::take_over(platform, SmmuId(0), Config::new(40, 0x3ff)).map(drop);
    assert!(matches!(taken, Err(Error::Timeout { register: "CR0ACK", .. })));
    assert_eq!(model.dma_translated(NIC, PhysAddr::new(0x4000_0000)), Outcome::Aborted);
}
