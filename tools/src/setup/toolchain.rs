//! The compiler for the bare-metal target: rustup's, or Debian's own with its library's sources.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::plan::{Plan, Step};
use crate::{boot_only, workspace::Workspace};

/// The target: FP and SIMD registers stay the guest's.
pub const TARGET: &str = "aarch64-unknown-none-softfloat";
/// Debian's compiler and the sources of its library, which it builds for the target itself.
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "lld"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Which compiler builds for the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// The target's library is installed beside cargo's own compiler.
    Installed,
    /// Debian's compiler builds the library itself.
    Debian,
}

/// Whether either way works already.
pub fn is_ready(workspace: &Workspace) -> bool {
    choice(workspace).is_some()
}

/// Adds what would have to change to `plan`.
pub fn plan(workspace: &Workspace, plan: &mut Plan) {
    if is_ready(workspace) {
        return;
    }
    let what = format!(
        "rust target {TARGET}: `rustup target add {TARGET}`, or where that fails Debian's packages {}",
        DEBIAN_PACKAGES.join(" ")
    );
    plan.add(Step::system(what, install));
}

fn install(workspace: &Workspace) -> Result<()> {
    let rustup = Command::new("rustup").args(["target", "add", TARGET]).stdin(Stdio::null()).output();
    if rustup.is_ok_and(|output| output.status.success()) && has_target_library() {
        return Ok(());
    }
    super::debian::install(&DEBIAN_PACKAGES).context(format!(
        "the Rust target {TARGET} could neither be added by rustup nor built from Debian's packages"
    ))?;
    let note = note(workspace);
    fs::create_dir_all(workspace.cache())?;
    fs::write(&note, "debian\n").with_context(|| format!("writing {}", note.display()))
}

/// Where it is remembered that Debian's compiler is the one.
fn note(workspace: &Workspace) -> PathBuf {
    workspace.cache().join("toolchain")
}

fn choice(workspace: &Workspace) -> Option<Choice> {
    if has_target_library() {
        return Some(Choice::Installed);
    }
    let is_noted = fs::read_to_string(note(workspace)).is_ok_and(|text| text.trim() == "debian");
    (is_noted && Path::new(DEBIAN_RUSTC).is_file()).then_some(Choice::Debian)
}

fn has_target_library() -> bool {
    let Some(folder) = rustc_print("rustc", &["--print", "target-libdir", "--target", TARGET]) else {
        return false;
    };
    let Ok(files) = fs::read_dir(folder) else { return false };
    files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
}

fn rustc_print(rustc: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(rustc).args(arguments).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Makes a cargo command build for the target.
///
/// # Errors
/// Before set-up has run.
pub fn apply(workspace: &Workspace, command: &mut Command) -> Result<()> {
    match choice(workspace) {
        Some(Choice::Installed) => {}
        Some(Choice::Debian) => {
            command.arg("-Zbuild-std=core").env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
            let linker = rust_lld().unwrap_or_else(|| PathBuf::from("ld.lld"));
            command.env("CARGO_TARGET_AARCH64_UNKNOWN_NONE_SOFTFLOAT_LINKER", &linker);
            command.env(boot_only::link::LINKER, linker);
        }
        None => bail!("the Rust target {TARGET} is missing: run `./justw setup`"),
    }
    Ok(())
}

/// The linker that comes with rustup's toolchain.
fn rust_lld() -> Option<PathBuf> {
    let sysroot = rustc_print("rustc", &["--print", "sysroot"])?;
    let version = rustc_print("rustc", &["-vV"])?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "))?;
    let linker = Path::new(&sysroot).join("lib/rustlib").join(host).join("bin/rust-lld");
    linker.is_file().then_some(linker)
}
