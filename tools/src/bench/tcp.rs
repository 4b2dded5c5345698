//! TCP through passed-through e1000es, in virtual time: every digit repeats.

use anyhow::{Context, Result};

use super::{
    Limit, Report,
    exits::per_unit,
    machine::{self, Bench, Guest, WIRED},
};
use crate::{console::Machine, manifest::schema::Stage2Leaves};

/// MiB each way of the short and of the long run.
const SHORT_MIB: u32 = 16;
const LONG_MIB: u32 = 64;

/// Starts of the transfer, some milliseconds apart. Each repeats to the digit, but how interrupts meet packets differs from
/// one to the next by some per cent, and their number by half: the mean counts.
const PHASES: u32 = 5;

#[derive(Clone, Copy, Debug)]
struct Rates {
    send: f64,
    receive: f64,
}

/// One guest with both ends of the wire: under Bulkhead, directly with wired interrupts, directly with MSI-X.
///
/// # Errors
/// When a run does not end or prints no rates.
pub fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let (mut wired, mut msix, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    let (mut short_exits, mut long_exits) = (Exits::new(), Exits::new());
    for phase in 0..PHASES {
        let line = guest(&format!("pci=nomsi {WIRED}"), LONG_MIB, phase);
        wired.push(rates(bench.start_directly("tcp-direct-nomsi", &line)?)?);
        msix.push(rates(bench.start_directly("tcp-direct-msix", &guest("", LONG_MIB, phase))?)?);
        let (rates, long) = under_bulkhead(bench, "tcp-bulkhead", LONG_MIB, phase)?;
        let (_, short) = under_bulkhead(bench, "tcp-bulkhead-short", SHORT_MIB, phase)?;
        ours.push(rates);
        add(&mut short_exits, &short);
        add(&mut long_exits, &long);
    }
    let (wired, msix, ours) = (mean(&wired), mean(&msix), mean(&ours));
    for (name, rates) in [("directly, nomsi", wired), ("directly, MSI-X", msix), ("under Bulkhead", ours)] {
        report.figure(&format!("TCP e1000e {name}: sending"), rates.send, "Mbit/s", Limit::None);
        report.figure(&format!("TCP e1000e {name}: receiving"), rates.receive, "Mbit/s", Limit::None);
    }
    report.figure("TCP e1000e, ratio to nomsi: sending", ours.send / wired.send, "", Limit::AtLeast(0.97));
    report.figure("TCP e1000e, ratio to nomsi: receiving", ours.receive / wired.receive, "", Limit::AtLeast(0.97));
    report.figure("TCP e1000e, ratio to MSI-X: sending", ours.send / msix.send, "", Limit::None);
    report.figure("TCP e1000e, ratio to MSI-X: receiving", ours.receive / msix.receive, "", Limit::None);
    // Both ways, and each MiB goes out of one NIC and into the other: two NICs have moved it.
    let mebibytes = f64::from(PHASES * 4 * (LONG_MIB - SHORT_MIB));
    for (reason, count) in per_unit(&short_exits, &long_exits, mebibytes) {
        let limit = if reason == "total" { Limit::AtMost(20.0) } else { Limit::None };
        report.figure(&format!("exits per MiB that a NIC moves: {reason}"), count, "", limit);
    }
    Ok(())
}

fn guest(more: &str, mebibytes: u32, phase: u32) -> Guest {
    let cmdline = format!("{more} bulkhead.run=throughput bulkhead.mib={mebibytes} bulkhead.phase=0.0{phase}7");
    Guest { cpus: 1, nics: 2, cmdline, is_exact: true, stage2: Stage2Leaves::Blocks, nested: None }
}

type Exits = std::collections::BTreeMap<String, f64>;

fn under_bulkhead(bench: &Bench<'_>, name: &str, mebibytes: u32, phase: u32) -> Result<(Rates, Exits)> {
    let mut machine = bench.start_under_bulkhead(name, &guest("", mebibytes, phase))?;
    machine::run_to_end(&mut machine)?;
    Ok((rates_of(&machine)?, machine::exits(&machine)?))
}

fn add(sum: &mut Exits, exits: &Exits) {
    for (reason, count) in exits {
        *sum.entry(reason.clone()).or_default() += count;
    }
}

/// The mean of each way's rates.
fn mean(rates: &[Rates]) -> Rates {
    let of = |way: fn(&Rates) -> f64| rates.iter().map(way).sum::<f64>() / f64::from(PHASES);
    Rates { send: of(|rates| rates.send), receive: of(|rates| rates.receive) }
}

fn rates(mut machine: Machine) -> Result<Rates> {
    machine::run_to_end(&mut machine)?;
    rates_of(&machine)
}

fn rates_of(machine: &Machine) -> Result<Rates> {
    let of = |way: &str| {
        let key = format!("bulkhead-guest: mbits {way} ");
        let found = machine.lines().iter().find_map(|line| line.split_once(&key)?.1.trim().parse::<f64>().ok());
        found.with_context(|| format!("no rate of `{way}`:\n{}", machine.tail(20)))
    };
    Ok(Rates { send: of("send")?, receive: of("receive")? })
}
