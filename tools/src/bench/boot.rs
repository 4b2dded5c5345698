//! QEMU's CPU seconds from start to the guest's userspace.

use anyhow::{Context, Result};

use super::{
    Limit, Report,
    machine::{Bench, Guest, deadline},
};
use crate::console::Machine;

const ROUNDS: usize = 5;
const USERSPACE: &str = "bulkhead-guest: ready";

/// One VM with a NIC against the same kernel directly, with two CPUs and with one.
///
/// # Errors
/// When a guest does not come to its userspace.
pub fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    compare(bench, report, 2, Limit::AtMost(1.25))?;
    // Without the second, nothing is woken by the first one's broadcasts of TLB invalidations.
    compare(bench, report, 1, Limit::None)
}

/// In turns, the medians compared.
fn compare(bench: &Bench<'_>, report: &mut Report, cpus: u32, limit: Limit) -> Result<()> {
    let guest = Guest { cpus, nics: 1, cmdline: "bulkhead.run=off".to_owned(), is_exact: false };
    let (mut ours, mut direct) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        direct.push(seconds_to_userspace(bench.start_directly("boot-direct", &guest)?)?);
        ours.push(seconds_to_userspace(bench.start_under_bulkhead("boot-bulkhead", &guest)?)?);
    }
    let (ours, direct) = (median(ours), median(direct));
    let title = format!("boot to userspace, vCPUs {cpus}");
    report.figure(&format!("{title}: directly"), direct, "CPU s", Limit::None);
    report.figure(&format!("{title}: under Bulkhead"), ours, "CPU s", Limit::None);
    report.figure(&format!("{title}: ratio"), ours / direct, "", limit);
    Ok(())
}

fn seconds_to_userspace(mut machine: Machine) -> Result<f64> {
    let line = machine.wait_for(deadline(), |line| line.contains(USERSPACE));
    line.with_context(|| format!("the guest did not come to its userspace:\n{}", machine.tail(20)))?;
    machine.cpu_seconds().context("QEMU ended before its CPU time was read")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::median;

    /// Would miss: one slow run that decides the figure.
    #[test]
    fn an_outlier_does_not_count() {
        assert!((median(vec![3.0, 1.0, 90.0, 2.0, 2.5]) - 2.5).abs() < f64::EPSILON);
    }
}
