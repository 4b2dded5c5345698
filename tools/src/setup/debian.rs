//! The system's own package manager: which system this is, and installing on it.

use std::{fs, process::Command};

use anyhow::{Context, Result, bail, ensure};

/// Whether this is Debian 12.
pub fn is_bookworm() -> bool {
    fs::read_to_string("/etc/os-release").is_ok_and(|text| is_bookworm_release(&text))
}

fn is_bookworm_release(os_release: &str) -> bool {
    let has = |line: &str| os_release.lines().any(|other| other.replace('"', "") == line);
    has("ID=debian") && has("VERSION_ID=12")
}

/// A command that runs as root: itself when we are, by sudo when we are not.
///
/// # Errors
/// When we are neither root nor have sudo.
pub fn as_root(program: &str) -> Result<Command> {
    let output = Command::new("id").arg("-u").output().context("id cannot be started")?;
    if String::from_utf8_lossy(&output.stdout).trim() == "0" {
        return Ok(Command::new(program));
    }
    if Command::new("sudo").arg("-V").output().is_err() {
        bail!("installing packages needs root: run this as root, or install sudo");
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    Ok(command)
}

/// Installs packages of the configured releases, after fetching the lists.
///
/// # Errors
/// When apt fails; its output is in the message.
pub fn install(packages: &[&str]) -> Result<()> {
    run(as_root("apt-get")?.args(["update", "-q"]))?;
    let mut command = as_root("env")?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-q", "-y", "--no-install-recommends"]);
    run(command.args(packages))?;
    Ok(())
}

/// Runs `command` quietly.
///
/// # Errors
/// With the end of its output, when it fails.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?} cannot be started"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    let tail: Vec<_> = error.lines().rev().take(10).collect();
    ensure!(output.status.success(), "{command:?} failed:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::is_bookworm_release;

    /// Would miss: Debian 13, or a derivative of 12, taken for Debian 12.
    #[test]
    fn only_debian_12_is_bookworm() {
        assert!(is_bookworm_release("ID=debian\nVERSION_ID=\"12\"\n"));
        assert!(!is_bookworm_release("ID=debian\nVERSION_ID=\"13\"\n"));
        assert!(!is_bookworm_release("ID=raspbian\nID_LIKE=debian\nVERSION_ID=\"12\"\n"));
    }
}
