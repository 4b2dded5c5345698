//! A driver of the VM's virtio IOMMU: domains, mappings, faults and reset do what virtio 1.3 says.
#![no_std]
#![no_main]

use bulkhead_core::vplat::{RAM_BASE, VIOMMU_BASE, VIOMMU_INTID};
use bulkhead_guest_tests::{
    check, cpu,
    gic::{self, Bank},
    irq, mem, program,
    viommu::{
        ENDPOINT, Fault, Rig, Viommu, register,
        request::{self, INVAL, NOENT, OK, READ, WRITE},
    },
};

program!(main);

const IOVA: u64 = 0x20_0000_0000;
const PAGE: u64 = 4096;
const BLOCK: u64 = 0x20_0000;
const DOMAIN: u32 = Rig::DOMAIN;

fn span(first: u64, bytes: u64) -> (u64, u64) {
    (first, first + bytes - 1)
}

fn acknowledge(_: u32) {
    mem::write32(VIOMMU_BASE.as_u64() + register::INTERRUPT_ACK, 3);
}

fn set_bypass(is_on: bool) {
    mem::write8(VIOMMU_BASE.as_u64() + register::BYPASS, is_on.into());
}

/// The fault of what the device did just now.
fn expect_fault(iommu: Viommu, flags: u32, address: u64) {
    let fault = iommu.wait_fault();
    let is_it = fault == Some(Fault { reason: Fault::MAPPING, flags, endpoint: ENDPOINT, address });
    check!(is_it, "the fault is told"; fault);
    iommu.drain_faults();
}

fn identification(iommu: Viommu) {
    let registers = [register::MAGIC, register::VERSION, register::DEVICE_ID].map(|offset| iommu.read(offset));
    check!(registers == [0x7472_6976, 2, 23], "a virtio IOMMU"; registers);
    iommu.write(register::DEVICE_FEATURES_SEL, 0);
    let features = iommu.read(register::DEVICE_FEATURES);
    check!(features == register::FEATURES, "features"; features);
    let range = (iommu.read(register::INPUT_LAST), iommu.read(register::INPUT_LAST + 4));
    check!(range == (u32::MAX, 0x7f), "39 bits of input"; range);
}

fn without_domain(rig: &mut Rig) {
    let own = rig.free;
    check!(!rig.probe.writes(own, own), "no driver: nothing is written");
    check!(rig.iommu.start() && !rig.probe.writes(own, own), "no domain: nothing is written");
    let fault = rig.iommu.wait_fault();
    check!(fault.is_some_and(|fault| (fault.reason, fault.endpoint) == (Fault::DOMAIN, ENDPOINT)), "which is told"; fault);
    set_bypass(true);
    check!(rig.probe.reaches(own, own), "bypass: memory by its own address");
    set_bypass(false);
    check!(!rig.probe.writes(own, own), "no bypass: nothing is written");
    rig.iommu.drain_faults();
}

