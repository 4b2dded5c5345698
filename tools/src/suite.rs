//! All tests together, and how results are counted.

use std::process::Command;

use anyhow::{Context, Result};

use crate::{scenario, setup, smoke, workspace::Workspace};

/// Results so far; each is printed as it comes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    passed: usize,
    failed: usize,
}

impl Summary {
    /// Counts and prints one result: `ok NAME` or `FAIL NAME: reason`.
    pub fn count(&mut self, name: &str, result: Result<(), String>) {
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("ok   {name}");
            }
            Err(reason) => {
                self.failed += 1;
                println!("FAIL {name}: {reason}");
            }
        }
    }

    /// Adds the results of another part.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// Prints the closing line; whether nothing failed.
    pub fn print_and_judge(self) -> bool {
        println!("{} passed, {} failed", self.passed, self.failed);
        self.failed == 0
    }
}

/// Runs the host tests, and the tests of several CPUs under every interleaving.
///
/// # Errors
/// When cargo cannot be started.
pub fn unit(workspace: &Workspace) -> Result<Summary> {
    const INTERLEAVINGS: [&str; 4] = ["--package", "bulkhead-dma", "--features", "model"];
    let mut summary = Summary::default();
    summary.count("host tests", cargo_test(workspace, &[], &[])?);
    summary.count("host tests of every interleaving", cargo_test(workspace, &INTERLEAVINGS, &["model"])?);
    Ok(summary)
}

/// Runs the tests of some packages whose names contain one of `filter`.
fn cargo_test(workspace: &Workspace, packages: &[&str], filter: &[&str]) -> Result<Result<(), String>> {
    let has_nextest =
        Command::new("cargo").args(["nextest", "--version"]).output().is_ok_and(|output| output.status.success());
    let mut command = Command::new("cargo");
    command.current_dir(workspace.root());
    if has_nextest {
        command.args(["nextest", "run", "--no-fail-fast", "--status-level", "slow"]);
    } else {
        command.args(["test", "--quiet", "--no-fail-fast"]);
    }
    let status = command.args(packages).args(filter).status().context("cargo cannot be started")?;
    Ok(if status.success() { Ok(()) } else { Err("see above".to_owned()) })
}

/// Runs the host tests, the bare-metal scenarios and the Linux runs. `false` when anything fails.
///
/// # Errors
/// When a part cannot be run at all.
pub fn all(workspace: &Workspace) -> Result<bool> {
    setup::ensure(workspace)?;
    let mut summary = unit(workspace)?;
    summary.add(scenario::run(workspace, None)?);
    summary.add(smoke::run(workspace, None)?);
    Ok(summary.print_and_judge())
}
