//! Random operations on DMA maps under an edu that replays retired addresses: how many, and what it reached.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    Limit, Report,
    bare_metal::Dma,
    machine::{self, Bench},
};
use crate::{build, console::Machine, manifest::schema::DmamapSection};

/// Operations by strategy, the product's first.
const RUNS: [(&str, u64); 6] = [
    ("reserve", 1_000_000),
    ("magazine", 100_000),
    ("one-to-one", 100_000),
    ("bitmap", 100_000),
    ("per-load", 100_000),
    ("per-segment", 100_000),
];
/// QEMU's event for a record of the SMMU.
const EVENT: &str = "smmuv3_record_event";
/// Ten times what the longest run takes on a quiet machine.
const TIME_LIMIT: Duration = Duration::from_secs(3600);

/// Runs the guest of the scenario `dmamap-strict` longer, with every strategy.
///
/// # Errors
/// When a run does not end, or finds something reached that should not be.
pub fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    build::guests(bench.workspace)?;
    for (strategy, operations) in RUNS {
        run(bench, report, strategy, operations)?;
    }
    Ok(())
}

fn run(bench: &Bench<'_>, report: &mut Report, strategy: &str, operations: u64) -> Result<()> {
    let maps = DmamapSection {
        strategy: Some(strategy.to_owned()),
        maps: Some(64),
        tables: Some(16),
        ..DmamapSection::default()
    };
    let logs = bench.workspace.out().join("logs");
    let trace = logs.join(format!("bench-strict-{strategy}.trace"));
    let cmdline = format!("operations={operations} strategy={strategy}");
    let mut line = bench.bare_metal("strict", "dmamap-strict", cmdline, Dma::Maps(maps))?;
    line.option("-device", "edu,addr=02.0,dma_mask=0xffffffffffffffff");
    line.option("-trace", EVENT).option("-D", &trace.to_string_lossy());
    let mut machine = Machine::start(&line, &logs.join(format!("bench-strict-{strategy}.log")))?;
    ensure!(machine.has_ended_within(TIME_LIMIT), "the machine did not power off:\n{}", machine.tail(20));

    let lines = machine.lines();
    let counts = lines.iter().find_map(|line| line.split_once("[strict] strict "));
    let (_, counts) = counts.with_context(|| format!("no line with counts:\n{}", machine.tail(20)))?;
    let counts = machine::parse_counts(counts);
    let of = |key: &str| counts.get(key).copied().with_context(|| format!("`{key}` was not counted"));
    ensure!(lines.iter().any(|line| line.ends_with("[strict] done")), "it did not end:\n{}", machine.tail(20));
    let failed = lines.iter().filter(|line| line.contains("FAIL")).count();
    let title = |what: &str| format!("strict {strategy}: {what}");
    report.figure(&title("random operations"), of("operations")?, "", Limit::None);
    report.figure(&title("accesses to loaded addresses"), of("loaded")?, "", Limit::None);
    report.figure(&title("accesses to retired addresses"), of("retired")?, "", Limit::None);
    report.figure(&title("checks failed"), f64::from(u32::try_from(failed)?), "", Limit::AtMost(0.0));
    let each = f64::from(count_events(&trace)?) / of("retired")?;
    report.figure(&title("F_TRANSLATION events by retired access"), each, "", Limit::AtLeast(1.0));
    Ok(())
}

fn count_events(trace: &Path) -> Result<u32> {
    let file = File::open(trace).with_context(|| format!("no trace in {}", trace.display()))?;
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    Ok(u32::try_from(lines.filter(|line| line.contains(EVENT) && line.contains("F_TRANSLATION")).count())?)
}
