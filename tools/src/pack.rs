//! Compiles a checked manifest into a bundle.

mod bundle;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    manifest::{self, Checked, Problem, check::Files, schema::Manifest},
    workspace::Workspace,
};

/// The files of a manifest: relative to its folder, with `${cache}` and `${out}` replaced.
pub struct ManifestFiles<'a> {
    workspace: &'a Workspace,
    folder: PathBuf,
}

impl<'a> ManifestFiles<'a> {
    /// The files of the manifest at `path`.
    pub fn of(workspace: &'a Workspace, path: &Path) -> Self {
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        Self { workspace, folder }
    }
}

impl Files for ManifestFiles<'_> {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        fs::read(self.workspace.expand(path, &self.folder))
    }
}

/// Checks the manifest at `path` and writes its bundle to `output`.
///
/// # Errors
/// When the manifest cannot be read or has problems (the message lists them all), or the file cannot be written.
pub fn pack(workspace: &Workspace, path: &Path, output: &Path) -> Result<()> {
    let manifest = Manifest::read(path)?;
    pack_manifest(workspace, &manifest, path, output)
}

/// Like [`pack`], for a manifest that was read from `path` and perhaps changed.
///
/// # Errors
/// As [`pack`].
pub fn pack_manifest(workspace: &Workspace, manifest: &Manifest, path: &Path, output: &Path) -> Result<()> {
    let files = ManifestFiles::of(workspace, path);
    let checked = match manifest::check(manifest, &files) {
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
