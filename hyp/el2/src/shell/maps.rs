//! What the shell says of DMA maps.

use bulkhead_abi::Counter;

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
    }
    for id in vm.smmus() {
        if let Some(sent) = smmu::with(id, |driver| driver.vmid_counters(maps.vmid())) {
            say!(
                "  smmu {} since power-on: commands {} syncs {}, rides {}",
                id.0,
                sent.commands(),
                sent.syncs,
                sent.rides
            );
        }
    }
    calls(vm, maps);
    for device in vm.devices() {
        say!("  device {} stream {}: iotlb hits and misses not available", device.function, device.stream.stream);
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
        say!("  instructions at EL2 a call: mean {} worst {}", mean(sums.instructions), sums.worst_instructions);
    } else {
        say!("  instructions at EL2 a call: not available, the CPU does not count them");
    }
}
