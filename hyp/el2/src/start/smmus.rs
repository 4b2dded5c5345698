//! SMMUs: probed and taken over, or refused with the reason.

use bulkhead_core::{
    ids::SmmuId,
    machine::{Machine, SmmuKind},
};
use bulkhead_smmu::{Config, Smmu};
use log::{error, info};

use crate::{
    memory,
    mmu::Access,
    smmu::{self, Hardware},
};

/// Takes every SMMU over: when this returns, each that is in use aborts every stream.
#[inline(never)]
pub fn take_over(machine: &Machine) {
    if machine.smmus.is_empty() {
        error!("the device tree has no SMMU: no device can be given to a VM");
    }
    for (id, described) in machine.numbered_smmus() {
        if described.kind != SmmuKind::V3 {
            error!("smmu {}: {:?} is not driven by this version (SMMUv3 is)", id.0, described.kind);
            continue;
        }
        let range = smmu::register_range(described.registers);
        if let Err(problem) = memory::map(range, Access::Device) {
            error!("smmu {}: {problem}", id.0);
            continue;
        }
        // SAFETY: the device tree says that an SMMUv3 is there, it is mapped, and only the driver and a panic use it.
        let hardware = unsafe { Hardware::new(range.start(), range.size_bytes()) };
        smmu::announce(id, hardware);
        let config = config(machine, id, described.is_coherent);
        match Smmu::take_over(hardware, id, config) {
            Ok(driver) => {
                info!("smmu {} at {}: {}, every stream in abort", id.0, range.start(), driver.features());
                smmu::install(id, driver);
            }
            Err(problem) => {
                error!("smmu {} at {}: {problem}: its devices cannot be given to a VM", id.0, range.start())
            }
        }
    }
}

fn config(machine: &Machine, id: SmmuId, is_coherent: bool) -> Config {
    let highest = machine.memory.iter().map(|range| range.end().as_u64() - 1).max().unwrap_or(0);
    let bits = 64 - highest.leading_zeros();
    let streams = machine.pci_hosts.iter().flat_map(|host| &host.streams).filter(|entry| entry.smmu == id);
    let last = streams.map(|entry| entry.stream.saturating_add(entry.count.saturating_sub(1))).max().unwrap_or(0);
    let mut config = Config::new(u8::try_from(bits).unwrap_or(64), last);
    // IDR0.COHACC says what the SMMU can do; a tree without `dma-coherent` says that the board cannot (rule 10).
    config.is_forced_non_coherent = !is_coherent;
    // A device that faults on each word of a transfer is no flood yet; lines on the console have a limit of their own.
    config.fault_limit = 4096;
    config
}
