//! Bench.
pub fn run(_: &crate::workspace::Workspace, _: Option<&str>) -> anyhow::Result<bool> {
    anyhow::bail!("not there yet")
}
