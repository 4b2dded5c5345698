//! Dependencies between the workspace's crates point one way.
//!
//! Board and binary -> el2 -> vdev, dma, smmu -> core. A crate that reaches sideways or up shows here, before
//! somebody has to untangle it.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

/// What each crate may use of the workspace, in any kind of dependency: also its tests and its build script.
const ALLOWED: &[(&str, &[&str])] = &[
    ("bulkhead-abi", &[]),
    ("bulkhead-core", &[]),
    ("bulkhead-dma", &["bulkhead-core"]),
    // Its tests run maps and batches, and a guest's commands, against the model of the hardware.
    ("bulkhead-smmu", &["bulkhead-core", "bulkhead-dma", "bulkhead-vdev"]),
    ("bulkhead-vdev", &["bulkhead-abi", "bulkhead-core"]),
    ("bulkhead-ring", &["bulkhead-abi", "bulkhead-core", "bulkhead-dma", "bulkhead-vdev"]),
    (
        "bulkhead-el2",
        &["bulkhead-abi", "bulkhead-core", "bulkhead-dma", "bulkhead-ring", "bulkhead-smmu", "bulkhead-vdev"],
    ),
    // Its tests run against the hypervisor's own decoder.
    ("bulkhead-bus-dma", &["bulkhead-abi", "bulkhead-core", "bulkhead-vdev"]),
    ("bulkhead-guest-tests", &["bulkhead-abi", "bulkhead-bus-dma", "bulkhead-core"]),
    ("bulkhead-guest-nic", &["bulkhead-abi", "bulkhead-bus-dma", "bulkhead-core", "bulkhead-guest-tests"]),
    (
        "bulkhead-guest-count",
        &["bulkhead-core", "bulkhead-dma", "bulkhead-guest-tests", "bulkhead-smmu", "bulkhead-vdev"],
    ),
    ("bulkhead-tools", &["bulkhead-abi", "bulkhead-core", "bulkhead-dma", "bulkhead-smmu", "bulkhead-vdev"]),
];

/// Names of the workspace's crates, and what they use of each other.
fn workspace() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let names: BTreeSet<String> = packages.iter().map(|package| text(&package["name"])).collect();
    let uses = |package: &Value| {
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        dependencies.iter().map(|dependency| text(&dependency["name"])).filter(|name| names.contains(name)).collect()
    };
    packages.iter().map(|package| (text(&package["name"]), uses(package))).collect()
}

#[test]
fn point_one_way() {
    for (name, uses) in workspace() {
        let allowed = ALLOWED.iter().find(|(crate_name, _)| *crate_name == name);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{name} is new: say here what it may use"));
        // A crate may use itself with other features in its tests.
        let sideways: Vec<_> = uses.iter().filter(|used| **used != name && !allowed.contains(&used.as_str())).collect();
        assert!(sideways.is_empty(), "{name} uses {sideways:?}; it may use {allowed:?}");
    }
}

/// The table itself points one way: what a crate may use does not use it.
#[test]
fn the_table_has_no_cycle() {
    for (name, allowed) in ALLOWED {
        for used in *allowed {
            let back = ALLOWED.iter().find(|(other, _)| other == used).map(|(_, uses)| *uses);
            assert!(!back.expect("a crate of the table").contains(name), "{name} and {used} use each other");
        }
    }
}
