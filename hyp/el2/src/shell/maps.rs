//! What the shell says of DMA maps.

use bulkhead_abi::Counter;
use bulkhead_dma::map::SAMPLED_EVERY;

use super::say;
use crate::{
    dmamap::{self, Maps},
    instructions, smmu,
    text::Bytes,
    time,
    vm::Vm,
};

/// Every VM with DMA maps: what there is, what was done, what it cost.
pub fn all() {
    for vm in crate::vm::all() {
        if let Some(maps) = vm.dma.maps() {
            of_vm(vm, maps);
        }
    }
}

fn of_vm(vm: &Vm, maps: &Maps) {
    let count = |counter| maps.counter(counter);
    let settings = maps.settings();
    say!(
        "vm {} maps: {} of {}, leased {}, leaf tables {} of {}; {}, flush {}",
        vm.name(),
        count(Counter::Maps),
        settings.maps,
        Bytes(count(Counter::LeasedBytes)),
        count(Counter::Tables),
        settings.tables,
        settings.strategy.name(),
        settings.flush.name()
    );
    for channel in (0..maps.channels()).filter(|channel| maps.counter_of(*channel, Counter::Creates) != 0) {
        let count = |counter| maps.counter_of(channel, counter);
        say!(
            "  channel {channel}: maps {}, creates {} destroys {}, loads {} unloads {}, pages {} stores {}",
            count(Counter::Maps),
            count(Counter::Creates),
            count(Counter::Destroys),
            count(Counter::Loads),
            count(Counter::Unloads),
            count(Counter::Pages),
            count(Counter::Stores)
        );
        say!(
            "    commands: page {} range {} vmid {}, syncs {}, policy switches {}, timeouts {}",
            count(Counter::PageCommands),
            count(Counter::RangeCommands),
            count(Counter::ContextCommands),
            count(Counter::Syncs),
            count(Counter::Switches),
            count(Counter::Timeouts)
        );
        if maps.is_sampling() {
            say!(
                "    sampled, one map in {SAMPLED_EVERY}: pages {} touched {}",
                count(Counter::SampledPages),
                count(Counter::TouchedPages)
            );
        }
    }
    for &id in vm.smmus() {
        if let Some(rides) = smmu::with(id, |driver| driver.rides(maps.vmid())) {
            say!("  smmu {} since power-on: flushes by another's sync {rides}", id.0);
        }
    }
    calls(vm, maps);
    streams(vm);
}

/// What is known of each stream by itself: its devices share one table and one VMID, so that the SMMU is told of all of
/// them at once, and a guest does not say which device a map is for.
fn streams(vm: &Vm) {
    let count = vm.devices().count();
    for device in vm.devices() {
        let key = device.stream;
        let faults = smmu::with(key.smmu, |driver| driver.find_stream(key.stream).map_or(0, |known| known.faults));
        let whose = match count {
            1 => "all of the above is its own",
            _ => "the above is of all of the vm's streams, which share a table and a vmid",
        };
        say!(
            "  stream {} smmu {} device {}: faults {}; {whose}",
            key.stream,
            key.smmu.0,
            device.function,
            faults.unwrap_or(0)
        );
    }
}

fn calls(vm: &Vm, maps: &Maps) {
    let sums = dmamap::sums(vm);
    let mean = |sum: u64| sum.checked_div(sums.count).unwrap_or(0);
    say!(
        "  calls {}: mean {} ns worst {} ns; ring runs {} entries {}",
        sums.count,
        time::to_ns(mean(sums.ticks)),
        time::to_ns(sums.worst_ticks),
        maps.counter(Counter::RingRuns),
        maps.counter(Counter::RingEntries)
    );
    if instructions::are_counted() {
        say!(
            "  el2 a call: mean {} worst {} instructions, by the cpu's pmu (INST_RETIRED at EL2 alone)",
            mean(sums.instructions),
            sums.worst_instructions
        );
    } else {
        say!(
            "  el2 a call: mean {} worst {} ticks of the system counter ({} a second): the cpu's pmu counts no instructions",
            mean(sums.ticks),
            sums.worst_ticks,
            time::frequency()
        );
    }
}
