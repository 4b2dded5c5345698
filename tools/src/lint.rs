//! Lint.
pub fn run(_: &crate::workspace::Workspace) -> anyhow::Result<bool> {
    anyhow::bail!("not there yet")
}
