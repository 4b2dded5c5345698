//! One line with what a VM's virtual SMMU was asked for and what that took, for people and for the benchmark.

use bulkhead_dma::flush::{Stage1Counters, Stage1Tally};
use log::info;

use crate::{stats::CallSums, vm::Vm};

/// Prints the line, if the VM has a virtual SMMU.
pub fn report(vm: &Vm) {
    let Some(vsmmu) = &vm.vsmmu else { return };
    let locked = vsmmu.lock();
    let (guest_syncs, Stage1Counters { guest, sent, syncs, nothing, switches }) = (locked.syncs(), locked.counters());
    drop(locked);
    let mut calls = CallSums::default();
    vm.cpus().for_each(|cpu| cpu.calls.add_to(&mut calls));
    let mut line = heapless::String::<384>::new();
    for (whose, tally) in [("guest", guest), ("sent", sent)] {
        let Stage1Tally { page, range, asid, all } = tally;
        let counts = format_args!(" {whose}-page={page} {whose}-range={range} {whose}-asid={asid} {whose}-all={all}");
        let _ = core::fmt::write(&mut line, counts);
    }
    let CallSums { count, instructions, worst_instructions, .. } = calls;
    info!(
        "vsmmu {} guest-syncs={guest_syncs}{line} syncs={syncs} nothing={nothing} switches={switches} calls={count} \
         instructions={instructions} worst={worst_instructions}",
        vm.name()
    );
}
