//! Maps, moves and flushes one IOVA of one ASID for ever, beside another VM that does the same.
#![no_std]
#![no_main]

use bulkhead_guest_tests::{
    check, params, println, program,
    smmu::{Access, Rig, STREAM, command},
};

program!(main);

const IOVA: u64 = 0x55_5555_5000;
const ASID: u16 = 7;

/// Whether there are events, each of what our own device did just now.
fn are_ours(rig: &Rig) -> bool {
    let mut next = rig.smmu.wait_event();
    let mut are_ours = next.is_some();
    while let Some(event) = next {
        are_ours &= event.stream() == STREAM && event.address() & !7 == IOVA;
        next = rig.smmu.take_event();
    }
    are_ours
}

/// One round: the page that is mapped is reached, with what this VM laid there, and nothing when it is unmapped.
fn round(rig: &mut Rig, number: u64) -> bool {
    let flush = [
        command::tlbi_va(ASID, IOVA),
        command::tlbi_asid(ASID),
        command::tlbi_all(),
        command::tlbi_range(ASID, IOVA - 0x1000, 2),
    ][(number % 4) as usize];
    let page = rig.free + number % 16 * 0x1000;
    rig.space.map(IOVA, page, Access::Both);
    let is_mapped = rig.smmu.sync(&[flush]) && rig.probe.reaches(IOVA, page);
    // Another transfer with what the TLB holds by now.
    let is_kept = rig.probe.reaches(IOVA, page);
    rig.space.unmap(IOVA);
    let is_unmapped = rig.smmu.sync(&[flush]) && !rig.probe.writes(IOVA, page);
    let is_told = are_ours(rig);
    let is_right = is_mapped && is_kept && is_unmapped && is_told;
    if !is_right {
        println!("FAIL: round {number}: {is_mapped} {is_kept} {is_unmapped} {is_told}");
    }
    is_right
}

fn main() {
    let mut rig = Rig::new(ASID);
    check!(rig.start() && rig.works(), "stage 1 works");
    let rounds = params::number("rounds", 16);
    check!((0..rounds).all(|number| round(&mut rig, number)), "{rounds} rounds");
    check!(rig.works(), "stage 1 works in the end");
}
