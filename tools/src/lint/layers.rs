//! Crates depend in one direction: guests and EL2 on devices, devices on the vocabulary, never back.

use std::{path::Path, process::Command};

use serde::Deserialize;

/// The crates from the bottom up; each may use those of lower levels alone.
const LEVELS: &[(&str, u32)] = &[
    ("bulkhead-abi", 0),
    ("bulkhead-core", 0),
    ("bulkhead-dma", 1),
    ("bulkhead-smmu", 1),
    ("bulkhead-vdev", 1),
    ("bulkhead-ring", 2),
    ("bulkhead-el2", 3),
    ("bulkhead-bus-dma", 2),
    ("bulkhead-guest-tests", 3),
    ("bulkhead-guest-count", 4),
    ("bulkhead-guest-nic", 4),
    ("bulkhead-tools", 3),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// "dev" or "build"; none for what the crate itself is built from.
    kind: Option<String>,
}

/// Asks cargo for the workspace at `root`.
///
/// # Errors
/// The dependencies that point the wrong way.
pub fn check(root: &Path) -> Result<(), String> {
    let mut command = Command::new("cargo");
    command.current_dir(root).args(["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let output = command.output().map_err(|error| error.to_string())?;
    let metadata: Metadata = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let faults = faults(&metadata);
    if faults.is_empty() { Ok(()) } else { Err(faults.join(", ")) }
}

fn faults(metadata: &Metadata) -> Vec<String> {
    let level = |name: &str| LEVELS.iter().find(|(other, _)| *other == name).map(|(_, level)| *level);
    let mut faults = Vec::new();
    for package in &metadata.packages {
        let Some(own) = level(&package.name) else {
            faults.push(format!("{} has no level: give it one in tools/src/lint/layers.rs", package.name));
            continue;
        };
        // A crate's tests may bring two neighbours together.
        for dependency in package.dependencies.iter().filter(|dependency| dependency.kind.as_deref() != Some("dev")) {
            if level(&dependency.name).is_some_and(|other| other >= own) {
                faults.push(format!("{} must not depend on {}", package.name, dependency.name));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Metadata, check, faults};

    /// Would miss: a logic crate that reaches up into EL2, or sideways into its neighbour.
    #[test]
    fn this_workspace_points_one_way() {
        assert_eq!(check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")), Ok(()));
    }

    /// Would miss: a check that finds nothing whatever it is given.
    #[test]
    fn a_dependency_that_points_back_is_found() {
        let text = r#"{"packages": [
            {"name": "bulkhead-core", "dependencies": [{"name": "bulkhead-vdev"}, {"name": "fdt"}]},
            {"name": "bulkhead-smmu", "dependencies": [{"name": "bulkhead-dma", "kind": "dev"}]},
            {"name": "bulkhead-new", "dependencies": []}]}"#;
        let metadata: Metadata = serde_json::from_str(text).expect("valid JSON");
        assert_eq!(faults(&metadata).len(), 2);
    }
}
