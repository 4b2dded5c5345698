//! A private apt: its own sources and lists in our cache, the machine's mirror and keys.

mod sources;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::debian;
use sources::Source;

/// An apt that leaves the system's configuration alone.
pub struct PrivateApt {
    folder: PathBuf,
    options: Vec<String>,
}

impl PrivateApt {
    /// For packages of another architecture, to be downloaded and never installed: it knows no installed package.
    ///
    /// # Errors
    /// When the machine has no Debian 12 source, or the folder cannot be written.
    pub fn foreign(folder: &Path, architecture: &str) -> Result<Self> {
        let mut apt = Self::new(folder, Some(architecture))?;
        let status = folder.join("status");
        fs::write(&status, "")?;
        apt.option("Dir::State::status", &status.to_string_lossy());
        apt.option("APT::Architecture", architecture);
        apt.option("APT::Architectures::", architecture);
        Ok(apt)
    }

    /// For installing packages of this machine's architecture from the backports.
    ///
    /// # Errors
    /// As [`Self::foreign`].
    pub fn native(folder: &Path) -> Result<Self> {
        Self::new(folder, None)
    }

    fn new(folder: &Path, architecture: Option<&str>) -> Result<Self> {
        let folder = std::path::absolute(folder)?;
        for sub in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(folder.join(sub)).with_context(|| format!("creating {}", folder.display()))?;
        }
        let source = Source::of_this_machine()?;
        let list = folder.join("sources.list");
        fs::write(&list, source.with_backports(architecture))?;
        let mut apt = Self { folder: folder.clone(), options: Vec::new() };
        apt.option("Dir::Etc::sourcelist", &list.to_string_lossy());
        apt.option("Dir::Etc::sourceparts", "-");
        apt.option("Dir::State::lists", &folder.join("lists").to_string_lossy());
        apt.option("Dir::Cache::archives", &folder.join("archives").to_string_lossy());
        apt.option("Dir::Cache::pkgcache", "");
        apt.option("Dir::Cache::srcpkgcache", "");
        apt.option("Acquire::Languages", "none");
        apt.option("Acquire::Retries", "3");
        // The cache may lie in a home folder that apt's own user cannot enter.
        apt.option("APT::Sandbox::User", &env::var("USER").unwrap_or_else(|_| "root".to_owned()));
        Ok(apt)
    }

    fn option(&mut self, key: &str, value: &str) {
        self.options.extend(["-o".to_owned(), format!("{key}={value}")]);
    }

    /// Fetches the signed lists.
    ///
    /// # Errors
    /// What apt says.
    pub fn update(&self) -> Result<()> {
        debian::run(Command::new("apt-get").args(&self.options).args(["update", "-q"]))?;
        Ok(())
    }

    /// The one package that `package` depends on in `release`, matching `prefix`: what a metapackage stands for now.
    ///
    /// # Errors
    /// When there is none.
    pub fn resolve(&self, package: &str, release: &str, prefix: &str) -> Result<String> {
        let mut command = Command::new("apt-cache");
        command.args(&self.options).args(["show", "--no-all-versions", &format!("{package}/{release}")]);
        let record = debian::run(&mut command)?;
        let depends = record.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
        let names = depends.split(',').filter_map(|dependency| dependency.split_whitespace().next());
        let found = names.into_iter().find(|name| name.starts_with(prefix)).map(str::to_owned);
        found.with_context(|| format!("{package} of {release} depends on no package {prefix}*"))
    }

    /// Downloads packages into `folder`; apt checks them against the signed lists.
    ///
    /// # Errors
    /// What apt says.
    pub fn download(&self, packages: &[&str], folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        debian::run(
            Command::new("apt-get").current_dir(folder).args(&self.options).args(["download", "-q"]).args(packages),
        )?;
        Ok(())
    }

    /// Installs packages of `release` on the system, as root.
    ///
    /// # Errors
    /// What apt says.
    pub fn install(&self, packages: &[&str], release: &str) -> Result<()> {
        let mut command = debian::as_root("env")?;
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]).args(&self.options);
        command.args(["install", "-q", "-y", "--no-install-recommends", "-t", release]).args(packages);
        debian::run(&mut command)?;
        let _ = fs::remove_dir_all(self.folder.join("archives"));
        Ok(())
    }
}
