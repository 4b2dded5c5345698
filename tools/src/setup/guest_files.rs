//! The Linux guests' files: kernel, modules, busybox and iperf3 out of Debian's arm64 packages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    apt::PrivateApt,
    debian,
    plan::{Plan, Step},
};
use crate::workspace::Workspace;

/// Packages besides the kernel.
pub const PACKAGES: [&str; 6] = ["busybox-static", "iperf3", "libiperf0", "libsctp1", "libssl3", "libc6"];
/// The kernel's package, as it is named.
pub const KERNEL_PATTERN: &str = "linux-image-6.12.*-arm64";
const KERNEL_META: &str = "linux-image-arm64";
const KERNEL_PREFIX: &str = "linux-image-6.12.";
const KERNEL_RELEASE: &str = "bookworm-backports";
/// What must be in [`root`] for the initramfs to be built.
pub const NEEDED: [&str; 4] = ["bin/busybox", "usr/bin/iperf3", "lib/aarch64-linux-gnu/libc.so.6", "lib/modules"];

/// Where the packages are unpacked.
pub fn root(workspace: &Workspace) -> PathBuf {
    workspace.guest_files().join("root")
}

/// The kernel, an arm64 Image.
pub fn kernel(workspace: &Workspace) -> PathBuf {
    workspace.guest_files().join("Image")
}

/// Whether everything is here. The kernel is copied last, so it says that the rest is complete.
pub fn is_ready(workspace: &Workspace) -> bool {
    let root = root(workspace);
    kernel(workspace).is_file() && NEEDED.iter().all(|file| root.join(file).exists())
}

/// Adds what would have to change to `plan`.
pub fn plan(workspace: &Workspace, plan: &mut Plan) {
    if is_ready(workspace) {
        return;
    }
    let what = format!(
        "the guests' files: Debian's arm64 packages {KERNEL_PATTERN} ({KERNEL_RELEASE}) and {} (about 98 MB)",
        PACKAGES.join(", ")
    );
    plan.add(Step::cache(what, fetch));
}

fn fetch(workspace: &Workspace) -> Result<()> {
    let apt = PrivateApt::foreign(&workspace.cache().join("apt/arm64"), "arm64")?;
    apt.update()?;
    let kernel_package = apt.resolve(KERNEL_META, KERNEL_RELEASE, KERNEL_PREFIX)?;
    let debs = workspace.guest_files().join("debs");
    let _ = fs::remove_dir_all(&debs);
    let packages: Vec<&str> = PACKAGES.iter().copied().chain([kernel_package.as_str()]).collect();
    apt.download(&packages, &debs)?;
    unpack(workspace, &debs)?;
    fs::remove_dir_all(&debs)?;
    Ok(())
}

fn unpack(workspace: &Workspace, debs: &Path) -> Result<()> {
    let root = root(workspace);
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(&root)?;
    for deb in fs::read_dir(debs)? {
        debian::run(Command::new("dpkg-deb").arg("-x").arg(deb?.path()).arg(&root))?;
    }
    let boot = root.join("boot");
    let files = fs::read_dir(&boot).with_context(|| format!("reading {}", boot.display()))?;
    let image = files.flatten().find(|file| file.file_name().to_string_lossy().starts_with("vmlinuz-"));
    let image = image.context("the kernel's package has no boot/vmlinuz-*")?.path();
    fs::copy(&image, kernel(workspace)).with_context(|| format!("copying {}", image.display()))?;
    for unused in ["usr/lib/debug", "usr/share"] {
        let _ = fs::remove_dir_all(root.join(unused));
    }
    Ok(())
}
