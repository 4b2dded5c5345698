//! Maps, moves and unmaps one IOVA of one domain for ever, beside another VM that does the same.
#![no_std]
#![no_main]

use bulkhead_guest_tests::{
    check, params, println, program,
    viommu::{
        ENDPOINT, Fault, Rig,
        request::{OK, READ, WRITE},
    },
};

program!(main);

const IOVA: u64 = 0x55_5555_5000;
const RANGE: (u64, u64) = (IOVA, IOVA + 0xfff);

/// Whether the VM is told of faults, each of what its own device did just now.
fn are_ours(rig: &Rig) -> bool {
    let mut next = rig.iommu.wait_fault();
    let mut are_ours = next.is_some();
    while let Some(fault) = next {
        are_ours &= fault.endpoint == ENDPOINT && fault.address & !7 == IOVA && fault.reason == Fault::MAPPING;
        next = rig.iommu.take_fault();
    }
    are_ours
}

/// One round: the page that is mapped is reached, with what this VM laid there, and nothing when it is unmapped.
fn round(rig: &mut Rig, number: u64) -> bool {
    let page = rig.free + number % 16 * 0x1000;
    let is_mapped = rig.iommu.map(Rig::DOMAIN, RANGE, page, READ | WRITE) == OK && rig.probe.reaches(IOVA, page);
    // Another transfer with what the TLB holds by now.
    let is_kept = rig.probe.reaches(IOVA, page);
    let is_unmapped = rig.iommu.unmap(Rig::DOMAIN, RANGE) == OK && !rig.probe.writes(IOVA, page);
    let is_told = are_ours(rig);
    let is_right = is_mapped && is_kept && is_unmapped && is_told;
    if !is_right {
        println!("FAIL: round {number}: {is_mapped} {is_kept} {is_unmapped} {is_told}");
    }
    is_right
}

fn main() {
    let mut rig = Rig::new();
    check!(rig.restart(), "a domain works");
    let rounds = params::number("rounds", 16);
    check!((0..rounds).all(|number| round(&mut rig, number)), "{rounds} rounds");
    check!(rig.works(), "the domain works in the end");
}
