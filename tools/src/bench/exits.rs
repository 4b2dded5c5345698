//! Exits to EL2, by reason: one boot, one idle second. Exact: they repeat to the digit.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{
    Limit, Report,
    machine::{self, Bench, Guest},
};
use crate::manifest::schema::Stage2Leaves;

const IDLE_S: [u32; 2] = [10, 30];

/// Boots a guest, and boots it and lets it idle for two lengths of time.
///
/// # Errors
/// When a run does not end.
pub fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    for (vcpus, limit) in [(1, Limit::AtMost(1500.0)), (2, Limit::None)] {
        for (reason, count) in &run(bench, "exits-boot", vcpus, "bulkhead.run=off".to_owned())? {
            let limit = if reason == "total" { limit } else { Limit::None };
            report.figure(&format!("exits of one boot and power-off, vCPUs {vcpus}: {reason}"), *count, "", limit);
        }
    }
    let [short, long] = IDLE_S;
    let idle = |seconds: u32| run(bench, "exits-idle", 2, format!("bulkhead.run=idle bulkhead.seconds={seconds}"));
    let (short_run, long_run) = (idle(short)?, idle(long)?);
    for (reason, per_second) in per_unit(&short_run, &long_run, f64::from(long - short)) {
        report.figure(&format!("exits per idle second, 2 vCPUs: {reason}"), per_second, "", Limit::None);
    }
    Ok(())
}

fn run(bench: &Bench<'_>, name: &str, cpus: u32, cmdline: String) -> Result<BTreeMap<String, f64>> {
    let guest = Guest { cpus, nics: 1, cmdline, is_exact: true, stage2: Stage2Leaves::Blocks, nested: None };
    let mut machine = bench.start_under_bulkhead(name, &guest)?;
    machine::run_to_end(&mut machine)?;
    machine::exits(&machine)
}

/// What `units` more of something cost: the difference of two run lengths, in which all else cancels.
pub fn per_unit(short: &BTreeMap<String, f64>, long: &BTreeMap<String, f64>, units: f64) -> BTreeMap<String, f64> {
    let of = |reason: &String, count: &f64| (count - short.get(reason).copied().unwrap_or_default()) / units;
    long.iter().map(|(reason, count)| (reason.clone(), of(reason, count))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::per_unit;

    /// Would miss: the boot's exits counted to the traffic.
    #[test]
    fn what_both_runs_have_cancels() {
        let short = BTreeMap::from([("irq".to_owned(), 1100.0)]);
        let long = BTreeMap::from([("irq".to_owned(), 1300.0)]);
        assert!((per_unit(&short, &long, 20.0)["irq"] - 10.0).abs() < f64::EPSILON);
    }
}
