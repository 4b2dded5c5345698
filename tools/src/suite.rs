//! All tests together, and how results are counted.
use crate::workspace::Workspace;
use anyhow::Result;
/// Results.
#[derive(Debug, Default, Clone, Copy)]
pub struct Summary { /// passed
 pub passed: usize, /// failed
 pub failed: usize }
impl Summary { /// Prints.
 pub fn print_and_judge(self) -> bool { println!("{} passed, {} failed", self.passed, self.failed); self.failed == 0 } }
pub fn unit(_: &Workspace) -> Result<bool> { anyhow::bail!("not there yet") }
pub fn all(_: &Workspace) -> Result<bool> { anyhow::bail!("not there yet") }
