//! A guest's stage 1 and the real driver, on a platform that leaves something out.

use std::vec::Vec;

use bulkhead_core::{
    addr::{Iova, Ipa, PhysAddr},
    ids::{SmmuId, Vmid},
    stage1::{ContextTable, Stage1Flush, Stage1Pages, StreamConfig},
    stage2::S2Config,
};

use super::{NIC, is_foreign, qemu};
use crate::{
    model::{DmaAccess, Guest, Model, ModelConfig, Mutant, Mutation, Outcome, Violation},
    smmu::{Config, Smmu},
};

const IPA: Ipa = Ipa::new(0x4000_0000);
const VA: Iova = Iova::new(0x7f_0000_0000);
const VMID: Vmid = Vmid::new(1).expect("not zero");

struct Life {
    model: Model,
    driver: Smmu<Mutant<Model>>,
    guest: Guest,
    context: Ipa,
    tables: [Ipa; 2],
    data: [Ipa; 3],
}

impl Life {
    /// A guest with a context in each of two tables, the first in use: VA leads to the first page of data there, to the
    /// third in the other.
    fn new(config: ModelConfig, mutation: Mutation) -> Self {
        let model = Model::new(config);
        let mut driver = Smmu::take_over(Mutant::new(model.clone(), mutation), SmmuId(0), Config::new(40, 0x3ff))
            .expect("take-over");
        let mut guest = Guest::new(&model, IPA, 16);
        let context = guest.take_page();
        let tables = [guest.take_page(), guest.take_page()];
        let data = [guest.take_page(), guest.take_page(), guest.take_page()];
        guest.store_leaf(tables[0], VA.as_u64(), Guest::leaf(data[0], true, false));
        guest.store_leaf(tables[1], VA.as_u64(), Guest::leaf(data[2], true, false));
        guest.write_context(context, 1, tables[0]);
        let s2 = S2Config { root: guest.stage2.root(), ipa_bits: 39, output_bits: 40, vmid: VMID };
        driver.attach(NIC, &s2).expect("attach");
        let mut life = Self { model, driver, guest, context, tables, data };
        life.allow(&[0]);
        let table = ContextTable { at: context, inner: 1, outer: 1, shareability: 3 };
        life.driver.configure(NIC, &StreamConfig::Stage1(table)).expect("configure");
        life
    }

    /// The device may reach these pages of data from now on, and what the SMMU has to read.
    fn allow(&mut self, data: &[usize]) {
        self.model.revoke(NIC);
        let (start, bytes) = self.guest.memory();
        let taken = self.data.map(|page| self.guest.frame(page).as_u64());
        for frame in (start.as_u64()..start.as_u64() + bytes).step_by(4096) {
            let place = taken.iter().position(|taken| *taken == frame);
            if place.is_none_or(|place| data.contains(&place)) {
                self.model.grant(NIC, PhysAddr::new(frame), 4096);
            }
        }
    }

    fn flush(&mut self, flushes: &[Stage1Flush]) {
        if let Ok(ticket) = self.driver.submit_stage1(VMID, flushes.iter().copied()) {
            let _synced = self.driver.wait(ticket);
        }
    }

    fn leads_to(&self, data: usize) -> bool {
        self.model.dma(NIC, VA, DmaAccess::Write) == Outcome::Translated(self.guest.frame(self.data[data]))
    }

    fn remap(&mut self, data: usize, is_global: bool) {
        self.guest.store_leaf(self.tables[0], VA.as_u64(), Guest::leaf(self.data[data], true, is_global));
    }
}

fn page(asid: Option<u16>) -> Stage1Flush {
    Stage1Flush::Pages(Stage1Pages { asid, first: VA.as_u64(), pages: 1, is_leaf: true })
}

/// VA leads to another page; whether nothing leads to the old one after `flush`.
fn remapped(mutation: Mutation, flush: Stage1Flush) -> (bool, Vec<Violation>) {
    let mut life = Life::new(qemu(), Mutation::None);
    assert!(life.leads_to(0));
    life.driver.platform().set(mutation);
    life.remap(1, false);
    life.flush(&[flush]);
    life.allow(&[1]);
    (life.leads_to(1), life.model.violations())
}

/// The context descriptor names the other table and another ASID.
fn recontexted(mutation: Mutation) -> (bool, Vec<Violation>) {
    let mut life = Life::new(qemu(), Mutation::None);
    assert!(life.leads_to(0));
    life.driver.platform().set(mutation);
    life.guest.write_context(life.context, 2, life.tables[1]);
    life.driver.forget_context(NIC).expect("attached");
    life.flush(&[Stage1Flush::Asid(1)]);
    life.allow(&[2]);
    (life.leads_to(2), life.model.violations())
}

#[test]
fn without_a_mutation_a_flush_is_enough() {
    for flush in [page(Some(1)), page(None), Stage1Flush::Asid(1), Stage1Flush::All] {
        assert_eq!(remapped(Mutation::None, flush), (true, Vec::new()), "{flush:?}");
    }
    assert_eq!(recontexted(Mutation::None), (true, Vec::new()));
}

