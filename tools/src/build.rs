//! Builds the bare-metal programs and turns them into flat images.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Error, Result, ensure};
use serde::Deserialize;

use crate::{
    boot_only,
    image::flatten,
    setup::toolchain::{self, TARGET},
    symbols,
    workspace::Workspace,
};

const HYPERVISOR: &str = "bulkhead-el2";
const GUESTS: [&str; 3] = ["bulkhead-guest-tests", "bulkhead-guest-nic", "bulkhead-guest-count"];

/// A hypervisor that was built.
#[derive(Clone, Debug)]
pub struct Hypervisor {
    /// The flat image that QEMU and boot loaders take.
    pub image: PathBuf,
    /// The ELF file, with symbols.
    pub elf: PathBuf,
}

/// Builds the hypervisor: `bulkhead.img` and `bulkhead.elf` in the output folder.
///
/// # Errors
/// When the build fails, and cargo has said why, or when code that stays after boot leads to code that does not.
pub fn hypervisor(workspace: &Workspace) -> Result<Hypervisor> {
    // This program is the linker's front end: it tells boot-only code from the rest.
    let linker = format!("-Clinker={}", std::env::current_exe()?.display());
    let executables = cargo_build(workspace, HYPERVISOR, &[&linker])?;
    ensure!(executables.len() == 1, "{HYPERVISOR} has {} programs instead of one", executables.len());
    let path = executables.values().next().context("no program was built")?;
    let image = workspace.out().join("bulkhead.img");
    let elf = workspace.out().join("bulkhead.elf");
    boot_only::check::check(&fs::read(path)?).map_err(Error::msg)?;
    write_flat(path, &image, true)?;
    fs::copy(path, &elf).with_context(|| format!("writing {}", elf.display()))?;
    Ok(Hypervisor { image, elf })
}

/// Builds the bare-metal guests: each one's flat image in [`Workspace::guest_images`], under its name.
///
/// # Errors
/// When the build fails; cargo has said why.
pub fn guests(workspace: &Workspace) -> Result<()> {
    for package in GUESTS {
        for (name, path) in cargo_build(workspace, package, &[])? {
            write_flat(&path, &workspace.guest_images().join(name), false)?;
        }
    }
    Ok(())
}

fn write_flat(elf: &Path, image: &Path, has_symbols: bool) -> Result<()> {
    let bytes = fs::read(elf).with_context(|| format!("reading {}", elf.display()))?;
    let mut flat = flatten(&bytes).with_context(|| format!("making {} flat", elf.display()))?;
    if has_symbols {
        symbols::fill(&bytes, &mut flat).with_context(|| format!("naming the functions of {}", elf.display()))?;
        symbols::check(&bytes, &flat)?;
    }
    if let Some(folder) = image.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(image, flat).with_context(|| format!("writing {}", image.display()))
}

/// One line of `cargo build --message-format=json`; other fields are of no interest.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    target: Option<MessageTarget>,
}

#[derive(Deserialize)]
struct MessageTarget {
    name: String,
}

/// Builds `package` for the bare-metal target and gives its programs by name. `compiler` is for its programs' compiler.
fn cargo_build(workspace: &Workspace, package: &str, compiler: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    let mut command = Command::new("cargo");
    command
        .current_dir(workspace.root())
        .args([
            if compiler.is_empty() { "build" } else { "rustc" },
            "--quiet",
            "--release",
            "--bins",
            "--target",
            TARGET,
            "--package",
            package,
        ])
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped());
    toolchain::apply(workspace, &mut command)?;
    if !compiler.is_empty() {
        command.arg("--").args(compiler);
    }
    let mut child = command.spawn().context("cargo cannot be started")?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut executables = BTreeMap::new();
    for line in BufReader::new(output).lines() {
        let Ok(message) = serde_json::from_str::<Message>(&line?) else { continue };
        if let (Some(executable), Some(target)) = (message.executable, message.target) {
            executables.insert(target.name, executable);
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "building {package} failed");
    Ok(executables)
}
