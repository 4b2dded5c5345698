//! What the guest says of its traffic.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::console::Machine;

/// Kinds of traffic, as the guest's script names them, and the units of their rates.
pub const WORKLOADS: [(&str, &str); 5] =
    [("send", "Mbit/s"), ("receive", "Mbit/s"), ("round-trips", "/s"), ("datagrams", "kbit/s"), ("mix", "/s")];

/// The mean rate of each, and what was moved.
#[derive(Debug)]
pub struct Rates {
    means: BTreeMap<String, f64>,
    bytes: f64,
}

impl Rates {
    /// Of one workload.
    pub fn of(&self, workload: &str) -> f64 {
        self.means.get(workload).copied().unwrap_or(f64::NAN)
    }

    /// MiB that a NIC moved: what goes out of one comes into the other.
    pub fn mebibytes(&self) -> f64 {
        self.bytes * 2.0 / f64::from(1 << 20)
    }
}

/// The rates that `machine` has printed.
///
/// # Errors
/// When one is missing.
pub fn of(machine: &Machine) -> Result<Rates> {
    parse(machine.lines()).with_context(|| format!("not every rate was printed:\n{}", machine.tail(20)))
}

/// The mean of each workload's lines `bulkhead-guest: rate NAME RATE`, and the line `bulkhead-guest: moved BYTES` of one NIC.
fn parse(lines: &[String]) -> Option<Rates> {
    let mut bytes = None;
    let mut all = BTreeMap::<String, Vec<f64>>::new();
    for line in lines {
        if let Some((_, moved)) = line.split_once("bulkhead-guest: moved ") {
            bytes = moved.trim().parse().ok();
        }
        let Some((_, rate)) = line.split_once("bulkhead-guest: rate ") else { continue };
        let (name, rate) = rate.trim().split_once(' ')?;
        all.entry(name.to_owned()).or_default().push(rate.parse().ok()?);
    }
    let means: BTreeMap<_, _> = all
        .into_iter()
        .map(|(name, rates)| (name, rates.iter().sum::<f64>() / rates.iter().map(|_| 1.0).sum::<f64>()))
        .collect();
    WORKLOADS.iter().all(|(name, _)| means.contains_key(*name)).then_some(Rates { means, bytes: bytes? })
}

#[cfg(test)]
mod tests {
    use super::{WORKLOADS, parse};

    /// Would miss: a run that ended before its last workload, taken for a slow one.
    #[test]
    fn all_workloads_are_there_or_none() {
        let line = |name: &str, rate: u32| format!("[guest] bulkhead-guest: rate {name} {rate}.5");
        let mut lines: Vec<String> =
            WORKLOADS.iter().flat_map(|(name, _)| [3, 1, 5].map(|rate| line(name, rate))).collect();
        assert!(parse(&lines).is_none());
        lines.push("[guest] bulkhead-guest: moved 1048576".to_owned());
        let rates = parse(&lines).expect("all are there");
        assert!((rates.of("mix") - 3.5).abs() < f64::EPSILON && (rates.mebibytes() - 2.0).abs() < f64::EPSILON);
        lines.retain(|line| !line.contains("mix"));
        assert!(parse(&lines).is_none());
    }
}
