//! Maps up to the quota of tables, queues full of requests, and faults without end; then a reset, after which all is well.
#![no_std]
#![no_main]

use bulkhead_guest_tests::{
    check,
    edu::BUFFER_BYTES,
    params, println, program, psci, timer,
    viommu::{
        ENDPOINT, Rig,
        request::{self, NOMEM, OK, READ},
    },
};

program!(main);

/// Where pages are mapped, each in a table of its own.
const IOVA: u64 = 0x20_0000_0000;
const STRIDE: u64 = 0x20_0000;
const PAGE: u64 = 4096;
/// Addresses that a request walks through in many steps.
const LONG: u64 = 0x40_0000_0000;
const DOMAIN: u32 = Rig::DOMAIN;

fn page(number: u64) -> (u64, u64) {
    let first = IOVA + number * STRIDE;
    (first, first + PAGE - 1)
}

/// Maps pages until there are no tables; how many.
fn fill(rig: &Rig) -> u64 {
    let mut number = 0;
    loop {
        match rig.iommu.map(DOMAIN, page(number), rig.free, READ) {
            OK => number += 1,
            answer => {
                check!(answer == NOMEM, "NOMEM at last"; answer);
                return number;
            }
        }
    }
}

fn quota(rig: &mut Rig) {
    let count = fill(rig);
    check!(count > 100, "more than 100 tables"; count);
    check!(rig.works() && rig.probe.reads(IOVA, rig.free), "what is mapped is reached");
    check!(rig.iommu.attach(2, ENDPOINT, 0) == OK, "another domain takes the first's tables back");
    check!(rig.attach(DOMAIN) && fill(rig) == count, "as many again");
    check!(rig.iommu.unmap(DOMAIN, (IOVA, LONG)) == OK, "UNMAP of them all");
    check!(fill(rig) == count, "as many a third time, after one flush");
    check!(rig.works(), "the domain works at its quota");
    check!(rig.iommu.unmap(DOMAIN, (IOVA, LONG)) == OK, "UNMAP again");
}

/// What takes longest: all of RAM by single pages, since the addresses' distance is odd, and the way through all addresses.
fn long(rig: &Rig) -> bool {
    let start = params::ram_end() - 0x80_0000;
    rig.iommu.queue(&request::map(DOMAIN, (LONG + PAGE, LONG + 0x80_0000 - 1), start, READ), 4);
    rig.iommu.queue(&request::unmap(DOMAIN, (LONG, 0x7f_0000_0000 - 1)), 4);
    rig.iommu.kick()
}

fn main() {
    let (requests, faults) = (params::number("requests", 10), params::number("faults", 14));
    let mut rig = Rig::new();
    rig.probe.edu.wait();
    check!(rig.restart(), "a domain works");
    if timer::seconds() >= faults {
        return;
    }
    quota(&mut rig);
    println!("flooding with requests");
    let mut rounds = 0;
    while timer::seconds() < requests {
        for number in 0..30 {
            // A flush each.
            rig.iommu.queue(&request::attach(2 + number % 2, ENDPOINT, 0), 4);
        }
        assert!(rig.iommu.kick() && rig.attach(DOMAIN) && long(&rig), "all come back");
        rounds += 1;
    }
    check!(rig.works(), "the domain works after {rounds} rounds of requests");
    println!("flooding with faults");
    let mut iova = LONG;
    while timer::seconds() < faults {
        rig.probe.edu.write(iova, 0, BUFFER_BYTES);
        iova += BUFFER_BYTES;
    }
    println!("resetting");
    psci::system_reset();
}
