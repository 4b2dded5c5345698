//! What a VM's virtio IOMMU is doing, for the shell.

use bulkhead_dma::flush::FlushCounters;
use bulkhead_vdev::virtio_iommu::Tally;

use super::VirtualIommu;
use crate::{
    console::{self, Writer},
    stats,
    vm::Vm,
};

macro_rules! say {
    ($($argument:tt)*) => {
        console::line(Writer::Hypervisor, console::NAME, format_args!($($argument)*))
    };
}

/// What its guest asked for, and what that costs.
pub fn show(viommu: &VirtualIommu, vm: &Vm) {
    let Tally { requests, refused, faults, lost } = viommu.device.tally();
    let calls: u64 = vm.cpus().map(|cpu| cpu.exits.of(stats::Reason::Smmu as usize)).sum();
    let (domains, used, pages) = viommu.tables.usage();
    say!("vm {}: virtio iommu, {calls} exits, requests {requests}, refused {refused}", vm.name());
    say!("  faults told {faults}, dropped {lost}; domains {domains}, table pages {used} of {pages}");
    for (vmid, leaves, counters) in viommu.tables.counters() {
        let FlushCounters { by_page, by_range, by_context, switches, .. } = counters;
        say!(
            "  domain of vmid {}: {leaves} leaves; flushes by page {by_page} range {by_range} context {by_context}, commands {}; policy switches {switches}",
            vmid.as_u16(),
            counters.commands()
        );
    }
}
