//! Scenarios.
pub fn run(_: &crate::workspace::Workspace, _: Option<&str>) -> anyhow::Result<crate::suite::Summary> { anyhow::bail!("not there yet") }
