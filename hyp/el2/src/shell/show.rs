//! What the shell's questions answer.

use core::{fmt::Write, sync::atomic::Ordering::Relaxed};

use bulkhead_core::ids::{SmmuId, StreamKey};
use bulkhead_dma::flush::{Stage1Counters, Stage1Tally};
use heapless::String;

use super::say;
use crate::{boot, frames, memory, pmcg, smmu, start::NEITHER, stats, text::Bytes, time, viommu, vm, vm::State};

/// `vm`: one line a VM, one a vCPU.
pub fn vms() {
    for vm in vm::all() {
        say!("{:<16} {:<11} boots {}, {} vCPUs", vm.name(), vm.state(), vm.boots.load(Relaxed), vm.vcpu_count());
        for (vcpu, cpu) in vm.cpus().enumerate() {
            let mut reasons = String::<128>::new();
            for (reason, name) in stats::NAMES.iter().enumerate() {
                let _ = write!(reasons, " {name} {}", cpu.exits.of(reason));
            }
            let is_running = vm.is_inside(vcpu) && vm.state() == State::Running;
            let up_us = if is_running { time::to_us(time::ticks().wrapping_sub(cpu.exits.started())) } else { 0 };
            // WFI is the guest's own, so the time on the CPU holds its idle time too; what EL2 took is exact.
            let el2_us = time::to_us(cpu.exits.el2_ticks());
            say!(
                "  vcpu {vcpu} on {}: {} s on the CPU, {} ms in EL2, exits {}:{reasons}",
                cpu.id,
                up_us / 1_000_000,
                el2_us / 1000,
                cpu.exits.total()
            );
        }
        for device in vm.devices() {
            say!("  device {} smmu {} stream {}", device.function, device.stream.smmu.0, device.stream.stream);
        }
    }
}

/// `smmu`: counters, then one line a stream.
pub fn smmus() {
    for (id, _) in boot::machine().numbered_smmus() {
        let shown = smmu::with(id, |driver| {
            let counters = driver.counters();
            let commands = counters.commands;
            say!(
                "smmu {}: commands: configuration {} tlb {} sync {}, refused {}, timeouts {}",
                id.0,
                commands.configuration,
                commands.tlb,
                commands.syncs,
                commands.refused,
                commands.timeouts
            );
            say!(
                "  attaches {}, detaches {}, flushes of a vmid {} of a range {}; faults {} ({} not shown), overflows {}, global errors {}",
                counters.attaches,
                counters.detaches,
                counters.vmid_flushes,
                counters.range_flushes,
                counters.events,
                counters.events_dropped,
                counters.overflows,
                counters.global_errors
            );
            for stream in driver.streams() {
                let key = StreamKey { smmu: id, stream: stream.stream };
                let has_it = |vm: &&vm::Vm| vm.devices().any(|device| device.stream == key);
                let owner = vm::all().find(has_it).map_or("?", vm::Vm::name);
                say!(
                    "  stream {} vm {owner} vmid {} {:?}, faults {} ({} not shown)",
                    stream.stream,
                    stream.vmid.as_u16(),
                    stream.state,
                    stream.faults,
                    stream.dropped
                );
            }
            say!("  every other stream is in abort");
            driver.features().has_access_flag_update
        });
        match shown {
            Some(has_access_flags) => translations(id, has_access_flags),
            None => say!("smmu {}: not in use", id.0),
        }
    }
    virtual_smmus();
    for vm in vm::all() {
        if let Some(viommu) = &vm.viommu {
            viommu::gate::show(viommu, vm);
        }
    }
}

/// Virtual SMMUs: what their guests asked for, and what the physical ones were told.
fn virtual_smmus() {
    for vm in vm::all() {
        let Some(vsmmu) = &vm.vsmmu else { continue };
        let Stage1Counters { guest, sent, syncs, nothing, switches } = vsmmu.lock().counters();
        let calls: u64 = vm.cpus().map(|cpu| cpu.exits.of(stats::Reason::Smmu as usize)).sum();
        say!("vm {}: smmu of its own, {calls} exits", vm.name());
        for (what, tally) in [("the guest's commands", guest), ("sent", sent)] {
            let Stage1Tally { page, range, asid, all } = tally;
            say!("  {what}: page {page} range {range} asid {asid} all {all}");
        }
        let lost = vm.waiting.lock().lost;
        say!("  batches {syncs}, empty ones {nothing}; policy switches {switches}; events lost {lost}");
    }
}

/// What is known of an SMMU's TLB, and by what.
fn translations(id: SmmuId, has_access_flags: bool) {
    pmcg::each(id, |group| {
        let all = group.counters.all();
        say!(
            "  tlb by the counter group at {} ({}), all streams: transactions {}, hits {} misses {}",
            group.at,
            group.claim.as_str(),
            all.transactions,
            all.hits(),
            all.misses
        );
        for device in vm::all().flat_map(vm::Vm::devices).filter(|device| device.stream.smmu == id) {
            let stream = device.stream.stream;
            if let Some(own) = group.counters.of(stream) {
                say!(
                    "    stream {stream}: transactions {}, hits {} misses {}",
                    own.transactions,
                    own.hits(),
                    own.misses
                );
            }
        }
    });
    match (pmcg::counts(id), has_access_flags) {
        (true, _) => (),
        (false, true) => {
            say!("  tlb: no counter group (PMCG): hits and misses are not known, what loads reached is sampled")
        }
        (false, false) => say!("  tlb: hits and misses are not known: {NEITHER}"),
    }
}

/// `mem`: the pool, and each VM.
pub fn memory() {
    let (total, taken, peaks) = memory::usage();
    let bytes = |frames: usize| Bytes(frames as u64 * 4096);
    say!("hypervisor {}: image and pool, {} of {} pool taken", crate::image::range(), bytes(taken), bytes(total));
    let of = |owner: usize| bytes(peaks.get(owner).copied().unwrap_or(0));
    say!("  peak: hypervisor {}, smmu {}", of(frames::Use::Hypervisor as usize), of(frames::Use::Smmu as usize));
    for vm in vm::all() {
        say!(
            "vm {:<16} {} at {}, tables {}",
            vm.name(),
            Bytes(vm.ram_phys.size_bytes()),
            vm.ram_phys,
            of(frames::vm_use(vm.id))
        );
    }
}
