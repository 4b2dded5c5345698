//! Ranges that wrap, are not aligned, lie elsewhere than in RAM, over each other, or are taken apart.

use bulkhead_guest_tests::{
    check, params,
    viommu::{
        Rig,
        request::{FAULT, INVAL, OK, RANGE, READ, WRITE},
    },
};

use super::{IOVA, PAGE, span, targets};

const DOMAIN: u32 = Rig::DOMAIN;
const BOTH: u32 = READ | WRITE;
const LAST: u64 = (1 << 39) - 1;
const BLOCK: u64 = 0x20_0000;
/// Two pages in the middle of a table.
const PAIR: u64 = IOVA + BLOCK + 2 * PAGE;

/// Ranges of endpoint addresses that there are not.
fn ranges(rig: &mut Rig) {
    let (iommu, own) = (rig.iommu, rig.free);
    for (name, range, ipa, expected) in [
        ("not from a page on", span(IOVA + 8, PAGE - 8), own + 8, RANGE),
        ("not to a page's end", span(IOVA, PAGE - 1), own, RANGE),
        ("to within a page", span(IOVA, PAGE), own + 0x800, RANGE),
        ("one byte", (IOVA, IOVA), own, RANGE),
        ("backwards", (IOVA, IOVA - 1), own, INVAL),
        ("from the end to the start", (u64::MAX - 0xfff, 0xfff), own, INVAL),
        ("past the last address", span(LAST + 1, PAGE), own, RANGE),
        ("over the last address", span(LAST - 0xfff, 2 * PAGE), own, RANGE),
        ("the last page of all", span(u64::MAX - 0xfff, PAGE), own, RANGE),
        ("everything", (0, u64::MAX), 0, RANGE),
        ("over the doorbells", span(0x0800_0000, PAGE), own, INVAL),
        ("to the doorbells", span(0x0700_0000, 0x0100_1000), own, INVAL),
        ("from the doorbells", span(0x08ff_f000, 2 * PAGE), own, INVAL),
    ] {
        let answer = iommu.map(DOMAIN, range, ipa, BOTH);
        check!(answer == expected, "MAP {name}"; answer);
    }
    for flags in [4, 8, 0x8000_0000, u32::MAX] {
        check!(iommu.map(DOMAIN, span(IOVA, PAGE), own, flags) == INVAL, "MAP with flags {flags:#x}");
    }
    check!(iommu.unmap(DOMAIN, (IOVA, IOVA - 1)) == INVAL, "UNMAP backwards");
    check!(iommu.unmap(DOMAIN, (LAST + 1, u64::MAX)) == OK, "UNMAP past the last address: nothing");
    check!(rig.works(), "it works after ranges");
}

/// Memory that is not the VM's: nothing of such a mapping is made.
fn elsewhere(rig: &mut Rig) {
    let iommu = rig.iommu;
    for target in targets() {
        let name = target.name;
        let answer = iommu.map(DOMAIN, span(IOVA, PAGE), target.at, BOTH);
        check!(answer == FAULT, "MAP of {name}"; answer);
        rig.probe.load();
        rig.probe.write(IOVA);
        rig.probe.read(IOVA);
        check!(rig.probe.has_read_nothing(), "{name}: nothing foreign was read");
    }
    let last = params::ram_end() - PAGE;
    for (name, ipa, bytes) in [
        ("the last page and one more", last, 2 * PAGE),
        ("one page less and the first", 0x4000_0000 - PAGE, 2 * PAGE),
        ("all of RAM and the other VM", 0x5f00_0000, 1 << 26),
        ("up to the end of addresses", last, (1 << 38) - PAGE),
        ("round the end of addresses", u64::MAX - 0xfff, 2 * PAGE),
    ] {
        let answer = iommu.map(DOMAIN, span(IOVA, bytes), ipa, BOTH);
        check!(answer == FAULT, "MAP of {name}"; answer);
        check!(!rig.probe.writes(IOVA, last), "{name}: nor the part that is ours");
    }
    iommu.drain_faults();
    check!(rig.works(), "it works after memory elsewhere");
}

/// Mappings over mappings.
fn over(rig: &mut Rig) {
    let (iommu, own) = (rig.iommu, rig.free);
    check!(iommu.map(DOMAIN, span(PAIR, 2 * PAGE), own, BOTH) == OK, "MAP of two pages");
    for (name, first, bytes) in [
        ("the same", PAIR, 2 * PAGE),
        ("the first of them", PAIR, PAGE),
        ("the second of them", PAIR + PAGE, PAGE),
        ("both and more", PAIR - PAGE, 4 * PAGE),
        ("a block", IOVA + BLOCK, BLOCK),
        ("a block and its end", IOVA, BLOCK + 3 * PAGE),
    ] {
        let answer = iommu.map(DOMAIN, span(first, bytes), own.next_multiple_of(BLOCK) + BLOCK, BOTH);
        check!(answer == INVAL, "MAP over {name}"; answer);
    }
    check!(rig.probe.reaches(PAIR + PAGE, own + PAGE), "they are what they were");
    check!(!rig.probe.writes(IOVA, own) && !rig.probe.writes(PAIR - PAGE, own), "and nothing is beside them");
    iommu.drain_faults();
    // A table below it: a block that is mapped is no table.
    let block = own.next_multiple_of(BLOCK) + BLOCK;
    check!(iommu.map(DOMAIN, span(IOVA, BLOCK), block, BOTH) == OK, "MAP of a block");
    check!(iommu.map(DOMAIN, span(IOVA + 5 * PAGE, PAGE), own, BOTH) == INVAL, "MAP of a page in it");
    check!(rig.probe.reaches(IOVA + 5 * PAGE, block + 5 * PAGE), "it is the block's");
}

/// Mappings taken apart: refused, and whole afterwards.
fn apart(rig: &mut Rig) {
    let (iommu, own) = (rig.iommu, rig.free);
    let block = own.next_multiple_of(BLOCK) + BLOCK;
    for (name, first, bytes) in [
        ("the first of two pages", PAIR, PAGE),
        ("the second of two pages", PAIR + PAGE, PAGE),
        ("a page of a block", IOVA + 5 * PAGE, PAGE),
        ("a block but for its end", IOVA, BLOCK - PAGE),
        ("a byte", IOVA + 8, 1),
        ("a block and one of two pages", IOVA, BLOCK + 3 * PAGE),
    ] {
        let answer = iommu.unmap(DOMAIN, span(first, bytes));
        check!(answer == RANGE, "UNMAP of {name}"; answer);
    }
    let is_whole = rig.probe.reaches(IOVA + 5 * PAGE, block + 5 * PAGE) && rig.probe.reaches(PAIR, own);
    check!(is_whole && rig.probe.reaches(PAIR + PAGE, own + PAGE), "all of them are whole");
    check!(
        iommu.unmap(DOMAIN, span(IOVA - 1, BLOCK + 4 * PAGE + 2)) == OK,
        "UNMAP of both, with what is between and beside"
    );
    for iova in [IOVA, IOVA + 5 * PAGE, PAIR, PAIR + PAGE] {
        rig.probe.read(iova);
        let fault = iommu.wait_fault();
        check!(fault.is_some_and(|fault| fault.address == iova), "a read at {iova:#x} is a fault"; fault);
        iommu.drain_faults();
    }
    check!(rig.works(), "it works after mappings taken apart");
}

pub fn attack(rig: &mut Rig) {
    ranges(rig);
    elsewhere(rig);
    over(rig);
    apart(rig);
}
