//! Format, lints, and the rules that no lint knows.

mod layers;
mod registers;
mod safety;

use std::{path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{
    boot_only, build, setup,
    setup::toolchain::{self, TARGET},
    suite::Summary,
    workspace::Workspace,
};

/// What runs on the bare-metal target.
const BARE_METAL: [&str; 4] = ["bulkhead-el2", "bulkhead-guest-tests", "bulkhead-guest-nic", "bulkhead-guest-count"];

/// Checks everything. `false` when something is wrong.
///
/// # Errors
/// When a check cannot be run.
pub fn run(workspace: &Workspace) -> Result<bool> {
    setup::ensure(workspace)?;
    let mut summary = Summary::default();
    summary.count("format", cargo(workspace, &["fmt", "--all", "--check"], false)?);
    summary.count(
        "clippy, host crates",
        cargo(workspace, &["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"], false)?,
    );
    for package in BARE_METAL {
        let arguments = ["clippy", "--quiet", "--package", package, "--target", TARGET, "--", "-D", "warnings"];
        summary.count(&format!("clippy, {package}"), cargo(workspace, &arguments, true)?);
    }
    summary.count("every unsafe has its SAFETY", safety::check(workspace.root()));
    summary.count("crates depend in one direction", layers::check(workspace.root()));
    let elf = std::fs::read(build::hypervisor(workspace)?.elf)?;
    summary.count("no FP or SIMD register in the image", registers::check(&elf));
    summary.count("nothing that stays after boot leads to boot-only code", boot_only::check::check(&elf));
    Ok(summary.print_and_judge())
}

/// Runs cargo, for the target with the toolchain that set-up chose.
fn cargo(workspace: &Workspace, arguments: &[&str], is_target: bool) -> Result<Result<(), String>> {
    let mut command = Command::new("cargo");
    command.current_dir(workspace.root()).arg(arguments[0]);
    if is_target {
        toolchain::apply(workspace, &mut command)?;
    }
    let status = command.args(&arguments[1..]).status().context("cargo cannot be started")?;
    Ok(if status.success() { Ok(()) } else { Err("see above".to_owned()) })
}

/// Every Rust file under `folder`.
fn rust_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}
