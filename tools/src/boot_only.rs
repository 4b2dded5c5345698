//! Code of the hypervisor that runs at boot alone: found in the compiled object, placed apart, and checked in the result.
//!
//! Which functions these are is computed at every link, so that nothing has to be marked by hand: a function is boot-only
//! when nothing that stays can reach it. In the same way it is told what only a virtio IOMMU needs: what nothing reaches
//! but functions of one module, [`partition::GATES`], which EL2 calls for a VM that has one; without such a VM that code
//! is given back as well. [`partition`] says so from the object's relocations before the link, [`check`]
//! looks at the linked image's instructions and relocations afterwards and knows nothing of the first.

pub mod check;
pub mod link;
mod partition;

/// The linker's section for boot-only code; the image begins with it.
pub const TEXT: &str = ".init.text";
/// The linker's section for constants with pointers that only boot-only code names.
const DATA: &str = ".init.data";
/// The linker's section for code that stays where a VM is behind a virtio IOMMU.
pub const VIOMMU_TEXT: &str = ".viommu.text";
/// The linker's section for constants with pointers that only such code names.
const VIOMMU_DATA: &str = ".viommu.data";
