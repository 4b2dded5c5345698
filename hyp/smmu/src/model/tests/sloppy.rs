//! A sloppy driver of plain stores that does what peers were seen to do.

use bulkhead_core::{
    addr::{Iova, Ipa, PhysAddr},
    ids::Vmid,
};

use crate::model::{DmaAccess, Model, Outcome, TestTable, Violation};
use crate::{command::Command, platform::Platform, registers::offset};

use super::{IOVA, NIC, is_foreign, is_freed, qemu};

/// A driver of plain stores, as sloppy as its peers: a linear table of 64 entries, no checks.
struct Sloppy {
    model: Model,
    table: PhysAddr,
    queue: PhysAddr,
    prod: u32,
}

impl Sloppy {
    /// Takes over in a right way, except for where the stream table lies.
    fn new(model: &Model, table: PhysAddr) -> Self {
        let mut port = model.clone();
        port.write32(offset::GBPA, 1 << 31 | 1 << 20);
        port.write32(offset::CR0, 0);
        port.barrier();
        port.write64(offset::STRTAB_BASE, table.as_u64());
        port.write32(offset::STRTAB_BASE_CFG, 6);
        let queue = model.alloc(1, 4096);
        port.barrier();
        port.write64(offset::CMDQ_BASE, queue.as_u64() | 5);
        port.write32(offset::CMDQ_PROD, 0);
        port.write32(offset::CMDQ_CONS, 0);
        port.write32(offset::CR0, 1 << 3);
        let mut sloppy = Self { model: model.clone(), table, queue, prod: 0 };
        sloppy.send(&[Command::CfgiAll, Command::TlbiNsnhAll, Command::Sync]);
        sloppy.model.write32(offset::CR0, 1 << 3 | 1);
        sloppy
    }

    fn entry(&self, word: u64) -> PhysAddr {
        PhysAddr::new(self.table.as_u64() + u64::from(NIC.0) * 64 + word * 8)
    }

    fn send(&mut self, commands: &[Command]) {
        for command in commands {
            let at = self.queue.as_u64() + u64::from(self.prod & 31) * 16;
            let [low, high] = command.encode();
            self.model.write_memory(PhysAddr::new(at), low);
            self.model.write_memory(PhysAddr::new(at + 8), high);
            self.prod = (self.prod + 1) & 63;
        }
        self.model.barrier();
        self.model.write32(offset::CMDQ_PROD, self.prod);
    }

    fn flush(&mut self) {
        self.send(&[Command::CfgiSte { stream: NIC, is_leaf: true }, Command::Sync]);
    }

    /// Writes a stage-2 entry in the right order.
    fn attach(&mut self, root: PhysAddr, vmid: u64) {
        self.model.write_memory(self.entry(0), 0);
        self.flush();
        // T0SZ 25, SL0 1, write-back walks, inner shareable, 40 bits, AA64, S2R.
        let word2 = vmid | 25 << 32 | 1 << 38 | 5 << 40 | 3 << 44 | 2 << 48 | 1 << 51 | 1 << 58;
        self.model.write_memory(self.entry(2), word2);
        self.model.write_memory(self.entry(3), root.as_u64());
        self.flush();
        self.model.write_memory(self.entry(0), 0b1101);
        self.flush();
    }
}

fn vm(model: &Model) -> (TestTable, PhysAddr) {
    let frame = model.alloc(1, 4096);
    let mut table = TestTable::new(model);
    table.map_page(Ipa::new(0x4000_0000), frame, true);
    (table, frame)
}

fn sloppy() -> (Model, Sloppy) {
    let model = Model::new(qemu());
    let table = model.alloc(1, 4096);
    let driver = Sloppy::new(&model, table);
    (model, driver)
}

#[test]
fn the_sloppy_driver_is_clean_as_long_as_it_does_it_right() {
    let (model, mut driver) = sloppy();
    let (table, frame) = vm(&model);
    model.attack_with(NIC, IOVA);
    model.grant(NIC, frame, 4096);
    driver.attach(table.root(), 1);
    assert_eq!(model.dma(NIC, IOVA, DmaAccess::Read), Outcome::Translated(frame));
    model.assert_clean();
}

#[test]
fn a_half_aligned_stream_table_is_seen() {
    // hvisor: the table is aligned to half its size, and the hardware takes the low bits as zero.
    let model = Model::new(qemu());
    let table = PhysAddr::new(model.alloc(2, 8192).as_u64() + 2048);
    let _ = Sloppy::new(&model, table);
    let misaligned = Violation::Misaligned { what: "stream table", base: table.as_u64(), alignment: 4096 };
    assert!(model.violations().contains(&misaligned));
}

