//! TCP through a virtio NIC of a bare-metal guest, in virtual time: identity against each strategy of DMA maps.
//!
//! The guest sleeps while it waits for the station at the other end, and its clock stands still meanwhile (no timer is
//! set, `sleep=off`): the figures are about its instructions and EL2's, not about the host's speed.

use anyhow::{Context, Result};

use super::{
    Limit, Report,
    bare_metal::Dma,
    machine::{self, Bench},
};
use crate::{build, console::Machine, manifest::schema::DmamapSection, station::Station};

/// How much goes each way.
const MEBIBYTES: u32 = 32;
/// The meeting of packets with the guest's sleep depends on the host, so runs differ: the middle one counts.
const ROUNDS: usize = 3;
/// Of `-icount shift=1`.
const INSTRUCTIONS_PER_NS: f64 = 0.5;
/// The strategies as the manifest names them, the product first.
const STRATEGIES: [&str; 6] = ["reserve", "magazine", "one-to-one", "bitmap", "per-load", "per-segment"];
/// The flush policies that never change; `auto` is beside them what the product does.
const FIXED: [&str; 3] = ["page", "range", "context"];

/// What one way of one run took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flow {
    /// Payload in bits by virtual microsecond.
    pub mbits: f64,
    /// Packets both ways.
    pub packets: f64,
    /// Maps loaded.
    pub loads: f64,
    /// Maps unloaded.
    pub unloads: f64,
    /// Calls to the hypervisor for both.
    pub hypercalls: f64,
    /// Virtual nanoseconds in these calls, as the guest sees them.
    pub hypercalls_ns: f64,
    /// The same for as many calls that do nothing.
    pub null_calls_ns: f64,
    /// Times that the guest had nothing to do.
    pub sleeps: f64,
}

/// A run: both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flows {
    /// Guest to station.
    pub send: Flow,
    /// Station to guest.
    pub receive: Flow,
}

/// Compares all strategies.
///
/// # Errors
/// When a run does not end or prints no figures.
pub fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    build::guests(bench.workspace)?;
    let identity = run(bench, None)?;
    figures(report, "identity", identity, identity);
    let mut auto = Flows::default();
    for strategy in STRATEGIES {
        let section = DmamapSection { strategy: Some(strategy.to_owned()), ..DmamapSection::default() };
        let flows = run(bench, Some(section))?;
        figures(report, strategy, flows, identity);
        if strategy == STRATEGIES[0] {
            auto = flows;
        }
    }
    let mut best = Flows::default();
    for policy in FIXED {
        let section = DmamapSection { flush: Some(policy.to_owned()), ..DmamapSection::default() };
        let flows = run(bench, Some(section))?;
        for (way, flow, best) in
            [("sending", flows.send, &mut best.send), ("receiving", flows.receive, &mut best.receive)]
        {
            report.figure(&format!("TCP virtio flush = {policy}, {way}"), flow.mbits, "Mbit/s", Limit::None);
            best.mbits = best.mbits.max(flow.mbits);
        }
    }
    for (way, auto, best) in [("sending", auto.send, best.send), ("receiving", auto.receive, best.receive)] {
        let title = format!("TCP virtio flush = auto, {way}: ratio to the best of them");
        report.figure(&title, auto.mbits / best.mbits, "", Limit::AtLeast(0.952));
    }
    Ok(())
}

fn figures(report: &mut Report, name: &str, flows: Flows, identity: Flows) {
    for (way, flow, base) in [("sending", flows.send, identity.send), ("receiving", flows.receive, identity.receive)] {
        let is_product = name == STRATEGIES[0];
        let (least, most) =
            if is_product { (Limit::AtLeast(0.90), Limit::AtMost(1.0 / 32.0)) } else { (Limit::None, Limit::None) };
        let title = format!("TCP virtio {name}, {way}");
        report.figure(&title, flow.mbits, "Mbit/s", Limit::None);
        if name == "identity" {
            continue;
        }
        report.figure(&format!("{title}: ratio to identity"), flow.mbits / base.mbits, "", least);
        report.figure(&format!("{title}: hypercalls per unload"), flow.hypercalls / flow.unloads, "", most);
        report.figure(&format!("{title}: hypercalls per packet"), flow.hypercalls / flow.packets, "", Limit::None);
    }
    if name != "identity" {
        calls(report, name, flows);
    }
}

