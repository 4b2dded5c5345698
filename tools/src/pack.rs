//! Compiles a checked manifest into a bundle.

mod bundle;

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    guest::dtb::Seed,
    manifest::{self, Checked, Problem, check::Files, schema::Manifest},
    workspace::Workspace,
};

/// The files of a manifest: relative to its folder, with `${cache}` and `${out}` replaced.
pub struct ManifestFiles<'a> {
    workspace: &'a Workspace,
    folder: PathBuf,
    is_seed_fixed: bool,
}

impl<'a> ManifestFiles<'a> {
    /// The files of the manifest at `path`.
    pub fn of(workspace: &'a Workspace, path: &Path) -> Self {
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        Self { workspace, folder, is_seed_fixed: false }
    }

    /// The same, with seeds that are the same each time, for runs that repeat to the digit.
    pub fn with_fixed_seed(mut self) -> Self {
        self.is_seed_fixed = true;
        self
    }
}

impl Files for ManifestFiles<'_> {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        fs::read(self.workspace.expand(path, &self.folder))
    }

    fn seed(&self, vm: &str) -> io::Result<Seed> {
        let mut seed = [0; size_of::<Seed>()];
        if self.is_seed_fixed {
            seed.iter_mut().zip(vm.bytes().cycle()).for_each(|(to, from)| *to = from);
        } else {
            File::open("/dev/urandom")?.read_exact(&mut seed)?;
        }
        Ok(seed)
    }
}

/// Checks the manifest at `path` and writes its bundle to `output`.
///
/// # Errors
/// When the manifest cannot be read or has problems (the message lists them all), or the file cannot be written.
pub fn pack(workspace: &Workspace, path: &Path, output: &Path) -> Result<()> {
    let manifest = Manifest::read(path)?;
    pack_manifest(&manifest, &ManifestFiles::of(workspace, path), path, output)
}

/// Like [`pack`], for a manifest that was read and perhaps changed; `path` is for messages.
///
/// # Errors
/// As [`pack`].
pub fn pack_manifest(manifest: &Manifest, files: &ManifestFiles<'_>, path: &Path, output: &Path) -> Result<()> {
    let checked = match manifest::check(manifest, files) {
        Ok(checked) => checked,
        Err(problems) => bail!("the manifest {} has problems:\n{}", path.display(), list(&problems)),
    };
    write(&checked, output)
}

/// The problems, one a line.
pub fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("  - {problem}")).collect::<Vec<_>>().join("\n")
}

fn write(checked: &Checked, output: &Path) -> Result<()> {
    let bytes = bundle::compile(checked)?;
    if let Some(folder) = output.parent() {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    fs::write(output, bytes).with_context(|| format!("writing {}", output.display()))
}
