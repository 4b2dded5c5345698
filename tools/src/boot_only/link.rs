//! The hypervisor's linker: rustc calls it, it tells the real one which code is boot-only, or a virtio IOMMU's.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::partition;

/// What rustc's first argument to a linker of the LLD family is; no command of the tools begins with it.
const FIRST_ARGUMENT: &str = "-flavor";
/// The environment's variable for the real linker, which otherwise is rustup's.
pub const LINKER: &str = "BULKHEAD_LINKER";

/// Files that linker/hyp.ld includes.
const TEXT_LIST: &str = "boot-only-text.ld";
const DATA_LIST: &str = "boot-only-data.ld";
const VIOMMU_TEXT_LIST: &str = "viommu-text.ld";
const VIOMMU_DATA_LIST: &str = "viommu-data.ld";

/// The arguments for a linker, if rustc has called this program as one.
pub fn arguments() -> Option<Vec<OsString>> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    arguments.first().is_some_and(|first| first == FIRST_ARGUMENT).then_some(arguments)
}

/// Links the hypervisor; `false` when the linker, which has said why, could not.
///
/// # Errors
/// When there is not one object, or it cannot be read, or the linker not be started.
pub fn run(arguments: &[OsString]) -> Result<bool> {
    let objects: Vec<_> =
        arguments.iter().map(Path::new).filter(|path| path.extension().is_some_and(|end| end == "o")).collect();
    let [object] = objects.as_slice() else {
        anyhow::bail!("the hypervisor is linked from {} objects instead of one: {objects:?}", objects.len())
    };
    let bytes = std::fs::read(object).with_context(|| format!("reading {}", object.display()))?;
    let found = partition::find(&bytes)?;
    let lists: PathBuf = object.with_extension("boot-only");
    std::fs::create_dir_all(&lists)?;
    for (list, sections) in [
        (TEXT_LIST, &found.boot.text),
        (DATA_LIST, &found.boot.data),
        (VIOMMU_TEXT_LIST, &found.viommu.text),
        (VIOMMU_DATA_LIST, &found.viommu.data),
    ] {
        ensure!(!sections.iter().any(|name| name.contains('"')), "a section's name has a quotation mark");
        let lines: String = sections.iter().map(|name| format!("*(\"{name}\")\n")).collect();
        std::fs::write(lists.join(list), lines)?;
    }
    let linker = std::env::var_os(LINKER).unwrap_or_else(|| "rust-lld".into());
    // After `-flavor gnu`, and before the folder with the empty lists.
    let (flavor, rest) = arguments.split_at(2);
    let status = Command::new(&linker).args(flavor).arg("-L").arg(&lists).args(rest).status();
    let status = status.with_context(|| format!("{} cannot be started", linker.display()))?;
    std::fs::remove_dir_all(&lists)?;
    Ok(status.success())
}