#[test]
fn or_into_a_live_entry_is_seen() {
    // hvisor: a second VM is given the same NIC with `|=`: VMID 1 | 2, and a root that is no table.
    let (model, mut driver) = sloppy();
    let ((first, frame), (second, _)) = (vm(&model), vm(&model));
    model.grant(NIC, frame, 4096);
    driver.attach(first.root(), 1);
    model.assert_clean();
    for (word, value) in [(2, 2), (3, second.root().as_u64())] {
        let old = model.clone().read_memory(driver.entry(word));
        model.clone().write_memory(driver.entry(word), old | value);
    }
    driver.flush();
    let violations = model.violations();
    let live = |violation: &&Violation| matches!(violation, Violation::LiveEntryChanged { .. });
    assert_eq!(violations.iter().filter(live).count(), 2, "{violations:#x?}");
}

#[test]
fn cfgi_before_the_write_and_none_after_is_seen() {
    // hvisor: CFGI and SYNC first, then the entry. The device goes on with what was cached: the first VM's table.
    let (model, mut driver) = sloppy();
    let ((first, frame), (second, other)) = (vm(&model), vm(&model));
    model.grant(NIC, frame, 4096);
    driver.attach(first.root(), 1);
    assert!(!model.dma(NIC, IOVA, DmaAccess::Read).is_contained());
    driver.flush();
    model.clone().write_memory(driver.entry(0), 0);
    assert!(!model.dma(NIC, IOVA, DmaAccess::Read).is_contained(), "still cached");
    model.clone().write_memory(driver.entry(3), second.root().as_u64());
    model.clone().write_memory(driver.entry(0), 0b1101);
    model.clone().barrier();
    model.revoke(NIC);
    model.grant(NIC, other, 4096);
    assert_eq!(model.dma(NIC, IOVA, DmaAccess::Read), Outcome::Translated(frame));
    let violations = model.violations();
    assert!(violations.iter().any(is_foreign), "{violations:#x?}");
    assert!(violations.iter().any(|violation| matches!(violation, Violation::LiveEntryChanged { .. })));
}

#[test]
fn a_body_stored_with_word_0_is_seen() {
    // No CFGI between body and word 0: parts of the invalid entry may have been read ahead.
    let (model, mut driver) = sloppy();
    let ((first, frame), (second, other)) = (vm(&model), vm(&model));
    model.grant(NIC, frame, 4096);
    driver.attach(first.root(), 1);
    model.clone().write_memory(driver.entry(0), 0);
    driver.flush();
    driver.send(&[Command::TlbiNsnhAll, Command::Sync]);
    model.revoke(NIC);
    model.grant(NIC, other, 4096);
    model.attack_with(NIC, IOVA);
    model.clone().write_memory(driver.entry(3), second.root().as_u64());
    model.clone().barrier();
    model.clone().write_memory(driver.entry(0), 0b1101);
    driver.flush();
    let violations = model.violations();
    assert!(violations.iter().any(is_foreign), "{violations:#x?}");
}

#[test]
fn a_word_0_before_its_body_is_seen() {
    let (model, mut driver) = sloppy();
    let (table, frame) = vm(&model);
    model.grant(NIC, frame, 4096);
    model.clone().write_memory(driver.entry(3), table.root().as_u64());
    model.clone().write_memory(driver.entry(0), 0b1101);
    driver.flush();
    let violations = model.violations();
    assert!(violations.iter().any(|violation| matches!(violation, Violation::EntryNotPublished { .. })));
}

#[test]
fn freeing_a_table_that_an_entry_points_to_is_seen() {
    // hvisor, Jailhouse: after a VM's end its entry still points at freed tables.
    let (model, mut driver) = sloppy();
    let (table, frame) = vm(&model);
    model.grant(NIC, frame, 4096);
    driver.attach(table.root(), 1);
    model.assert_clean();
    model.release(table.root(), 4096);
    assert!(model.violations().iter().any(is_freed));
}

#[test]
fn freeing_memory_that_only_the_tlb_reaches_is_seen() {
    let (model, mut driver) = sloppy();
    let (table, frame) = vm(&model);
    model.grant(NIC, frame, 4096);
    driver.attach(table.root(), 1);
    assert!(!model.dma(NIC, IOVA, DmaAccess::Read).is_contained());
    model.clone().write_memory(driver.entry(0), 0);
    driver.flush();
    model.assert_clean();
    model.release(frame, 4096);
    assert!(model.violations().iter().any(is_freed));
}

#[test]
fn a_tlbi_without_its_sync_is_seen() {
    let (model, mut driver) = sloppy();
    let (table, frame) = vm(&model);
    model.grant(NIC, frame, 4096);
    driver.attach(table.root(), 1);
    assert!(!model.dma(NIC, IOVA, DmaAccess::Read).is_contained());
    model.clone().write_memory(driver.entry(0), 0);
    driver.flush();
    driver.send(&[Command::TlbiS12Vmall { vmid: Vmid::new(1).expect("a vmid") }]);
    model.release(frame, 4096);
    assert!(model.violations().iter().any(is_freed));
}

