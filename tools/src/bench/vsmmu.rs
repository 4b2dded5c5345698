//! A guest's own SMMU: what its invalidations become by each policy, what that takes, and what is left of the speed.
//!
//! In virtual time, so that every digit repeats. Commands take the emulator's SMMU no virtual time: policies differ in EL2's
//! instructions, and in the counts.

mod batches;
mod counts;
mod rates;

use anyhow::Result;

use self::{
    counts::Counts,
    rates::{Rates, WORKLOADS},
};
use super::{
    Limit, Report,
    machine::{self, Bench, Guest, WIRED},
};
use crate::manifest::schema::Stage2Leaves;

/// MiB of each stream.
const MEBIBYTES: u32 = 16;
/// The policy that is judged.
const JUDGED: &str = "auto";
/// Those that never change.
const FIXED: [&str; 3] = ["page", "range", "context"];
/// What Xen's series does.
const XEN: &str = "each";

/// How the guest's Linux flushes.
struct Mode {
    name: &'static str,
    option: &'static str,
    /// Share of the speed on the machine itself that is left, at least, for the streams of the judged policy.
    least: f64,
    /// Lazy flushes are of whole ASIDs: no fixed policy does anything else with them.
    fixed: &'static [&'static str],
}

const MODES: [Mode; 2] = [
    Mode { name: "strict", option: "iommu.strict=1", least: 0.85, fixed: &FIXED },
    Mode { name: "lazy", option: "iommu.strict=0", least: 0.95, fixed: &[] },
];

/// One batch by instructions; then each policy in each mode beside the same Linux with the machine's own SMMU.
///
/// # Errors
/// When a run does not end or prints no figures.
pub fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    batches::measure(bench, report)?;
    for mode in MODES {
        let direct = directly(bench, &mode)?;
        show(report, &format!("{}, directly", mode.name), &direct);
        let judged = under(bench, report, &mode, JUDGED, &direct)?;
        let mut best = Vec::new();
        for policy in mode.fixed {
            best.push(under(bench, report, &mode, policy, &direct)?);
        }
        under(bench, report, &mode, XEN, &direct)?;
        against_the_best(report, &mode, &judged, &best);
    }
    Ok(())
}

fn directly(bench: &Bench<'_>, mode: &Mode) -> Result<Rates> {
    let more = format!("pci=nomsi {WIRED} {}", mode.option);
    let mut machine = bench.start_directly(&format!("vsmmu-{}-direct", mode.name), &guest(&more, JUDGED))?;
    machine::run_to_end(&mut machine)?;
    rates::of(&machine)
}

/// One policy's figures.
fn under(bench: &Bench<'_>, report: &mut Report, mode: &Mode, policy: &'static str, direct: &Rates) -> Result<Rates> {
    let title = format!("{}, {policy}", mode.name);
    let mut machine =
        bench.start_under_bulkhead(&format!("vsmmu-{}-{policy}", mode.name), &guest(mode.option, policy))?;
    machine::run_to_end(&mut machine)?;
    let rates = rates::of(&machine)?;
    let is_judged = policy == JUDGED;
    show(report, &title, &rates);
    ratios(report, &title, &rates, direct, is_judged.then_some(mode.least));
    Counts::of(&machine)?.show(report, &title, is_judged, rates.mebibytes());
    Ok(rates)
}

fn guest(more: &str, policy: &'static str) -> Guest {
    let cmdline = format!("{more} bulkhead.run=traffic bulkhead.mib={MEBIBYTES}");
    Guest { cpus: 1, nics: 2, cmdline, is_exact: true, stage2: Stage2Leaves::Blocks, nested: Some(policy) }
}

fn show(report: &mut Report, title: &str, rates: &Rates) {
    for (workload, unit) in WORKLOADS {
        report.figure(&format!("{title}: {workload}"), rates.of(workload), unit, Limit::None);
    }
}

fn ratios(report: &mut Report, title: &str, rates: &Rates, direct: &Rates, least: Option<f64>) {
    for (workload, _) in WORKLOADS {
        // The goal is of TCP's streams.
        let limit = match least {
            Some(least) if matches!(workload, "send" | "receive") => Limit::AtLeast(least),
            _ => Limit::None,
        };
        let ratio = rates.of(workload) / direct.of(workload);
        report.figure(&format!("{title}: {workload}, ratio to directly"), ratio, "", limit);
    }
}

/// The policy that adapts against the best of those that do not.
fn against_the_best(report: &mut Report, mode: &Mode, judged: &Rates, fixed: &[Rates]) {
    if fixed.is_empty() {
        return;
    }
    for (workload, _) in WORKLOADS {
        let best = fixed.iter().map(|rates| rates.of(workload)).fold(0.0, f64::max);
        let name = format!("{}, {JUDGED}: {workload}, ratio to the best fixed", mode.name);
        report.figure(&name, judged.of(workload) / best, "", Limit::AtLeast(0.952));
    }
}
