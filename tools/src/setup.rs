//! Set-up: everything that a fresh Debian 12 lacks, and nothing twice.

mod apt;
mod debian;
pub mod guest_files;
pub mod plan;
pub mod qemu;
pub mod toolchain;

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use plan::Plan;

/// Does what is missing. Without anything missing this needs no network and prints nothing.
///
/// # Errors
/// When a step fails, or on another system than Debian 12: the message then lists what to install.
pub fn ensure(workspace: &Workspace) -> Result<()> {
    let plan = plan_all(workspace);
    if plan.is_empty() {
        return Ok(());
    }
    if !debian::is_bookworm() {
        bail!("{}", by_hand(workspace));
    }
    eprint!("{}", plan.describe(workspace));
    plan.run(workspace)
}

/// Prints what [`ensure`] would change, and changes nothing.
pub fn dry_run(workspace: &Workspace) {
    let plan = plan_all(workspace);
    print!("{}", plan.describe(workspace));
    if !plan.is_empty() && !debian::is_bookworm() {
        println!("{}", by_hand(workspace));
    }
}

fn plan_all(workspace: &Workspace) -> Plan {
    let mut plan = Plan::default();
    toolchain::plan(workspace, &mut plan);
    qemu::plan(&mut plan);
    guest_files::plan(workspace, &mut plan);
    plan
}

/// One message with all that another system needs.
fn by_hand(workspace: &Workspace) -> String {
    let mut lines =
        vec!["set-up installs packages on Debian 12 only. Install these, then run the command again:".to_owned()];
    if !toolchain::is_ready(workspace) {
        lines.push(format!("  - the Rust target: rustup target add {}", toolchain::TARGET));
    }
    if !qemu::is_ready() {
        lines.push(format!("  - {} {} or later (Debian 13: qemu-system-arm)", qemu::PROGRAM, qemu::MINIMUM));
    }
    if !guest_files::is_ready(workspace) {
        lines.push(format!("  - in {}:", guest_files::root(workspace).display()));
        lines.extend(guest_files::NEEDED.iter().map(|file| format!("      {file}")));
        lines.push(format!(
            "    unpacked (dpkg-deb -x) from Debian 12's arm64 packages {}",
            guest_files::PACKAGES.join(" ")
        ));
        lines.push(format!("    and {} (bookworm-backports)", guest_files::KERNEL_PATTERN));
        lines.push(format!("    with the kernel copied to {}", guest_files::kernel(workspace).display()));
    }
    lines.join("\n")
}