/// What calls take from the HVC to the instruction after it, and how much of that is the way there and back.
fn calls(report: &mut Report, name: &str, Flows { send, receive }: Flows) {
    let both = |of: fn(&Flow) -> f64| of(&send) + of(&receive);
    let count = both(|flow| flow.hypercalls);
    let whole = both(|flow| flow.hypercalls_ns) * INSTRUCTIONS_PER_NS;
    let trap = both(|flow| flow.null_calls_ns) * INSTRUCTIONS_PER_NS;
    let mut figure = |what: &str, instructions: f64| {
        report.figure(&format!("TCP virtio {name}: {what}"), instructions, "insns", Limit::None);
    };
    figure("EL2 per call, trap", trap / count);
    figure("EL2 per call, work", (whole - trap) / count);
    figure("EL2 per load and unload", whole / both(|flow| flow.unloads));
}

/// Runs the NIC guest with identity, or with the maps that `dmamap` describes; the middle of some runs by both rates.
///
/// # Errors
/// When a run does not end or prints no figures. The guests must have been built.
pub fn run(bench: &Bench<'_>, dmamap: Option<DmamapSection>) -> Result<Flows> {
    let name = dmamap.as_ref().and_then(|section| section.strategy.clone());
    let name = name.unwrap_or_else(|| if dmamap.is_some() { "dmamap" } else { "identity" }.to_owned());
    let mut runs = (0..ROUNDS).map(|_| run_once(bench, &name, dmamap.clone())).collect::<Result<Vec<_>>>()?;
    runs.sort_by(|one, other| {
        (one.send.mbits + one.receive.mbits).total_cmp(&(other.send.mbits + other.receive.mbits))
    });
    runs.get(ROUNDS / 2).copied().context("no run")
}

fn run_once(bench: &Bench<'_>, name: &str, dmamap: Option<DmamapSection>) -> Result<Flows> {
    let dma = if dmamap.is_some() { "dmamap" } else { "identity" };
    let mut line = bench.bare_metal(
        "nic",
        "nic",
        format!("dma={dma} mib={MEBIBYTES}"),
        dmamap.map_or(Dma::Identity, Dma::Maps),
    )?;
    Station::start()?.plug_into(&mut line, "station");
    line.virtio_net("station", 2);
    let mut machine = Machine::start(&line, &bench.workspace.out().join("logs").join(format!("bench-nic-{name}.log")))?;
    machine::run_to_end(&mut machine)?;
    let flow = |way: &str| {
        let key = format!("nic {way} ");
        let found = machine.lines().iter().find_map(|line| parse(line.split_once(&key)?.1));
        found.with_context(|| format!("no figures of `{way}`:\n{}", machine.tail(20)))
    };
    Ok(Flows { send: flow("send")?, receive: flow("receive")? })
}

/// The guest's line `bytes=… us=… …`.
fn parse(text: &str) -> Option<Flow> {
    let counts = machine::parse_counts(text);
    let of = |key: &str| counts.get(key).copied();
    Some(Flow {
        mbits: of("bytes")? * 8.0 / of("us")?,
        packets: of("out")? + of("in")?,
        loads: of("loads")?,
        unloads: of("unloads")?,
        hypercalls: of("hypercalls")?,
        hypercalls_ns: of("hypercalls_ns")?,
        null_calls_ns: of("null_calls_ns")?,
        sleeps: of("sleeps")?,
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    /// Would miss: bytes taken for bits, or a figure that the guest calls by another name.
    #[test]
    fn a_guests_line_is_understood() {
        let line = "bytes=1000000 us=4000 out=700 in=50 loads=749 unloads=740 hypercalls=23 hypercalls_ns=9 null_calls_ns=5 sleeps=4 sum=0x12";
        let flow = parse(line).expect("all keys are there");
        assert!((flow.mbits - 2000.0).abs() < 1e-9 && (flow.packets - 750.0).abs() < 1e-9);
        assert_eq!(parse("bytes=1 us=1"), None);
    }
}
