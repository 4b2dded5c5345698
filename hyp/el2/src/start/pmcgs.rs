//! Counter groups of the SMMUs: started, or said why not; and what shows the use of translations without one.

use bulkhead_core::{
    ids::{SmmuId, StreamId},
    machine::{Machine, Pmcg as Described},
};
use bulkhead_smmu::Pmcg;
use log::{info, warn};

use crate::{
    memory,
    mmu::Access,
    pmcg::{self, Group, Pages},
    smmu,
};

/// Starts every group for the streams of the bundle's devices. Nothing but statistics depends on them.
pub fn start(machine: &Machine) {
    for described in &machine.pmcgs {
        match machine.smmu_of(described) {
            Some((id, _)) if smmu::with(id, |_| ()).is_none() => (),
            Some((id, _)) => start_one(machine, id, described),
            None => warn!(
                "counter group at {}: which smmu it belongs to cannot be told: not used",
                described.registers.start()
            ),
        }
    }
    for (id, _) in machine.numbered_smmus().filter(|(id, _)| !pmcg::counts(*id)) {
        match smmu::with(id, |driver| driver.features().has_access_flag_update) {
            Some(true) => info!("smmu {}: hits and misses of its tlb are not shown, sampled access flags are", id.0),
            Some(false) => {
                info!("smmu {}: {}: hits and misses of its tlb are not shown, nor pages touched", id.0, NEITHER)
            }
            None => (),
        }
    }
}

/// Why nothing is shown of an SMMU's TLB.
pub const NEITHER: &str = "no counter group (PMCG) in the device tree, no hardware access flags (IDR0.HTTU 0)";

#[inline(never)]
fn start_one(machine: &Machine, id: SmmuId, described: &Described) {
    let at = described.registers.start();
    for range in [Some(described.registers), described.counters].into_iter().flatten() {
        if let Err(problem) = memory::map(range, Access::Device) {
            warn!("smmu {}: counter group at {at}: {problem}", id.0);
            return;
        }
    }
    let page1 = described.counters.map(|range| range.start());
    // SAFETY: the device tree says that a counter group is there, it is mapped, and nobody else uses it.
    let pages = unsafe { Pages::new(at, page1) };
    let Some((_, claim)) = machine.smmu_of(described) else { return };
    match Pmcg::start(pages, streams(machine, id)) {
        Ok(counters) => {
            info!("smmu {}: counter group at {at} ({}) counts hits and misses of its tlb", id.0, claim.as_str());
            pmcg::install(Group { smmu: id, claim, at, counters });
        }
        Err(problem) => warn!("smmu {}: counter group at {at}: {problem}", id.0),
    }
}

/// Streams behind an SMMU that the bundle's VMs ask for.
fn streams(machine: &Machine, id: SmmuId) -> impl Iterator<Item = StreamId> {
    let devices = super::bundle().vms().iter().flat_map(|vm| vm.devices());
    let keys = devices.filter_map(move |device| machine.stream_of(device.function()));
    keys.filter(move |key| key.smmu == id).map(|key| key.stream)
}
