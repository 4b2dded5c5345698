//! A VM's virtual SMMU: a flush policy that exists, for devices that use it.

use bulkhead_core::bundle::NestedFlush;

use super::{
    super::{problem::Problem, schema::VmSection},
    dmamap,
};

/// The place of the policy in [`NestedFlush::ALL`]: 0 without a virtual SMMU.
pub fn flush(section: &VmSection, problems: &mut Vec<Problem>) -> Option<u32> {
    let Some(settings) = &section.nested else { return Some(0) };
    if !is_used(section) {
        problems.push(Problem::NestedUnused { vm: section.name.clone() });
        return None;
    }
    let known = NestedFlush::ALL.map(NestedFlush::name);
    dmamap::name(&section.name, "nested.flush", settings.flush.as_deref(), &known, problems)
}

/// Whether the VM gets a virtual SMMU.
pub fn is_used(section: &VmSection) -> bool {
    section.devices.iter().any(|device| device.dma == "nested")
}
