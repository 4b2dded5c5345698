//! QEMU with a stage-2 SMMUv3: 9.2 or later.

use std::process::Command;

use anyhow::Result;

use super::{
    apt::PrivateApt,
    plan::{Plan, Step},
};
use crate::workspace::Workspace;

/// The program.
pub const PROGRAM: &str = "qemu-system-aarch64";
/// The first version whose `virt` machine has both stages.
pub const MINIMUM: &str = "9.2";
const MINIMUM_NUMBERS: (u32, u32) = (9, 2);
const PACKAGE: &str = "qemu-system-arm";
const RELEASE: &str = "bookworm-backports";

/// Whether a QEMU that is new enough is here.
pub fn is_ready() -> bool {
    version().is_some_and(|version| version >= MINIMUM_NUMBERS)
}

fn version() -> Option<(u32, u32)> {
    let output = Command::new(PROGRAM).arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let version = text.strip_prefix("QEMU emulator version ")?.split_whitespace().next()?;
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Adds what would have to change to `plan`.
pub fn plan(plan: &mut Plan) {
    if is_ready() {
        return;
    }
    let found = version().map_or_else(|| "none".to_owned(), |(major, minor)| format!("{major}.{minor}"));
    let what = format!(
        "QEMU {MINIMUM} or later (now: {found}): Debian package {PACKAGE} of {RELEASE}, with what it depends on"
    );
    plan.add(Step::system(what, install));
}

fn install(workspace: &Workspace) -> Result<()> {
    let apt = PrivateApt::native(&workspace.cache().join("apt/native"))?;
    apt.update()?;
    apt.install(&[PACKAGE], RELEASE)
}

#[cfg(test)]
mod tests {
    use super::{MINIMUM_NUMBERS, parse_version};

    /// Would miss: 10.0 compared as text with 9.2, and Debian 12's own 7.2 taken for new enough.
    #[test]
    fn versions_compare_as_numbers() {
        let parse =
            |version: &str| parse_version(&format!("QEMU emulator version {version} (Debian x)")).expect("a version");
        assert!(parse("10.0.2") > MINIMUM_NUMBERS);
        assert!(parse("9.2.0") >= MINIMUM_NUMBERS);
        assert!(parse("7.2.17") < MINIMUM_NUMBERS);
        assert_eq!(parse_version("nothing"), None);
    }
}
