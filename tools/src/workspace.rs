//! Where things are: the repository, its build output and the cache outside it.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// The folders that every command works in.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
    cache: PathBuf,
}

impl Workspace {
    /// Finds the repository from the running command's crate, or upward from the current folder.
    ///
    /// # Errors
    /// Outside a Bulkhead repository, or when no cache folder can be named.
    pub fn find() -> Result<Self> {
        let start = match env::var_os("CARGO_MANIFEST_DIR") {
            Some(folder) => PathBuf::from(folder),
            None => env::current_dir().context("no current folder")?,
        };
        let root = start
            .ancestors()
            .find(|folder| folder.join("hyp/core/Cargo.toml").is_file())
            .with_context(|| format!("{} is not inside a Bulkhead repository", start.display()))?
            .to_path_buf();
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder));
        Ok(Self { root, target, cache: cache_folder()? })
    }

    /// The repository.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's target folder.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// What is built here: images, bundles, logs of test runs.
    pub fn out(&self) -> PathBuf {
        self.target.join("bulkhead")
    }

    /// The bare-metal guests' flat images.
    pub fn guest_images(&self) -> PathBuf {
        self.out().join("guests")
    }

    /// What was downloaded, kept across clones of the repository.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The guest files that came from Debian's packages.
    pub fn guest_files(&self) -> PathBuf {
        self.cache.join("guest")
    }

    /// `path` with `${cache}`, `${out}` and `${guest}` replaced, relative to `base`.
    pub fn expand(&self, path: &str, base: &Path) -> PathBuf {
        let expanded = path
            .replace("${cache}", &self.cache.to_string_lossy())
            .replace("${out}", &self.out().to_string_lossy())
            .replace("${guest}", &self.guest_images().to_string_lossy());
        base.join(expanded)
    }
}

fn cache_folder() -> Result<PathBuf> {
    if let Some(folder) = env::var_os("BULKHEAD_CACHE").filter(|folder| !folder.is_empty()) {
        return std::path::absolute(folder).context("BULKHEAD_CACHE is not a usable path");
    }
    if let Some(folder) = env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()) {
        return Ok(PathBuf::from(folder).join("bulkhead"));
    }
    let home = env::var_os("HOME").context("neither BULKHEAD_CACHE, XDG_CACHE_HOME nor HOME is set: set one")?;
    Ok(PathBuf::from(home).join(".cache/bulkhead"))
}
