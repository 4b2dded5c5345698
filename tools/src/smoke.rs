//! Smoke.
pub fn run(_: &crate::workspace::Workspace) -> anyhow::Result<crate::suite::Summary> {
    anyhow::bail!("not there yet")
}