#[test]
fn a_missing_flush_is_seen() {
    for (opcode, flush) in
        [(0x12, page(Some(1))), (0x13, page(None)), (0x11, Stage1Flush::Asid(1)), (0x10, Stage1Flush::All)]
    {
        for dropped in [opcode, 0x46] {
            let (is_new, violations) = remapped(Mutation::DropCommand(dropped), flush);
            assert!(!is_new && violations.iter().any(is_foreign), "{dropped:#x}: {violations:#x?}");
        }
    }
}

#[test]
fn a_missing_cfgi_cd_is_seen() {
    let (is_new, violations) = recontexted(Mutation::DropCommand(0x06));
    assert!(!is_new && violations.iter().any(is_foreign), "{violations:#x?}");
}

#[test]
fn a_flush_of_another_vmid_or_asid_is_seen() {
    for bits in [1 << 33, 1 << 49] {
        for flush in [page(Some(1)), Stage1Flush::Asid(1)] {
            let (is_new, violations) = remapped(Mutation::RetagFlushes(bits), flush);
            assert!(!is_new && violations.iter().any(is_foreign), "{bits:#x}: {violations:#x?}");
        }
    }
    // Those that name no ASID: the VMID alone.
    for flush in [page(None), Stage1Flush::All] {
        let (is_new, violations) = remapped(Mutation::RetagFlushes(1 << 33), flush);
        assert!(!is_new && violations.iter().any(is_foreign), "{violations:#x?}");
    }
}

#[test]
fn stage_1_without_stage_2_is_seen() {
    let life = Life::new(qemu(), Mutation::Stage1Alone);
    assert_eq!(life.model.dma(NIC, VA, DmaAccess::Read), Outcome::Bypassed);
    assert!(life.model.violations().iter().any(|seen| matches!(seen, Violation::BypassEntry { stream: NIC })));
}

#[test]
fn a_sync_with_an_msi_is_seen() {
    let model = Model::new(qemu());
    let platform = Mutant::new(model.clone(), Mutation::SyncWithMsi);
    let taken = Smmu::take_over(platform, SmmuId(0), Config::new(40, 0x3ff)).map(drop);
    assert!(taken.is_err());
    assert!(model.violations().contains(&Violation::ForeignMsi));
}

/// Would miss: an ASID flush that takes global entries with it, which hides that it is not enough (4.4.2.2).
#[test]
fn a_flush_by_asid_leaves_global_entries() {
    for (flush, is_enough) in
        [(Stage1Flush::Asid(1), false), (page(Some(1)), true), (page(Some(2)), true), (page(None), true)]
    {
        let mut life = Life::new(qemu(), Mutation::None);
        life.remap(0, true);
        assert!(life.leads_to(0));
        life.remap(1, true);
        life.flush(&[flush]);
        life.allow(&[0, 1]);
        assert_eq!(life.leads_to(1), is_enough, "{flush:?}");
        life.model.assert_clean();
    }
}

/// Would miss: a table of the guest's that is walked after a flush of leaves alone, and one that is not.
#[test]
fn a_flush_of_leaves_leaves_tables() {
    for is_leaf in [true, false] {
        let mut life = Life::new(qemu(), Mutation::None);
        assert!(life.leads_to(0));
        // The level-1 descriptor of VA leads to the other context's level-2 table.
        let slot = |root: Ipa| Ipa::new(root.as_u64() + (VA.as_u64() >> 30 & 511) * 8);
        let other = life.guest.read(slot(life.tables[1]));
        life.guest.write(slot(life.tables[0]), other);
        let pages = Stage1Pages { asid: Some(1), first: VA.as_u64(), pages: 1, is_leaf };
        life.flush(&[Stage1Flush::Pages(pages)]);
        life.allow(&[0, 2]);
        assert!(life.leads_to(if is_leaf { 0 } else { 2 }));
    }
}

/// Would miss: a page that a VM gives back, and that its own stage 1 still leads to: the TLB has both stages in one.
#[test]
fn a_flush_by_ipa_alone_is_seen() {
    for mutation in [Mutation::None, Mutation::DropCommand(0x28)] {
        let mut life = Life::new(qemu(), Mutation::None);
        life.driver.platform().set(mutation);
        assert!(life.leads_to(0));
        let page = life.data[0];
        life.guest.stage2.store(page, 3, 0);
        let ticket = life.driver.submit(
            VMID,
            crate::ticket::Invalidation::Page { ipa: page, is_leaf: true },
            crate::ticket::Mark::NEVER,
        );
        let _synced = life.driver.wait(ticket.expect("room")).expect("done");
        life.allow(&[]);
        let is_contained = life.model.dma(NIC, VA, DmaAccess::Read).is_contained();
        assert_eq!(is_contained, mutation == Mutation::None);
        assert_eq!(life.model.violations().iter().any(is_foreign), mutation != Mutation::None);
    }
}
