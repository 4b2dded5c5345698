//! Code of the hypervisor that runs at boot alone: found in the compiled object, placed apart, and checked in the result.
//!
//! Which functions these are is computed at every link, so that nothing has to be marked by hand: a function is boot-only
//! when nothing that stays can reach it. [`partition`] says so from the object's relocations before the link, [`check`]
//! looks at the linked image's instructions and relocations afterwards and knows nothing of the first.

pub mod check;
pub mod link;
mod partition;

/// The linker's section for boot-only code; the image begins with it.
pub const TEXT: &str = ".init.text";
/// The linker's section for constants with pointers that only boot-only code names.
const DATA: &str = ".init.data";
