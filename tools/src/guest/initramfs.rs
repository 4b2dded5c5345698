//! The initramfs of the Linux guests: busybox, iperf3, the NICs' modules and our own `/init`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use xxhash_rust::xxh64::xxh64;

use super::{cpio::Archive, modules::ModuleTree};
use crate::workspace::Workspace;

/// Drivers of the NICs that the tests pass through, and of the virtio IOMMU.
const MODULES: [&str; 5] = ["e1000e", "igb", "virtio_net", "virtio_mmio", "virtio_iommu"];
/// iperf3 and what it is linked with: place in the package, place in the initramfs.
const PROGRAMS: [(&str, &str); 7] = [
    ("usr/bin/iperf3", "usr/bin/iperf3"),
    ("usr/lib/aarch64-linux-gnu/libiperf.so.0", "lib/aarch64-linux-gnu/libiperf.so.0"),
    ("usr/lib/aarch64-linux-gnu/libsctp.so.1", "lib/aarch64-linux-gnu/libsctp.so.1"),
    ("usr/lib/aarch64-linux-gnu/libcrypto.so.3", "lib/aarch64-linux-gnu/libcrypto.so.3"),
    ("lib/aarch64-linux-gnu/libc.so.6", "lib/aarch64-linux-gnu/libc.so.6"),
    ("lib/aarch64-linux-gnu/libm.so.6", "lib/aarch64-linux-gnu/libm.so.6"),
    ("lib/aarch64-linux-gnu/ld-linux-aarch64.so.1", "lib/ld-linux-aarch64.so.1"),
];

/// Writes the initramfs to the output folder, unless the same one is there, and returns its path.
///
/// # Errors
/// When a file of a package or of `guest-tests/linux` is missing.
pub fn build(workspace: &Workspace) -> Result<PathBuf> {
    let packages = workspace.guest_files().join("root");
    let bytes = gather(&packages, &workspace.root().join("guest-tests/linux"))?.to_bytes();
    let path = workspace.out().join("initramfs.cpio");
    let is_current = fs::read(&path).is_ok_and(|old| xxh64(&old, 0) == xxh64(&bytes, 0));
    if !is_current {
        fs::create_dir_all(workspace.out())?;
        fs::write(&path, &bytes).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(path)
}

fn gather(packages: &Path, scripts: &Path) -> Result<Archive> {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys", "tmp", "run", "root", "sbin", "usr/sbin", "etc"] {
        archive.directory(folder);
    }
    archive.character_device("dev/console", 5, 1);
    archive.character_device("dev/null", 1, 3);
    archive.file("bin/busybox", 0o755, read(&packages.join("bin/busybox"))?);
    archive.symlink("bin/sh", "busybox");
    for (from, to) in PROGRAMS {
        archive.file(to, 0o755, read(&packages.join(from))?);
    }
    add_modules(&mut archive, packages)?;
    add_scripts(&mut archive, scripts)?;
    Ok(archive)
}

/// The modules, and for each wanted one a file that lists what to load before it and itself, in order.
fn add_modules(archive: &mut Archive, packages: &Path) -> Result<()> {
    let tree = ModuleTree::scan(&packages.join("lib/modules"))?;
    for wanted in MODULES {
        let modules = tree.resolve(&[wanted])?;
        let order: String = modules.iter().map(|module| format!("{}\n", module.name)).collect();
        archive.file(&format!("lib/modules/{wanted}.order"), 0o644, order.into_bytes());
        for module in modules {
            archive.file(&format!("lib/modules/{}.ko", module.name), 0o644, module.data);
        }
    }
    Ok(())
}

/// `init` goes to the root, everything under `run/` to `/etc/bulkhead`.
fn add_scripts(archive: &mut Archive, scripts: &Path) -> Result<()> {
    archive.file("init", 0o755, read(&scripts.join("init"))?);
    let folder = scripts.join("run");
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            bail!("{} has a name that is not UTF-8", entry.path().display());
        };
        let permissions = entry.metadata()?.permissions().mode() & 0o111 | 0o644;
        archive.file(&format!("etc/bulkhead/{name}"), permissions, read(&entry.path())?);
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}
