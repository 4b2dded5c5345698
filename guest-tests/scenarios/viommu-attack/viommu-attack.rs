//! Endpoints, domains and ranges that are not the VM's, in everything that its virtio IOMMU takes them from.
#![no_std]
#![no_main]

mod maps;
mod queues;

use bulkhead_core::vplat::VIOMMU_BASE;
use bulkhead_guest_tests::{
    check,
    forbidden::{self, Target},
    params, program, timer,
    viommu::{
        ENDPOINT, Rig,
        request::{self, INVAL, NOENT, OK, RANGE, READ, WRITE},
    },
};

program!(main);

/// Where attacks map things.
const IOVA: u64 = 0x30_0000_0000;
const PAGE: u64 = 4096;

fn span(first: u64, bytes: u64) -> (u64, u64) {
    (first, first.wrapping_add(bytes - 1))
}

fn targets() -> impl Iterator<Item = Target> {
    forbidden::targets([("the top", 0xffff_ffff_ffff_f000), ("IOMMU", VIOMMU_BASE.as_u64())])
}

/// Endpoints and domains that there are not, and flags and fields that nobody knows.
fn forged(rig: &mut Rig) {
    let iommu = rig.iommu;
    // 0x10 is the stream's number in the machine, 0 that of the bridge.
    for endpoint in [0, 1, 9, 16, 0x10, 0x100, 0xffff, u32::MAX] {
        let answers = (iommu.attach(2, endpoint, 0), iommu.detach(Rig::DOMAIN, endpoint));
        check!(answers == (NOENT, NOENT), "endpoint {endpoint:#x}"; answers);
        iommu.queue(&request::probe(endpoint), 36);
        let is_refused = iommu.kick() && iommu.send(&request::probe(endpoint)) == NOENT;
        check!(is_refused, "endpoint {endpoint:#x}: no properties");
    }
    for domain in [0x1_0000, 0x8000_0001, u32::MAX] {
        let answer = iommu.attach(domain, ENDPOINT, 0);
        check!(answer == RANGE, "domain {domain:#x}: ATTACH"; answer);
        let answer = iommu.map(domain, span(IOVA, PAGE), rig.free, READ);
        check!(answer == RANGE, "domain {domain:#x}: MAP"; answer);
    }
    for domain in [0, 2, 0xffff] {
        let answers = (iommu.map(domain, span(IOVA, PAGE), rig.free, READ), iommu.unmap(domain, span(0, 1 << 39)));
        check!(answers == (NOENT, NOENT), "domain {domain:#x}: nobody is in it"; answers);
        check!(iommu.detach(domain, ENDPOINT) == INVAL, "domain {domain:#x}: nor our device");
    }
    for flags in [2, 0x8000_0000, u32::MAX] {
        check!(iommu.attach(2, ENDPOINT, flags) == INVAL, "ATTACH with flags {flags:#x}");
    }
    check!(iommu.send(&[1, 2, ENDPOINT, 0, 1]) == INVAL, "ATTACH with something reserved");
    check!(iommu.attach(Rig::DOMAIN, ENDPOINT, request::BYPASS) == INVAL, "a domain with maps is no bypass domain");
    check!(rig.works(), "it works after forged numbers");
}

/// The hypervisor's address in the machine is an address of our own RAM as well: there the device reaches our RAM.
fn own_at(rig: &mut Rig, at: u64) {
    let is_mapped = rig.iommu.map(Rig::DOMAIN, span(IOVA, PAGE), at, READ | WRITE) == OK;
    check!(is_mapped && rig.probe.reaches(IOVA, at), "the hypervisor's address: our own memory");
    check!(rig.iommu.unmap(Rig::DOMAIN, span(IOVA, PAGE)) == OK, "and no more");
}

/// What is no request comes back with nothing written.
fn no_requests(rig: &mut Rig) {
    let iommu = rig.iommu;
    for kind in [0, 6, 0x7f, 0xff] {
        check!(iommu.send(&[kind, 0, 0, 0, 0, 0, 0, 0, 0]).is_none(), "type {kind:#x}");
    }
    for (name, words) in
        [("ATTACH", &request::attach(2, ENDPOINT, 0)[..]), ("UNMAP", &request::unmap(1, (0, u64::MAX)))]
    {
        check!(iommu.send(&words[..words.len() - 1]).is_none(), "{name}, cut short");
    }
    check!(iommu.send(&[3]).is_none(), "MAP, its head alone");
    check!(rig.works(), "it works after what is no request");
}

fn main() {
    timer::delay_ms(params::number("wait", 0));
    let mut rig = Rig::new();
    check!(rig.restart(), "a domain works");
    own_at(&mut rig, params::number("hyp", 0x4020_0000));
    forged(&mut rig);
    no_requests(&mut rig);
    maps::attack(&mut rig);
    queues::attack(&mut rig);
    check!(rig.restart(), "a domain works in the end");
    check!(rig.iommu.unmap(Rig::DOMAIN, (0, u64::MAX)) == OK, "nothing is left");
    rig.probe.read(Rig::IOVA);
    check!(
        rig.iommu.wait_fault().is_some_and(|fault| fault.address == Rig::IOVA),
        "the device's read after that is a fault"
    );
}
