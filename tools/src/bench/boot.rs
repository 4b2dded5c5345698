//! QEMU's CPU seconds from start to the guest's userspace.

use anyhow::{Context, Result};

use super::{
    Limit, Report,
    machine::{Bench, Guest, deadline},
};
use crate::{console::Machine, manifest::schema::Stage2Leaves};

const ROUNDS: usize = 5;
const USERSPACE: &str = "bulkhead-guest: ready";

/// One VM with a NIC and two CPUs against the same kernel directly, in turns, the medians compared.
///
/// The limit holds for the QEMU platform's own setting, pages; blocks, as on boards, stand beside it.
///
/// # Errors
/// When a guest does not come to its userspace.
pub fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let guest = |stage2| Guest {
        cpus: 2,
        nics: 1,
        cmdline: "bulkhead.run=off".to_owned(),
        is_exact: false,
        stage2,
        nested: None,
    };
    let (in_pages, in_blocks) = (guest(Stage2Leaves::Pages), guest(Stage2Leaves::Blocks));
    let (mut direct, mut pages, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        direct.push(seconds_to_userspace(bench.start_directly("boot-direct", &in_pages)?)?);
        pages.push(seconds_to_userspace(bench.start_under_bulkhead("boot-pages", &in_pages)?)?);
        blocks.push(seconds_to_userspace(bench.start_under_bulkhead("boot-blocks", &in_blocks)?)?);
    }
    let (direct, pages, blocks) = (median(direct), median(pages), median(blocks));
    report.figure("boot to userspace: directly", direct, "CPU s", Limit::None);
    report.figure("boot to userspace: stage 2 in pages", pages, "CPU s", Limit::None);
    report.figure("boot to userspace: stage 2 in blocks", blocks, "CPU s", Limit::None);
    report.figure("boot to userspace: ratio in pages", pages / direct, "", Limit::AtMost(1.25));
    report.figure("boot to userspace: ratio in blocks", blocks / direct, "", Limit::None);
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