#[test]
fn prod_before_the_command_is_seen() {
    let (model, driver) = sloppy();
    let at = driver.queue.as_u64() + u64::from(driver.prod) * 16;
    let mut port = model.clone();
    port.write_memory(PhysAddr::new(at), Command::Sync.encode()[0]);
    port.write32(offset::CMDQ_PROD, driver.prod + 1);
    assert!(matches!(model.violations()[..], [Violation::CommandNotPublished { index: 3 }, ..]));
}

#[test]
fn registers_written_at_the_wrong_time_are_seen() {
    let (model, _driver) = sloppy();
    let mut port = model.clone();
    type Act = fn(&mut Model);
    let cases: [(Act, Violation); 8] = [
        (|port| port.write64(offset::STRTAB_BASE, 0), Violation::Guarded { register: "STRTAB_BASE" }),
        (|port| port.write64(offset::CMDQ_BASE, 0x4000_0005), Violation::Guarded { register: "CMDQ_BASE" }),
        (|port| port.write32(offset::CR1, 0), Violation::Guarded { register: "CR1" }),
        (|port| port.write32(offset::CR2, 0), Violation::Guarded { register: "CR2" }),
        (|port| port.write32(offset::CMDQ_CONS, 0), Violation::Guarded { register: "CMDQ_CONS" }),
        (|port| port.write32(offset::GERRORN, 1 << 3), Violation::ErrorToggled { bits: 1 << 3 }),
        (
            |port| port.write32(offset::GBPA, 0),
            Violation::Register { offset: offset::GBPA, what: "written without UPDATE" },
        ),
        (
            |port| port.write32(offset::IDR0, 0),
            Violation::Register { offset: 0, what: "not a 32-bit register that can be written" },
        ),
    ];
    for (act, expected) in cases {
        let before = model.violations().len();
        act(&mut port);
        let found = model.violations();
        assert_eq!(found[before..], [expected]);
    }
}

#[test]
fn reserved_bits_in_entries_are_seen() {
    for (word, value) in
        [(0, 1 << 6), (1, 1 << 28), (1, 1 << 44), (2, 1 << 57), (2, 1 << 52), (2, 1 << 59), (3, 1 << 60), (5, 1)]
    {
        let (model, mut driver) = sloppy();
        let (table, frame) = vm(&model);
        model.grant(NIC, frame, 4096);
        driver.attach(table.root(), 1);
        let old = model.clone().read_memory(driver.entry(word));
        let first = model.clone().read_memory(driver.entry(0));
        model.clone().write_memory(driver.entry(0), 0);
        driver.flush();
        if word != 0 {
            model.clone().write_memory(driver.entry(word), old | value);
        }
        driver.flush();
        model.clone().write_memory(driver.entry(0), if word == 0 { first | value } else { first });
        driver.flush();
        let outcome = model.dma(NIC, IOVA, DmaAccess::Read);
        assert!(outcome.is_contained(), "word {word} {value:#x}: {outcome:?}");
        assert!(
            matches!(model.violations()[..], [Violation::Reserved { .. }]),
            "word {word} {value:#x}: {:?}",
            model.violations()
        );
    }
}

#[test]
fn walks_fault_as_hardware_does() {
    use crate::event::Reason;
    let (model, mut driver) = sloppy();
    let (mut table, frame) = vm(&model);
    model.grant(NIC, frame, 4096);
    driver.attach(table.root(), 1);
    let page = |number: u64| Ipa::new(0x4000_0000 + number * 4096);
    let leaf = frame.as_u64() | 3 << 8 | 0xf << 2 | 3;
    table.map_page(page(1), frame, false);
    table.store(page(2), 3, leaf | 3 << 6);
    table.store(page(3), 3, 1 << 41 | leaf | 1 << 10 | 3 << 6);
    table.store(page(4), 3, leaf & !2 | 1 << 10 | 3 << 6);
    table.store(page(5), 3, 0);
    table.store(Ipa::new(0x4060_0000), 2, 0x0100_0000 | 3);
    let cases = [
        (1, DmaAccess::Write, Reason::Permission),
        (2, DmaAccess::Read, Reason::AccessFlag),
        (3, DmaAccess::Read, Reason::AddressSize),
        (4, DmaAccess::Read, Reason::Translation),
        (5, DmaAccess::Read, Reason::Translation),
        (0x600, DmaAccess::Read, Reason::WalkAbort),
    ];
    for (number, access, expected) in cases {
        let iova = Iova::new(page(number).as_u64());
        match model.dma(NIC, iova, access) {
            Outcome::Faulted(event) => assert_eq!(event.reason, expected, "page {number}"),
            other => panic!("page {number}: {other:?}"),
        }
    }
    assert_eq!(model.dma(NIC, Iova::identity(page(1)), DmaAccess::Read), Outcome::Translated(frame));
    model.assert_clean();
}