fn mappings(rig: &mut Rig) {
    let (iommu, own) = (rig.iommu, rig.free);
    check!(rig.attach(DOMAIN) && rig.works(), "a domain: a page");
    check!(iommu.map(DOMAIN, span(IOVA, PAGE), own, READ) == OK, "MAP to be read");
    // First: QEMU records no fault of a permission that it has cached.
    let interrupts = irq::count(0, VIOMMU_INTID.0);
    check!(!rig.probe.writes(IOVA, own), "it is not written");
    expect_fault(iommu, Fault::WRITE, IOVA);
    check!(irq::count(0, VIOMMU_INTID.0) > interrupts, "by interrupt");
    check!(rig.probe.reads(IOVA, own), "but read");
    check!(iommu.unmap(DOMAIN, span(IOVA, PAGE)) == OK, "UNMAP");
    check!(!rig.probe.reads(IOVA, own), "it is read no more");
    expect_fault(iommu, Fault::READ, IOVA);
    // A page, a block and two pages, when both addresses allow a block.
    let (first, at) = (IOVA + BLOCK - PAGE, (own + BLOCK).next_multiple_of(BLOCK) - PAGE);
    check!(
        iommu.map(DOMAIN, span(first, BLOCK + 3 * PAGE), at, READ | WRITE) == OK,
        "MAP of a page, a block and two pages"
    );
    for offset in [0, PAGE, PAGE + BLOCK / 2, PAGE + BLOCK, BLOCK + 3 * PAGE - 8] {
        check!(rig.probe.reaches(first + offset, at + offset), "at {offset:#x}");
    }
    check!(!rig.probe.writes(first - 8, at - 8), "not before it");
    check!(!rig.probe.writes(first + BLOCK + 3 * PAGE, at + BLOCK + 3 * PAGE), "nor behind it");
    iommu.drain_faults();
    // One notification: the IOVA moves.
    iommu.queue(&request::unmap(DOMAIN, span(first, BLOCK + 3 * PAGE)), 4);
    iommu.queue(&request::map(DOMAIN, span(IOVA + BLOCK, BLOCK), at + PAGE + BLOCK, READ | WRITE), 4);
    check!(iommu.kick(), "UNMAP and MAP");
    check!(rig.probe.reaches(IOVA + BLOCK, at + PAGE + BLOCK), "the new one is reached");
    check!(!rig.probe.writes(IOVA + BLOCK, at + PAGE), "the old one is not");
    check!(iommu.unmap(DOMAIN, (0, u64::MAX)) == OK, "UNMAP of everything");
    check!(!rig.probe.writes(Rig::IOVA, own), "nothing is left");
    iommu.drain_faults();
}

fn domains(rig: &mut Rig) {
    let (iommu, own) = (rig.iommu, rig.free);
    check!(rig.attach(DOMAIN) && rig.works(), "a domain again");
    check!(rig.attach(2) && rig.works(), "another domain");
    check!(iommu.map(DOMAIN, span(IOVA, PAGE), own, READ) == NOENT, "the first has gone");
    check!(iommu.attach(3, ENDPOINT, request::BYPASS) == OK, "a bypass domain");
    rig.probe.through_stage1(false);
    check!(rig.probe.reaches(own, own), "memory by its own address");
    check!(!rig.probe.writes(Rig::IOVA, own), "and by no other");
    check!(iommu.map(3, span(IOVA, PAGE), own, READ) == INVAL, "which maps nothing");
    check!(iommu.detach(3, ENDPOINT) == OK, "DETACH");
    check!(!rig.probe.writes(own, own), "nothing is written");
    iommu.drain_faults();
}

fn properties(iommu: Viommu) {
    let answer = iommu.queue(&request::probe(ENDPOINT), 36);
    check!(iommu.kick() && iommu.written() == 36, "PROBE");
    // RESV_MEM of 20 bytes, MSI: the interrupt controller's addresses.
    let words = [0, 8, 16, 24].map(|offset| mem::read64(answer + offset));
    check!(words == [1 | 20 << 16 | 1 << 32, 0x0800_0000, 0x08ff_ffff, 0], "one window of MSIs"; words);
    check!(mem::read8(answer + 32) == 0, "status");
    check!(iommu.map(DOMAIN, span(0x0800_0000, PAGE), RAM_BASE.as_u64(), READ) == NOENT, "no domain, no MAP");
}

fn main() {
    gic::init();
    gic::set(VIOMMU_INTID.0, Bank::Enable);
    irq::set_handler(acknowledge);
    cpu::unmask();
    let mut rig = Rig::new();
    identification(rig.iommu);
    without_domain(&mut rig);
    mappings(&mut rig);
    domains(&mut rig);
    properties(rig.iommu);
    check!(rig.attach(DOMAIN) && rig.works(), "a domain in the end");
    rig.iommu.write(register::STATUS, 0);
    let own = rig.free;
    check!(!rig.probe.writes(Rig::IOVA, own), "the reset has detached it");
    check!(rig.restart(), "begun again");
}
