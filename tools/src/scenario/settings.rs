//! What a scenario may set: `qemu.args` and `scenario.toml`, both optional.

use std::{fs, io::ErrorKind, path::Path, time::Duration};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{expect::Pattern, jump::Jump, tree::ExtraNode};

const DEFAULT_TIME_LIMIT_S: u64 = 60;

/// What is done to the bundle after packing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BundleDamage {
    /// Not passed at all.
    Missing,
    /// Cut to half.
    Truncated,
    /// One bit of its last byte flipped.
    Corrupted,
}

/// A scenario's settings.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Seconds until the scenario has failed. Default: 60.
    time_limit_s: Option<u64>,
    /// Damage to the bundle. Default: none.
    pub bundle: Option<BundleDamage>,
    /// A station with a TCP stack at the other end of the network `station`. Default: none.
    #[serde(default)]
    pub station: bool,
    /// What is typed on the console, each once. Default: nothing.
    #[serde(default)]
    pub keys: Vec<Keys>,
    /// Nodes that the machine's device tree has beside QEMU's. Default: none.
    #[serde(default)]
    pub node: Vec<ExtraNode>,
    /// QEMU's trace events that `trace.txt` is about. Default: none.
    #[serde(default)]
    pub events: Vec<String>,
    /// A jump astray of the hypervisor. Default: none.
    pub jump: Option<Jump>,
    /// Further arguments for QEMU, from `qemu.args`: words, `#` begins a comment.
    #[serde(skip)]
    pub qemu_arguments: Vec<String>,
}

/// Something to type.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// The line that it comes after, as `expected.txt` says lines.
    after: String,
    /// What is typed.
    pub send: String,
    /// Milliseconds from the line to the keys. Default: 0.
    #[serde(default)]
    pub pause_ms: u64,
}

impl Keys {
    /// The line that it comes after.
    pub fn after(&self) -> Pattern {
        Pattern::new(&self.after)
    }
}

impl Settings {
    /// Reads the two files in `folder`, where they exist.
    ///
    /// # Errors
    /// When one cannot be read or holds something unknown.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("scenario.toml");
        let text = read_if_present(&path)?;
        let mut settings: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        settings.qemu_arguments = words(&read_if_present(&folder.join("qemu.args"))?);
        Ok(settings)
    }

    /// How long the scenario may take.
    pub fn time_limit(&self) -> Duration {
        Duration::from_secs(self.time_limit_s.unwrap_or(DEFAULT_TIME_LIMIT_S))
    }

    /// Does to the bundle at `path` what the scenario asks for.
    ///
    /// # Errors
    /// When the file cannot be changed.
    pub fn damage(&self, path: &Path) -> Result<()> {
        let mut bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        match self.bundle {
            None | Some(BundleDamage::Missing) => return Ok(()),
            Some(BundleDamage::Truncated) => bytes.truncate(bytes.len() / 2),
            Some(BundleDamage::Corrupted) => *bytes.last_mut().context("an empty bundle")? ^= 1,
        }
        fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
    }
}

fn read_if_present(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        result => result.with_context(|| format!("reading {}", path.display())),
    }
}

fn words(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.split_once('#').map_or(line, |(before, _)| before));
    lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::words;

    /// Would miss: a comment passed on to QEMU.
    #[test]
    fn arguments_are_words_without_comments() {
        assert_eq!(words("# the attacker\n-device edu,addr=2.0 # slot 2\n"), ["-device", "edu,addr=2.0"]);
    }
}
