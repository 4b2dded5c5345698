//! Instructions of the DMA map paths and of the virtual SMMU, counted by a bare-metal program, beside what the peers take.

use anyhow::{Context, Result};

use super::{
    Limit, Report,
    machine::{self, Bench},
};
use crate::{build, console::Machine, qemu::QemuLine};

/// What is counted, its limit, and the peers' figures for the same.
const FIGURES: &[(&str, f64, &str)] = &[
    ("load + unload, 3 pages, batch 16, reserve", 96.0, "C sketch 91, OpenBSD 564, Linux 1563 to 2657"),
    ("load + unload, 64 KiB", 150.0, "OpenBSD 2116, Linux 2140"),
    ("load + unload, 2 MiB block", 40.0, "Linux 720"),
    ("create + destroy, 100000 live", 400.0, "Linux rcache 186, returns no space"),
    ("leaf-table slack, 100000 live", 1.15, "OpenBSD extent 1.00, Linux rcache 1.58"),
    ("submission: TLBI, SYNC, doorbell, completion", 40.0, "Linux 285, a spinlocked ring 81"),
    ("commands per map, ring, batch 32", 0.0625, "Linux strict 2"),
    ("TLBIs of a retirement, 1 page to 512 MiB", 1.0, "Linux 1 to 4"),
    ("SYNCs of a retirement, 1 page to 512 MiB", 1.0, ""),
    ("doorbells of a retirement, 1 page to 512 MiB", 1.0, ""),
    ("stage 1: gathering a range", 30.0, ""),
    ("stage 1: a range and its SYNC", 230.0, ""),
    ("virtual SMMU: a TLBI and its SYNC", 340.0, ""),
    ("virtual SMMU: 17 TLBIs and their SYNC", 980.0, ""),
    ("grown after a million loads: table pages, leases, pool", 0.0, ""),
];

/// Runs the program directly on the machine, one instruction a tick of the counter.
///
/// # Errors
/// When it does not end, or counts nothing.
pub fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    build::guests(bench.workspace)?;
    let mut line = QemuLine::virt("virt,gic-version=3,dtb-randomness=off", 1, "1G");
    line.headless().option("-cpu", "max").option("-icount", "shift=0,sleep=off").option("-seed", "1");
    line.kernel(&bench.workspace.guest_images().join("count"));
    let mut machine = Machine::start(&line, &bench.workspace.out().join("logs").join("bench-dma.log"))?;
    machine::run_to_end(&mut machine)?;
    let lines = machine.lines();
    let counts: Vec<(&str, f64, &str)> = lines.iter().filter_map(|line| parse(line)).collect();
    anyhow::ensure!(!counts.is_empty(), "the program counted nothing:\n{}", machine.tail(20));
    for (name, value, unit) in &counts {
        let known = FIGURES.iter().find(|(known, ..)| known == name);
        let limit = known.map_or(Limit::None, |(_, most, _)| Limit::AtMost(*most));
        report.figure(name, *value, unit, limit);
        if let Some((_, _, peers)) = known.filter(|(_, _, peers)| !peers.is_empty()) {
            println!("     {:<58} {peers}", "  the peers");
        }
    }
    let missing = FIGURES.iter().find(|(known, ..)| !counts.iter().any(|(name, ..)| name == known));
    missing.map_or(Ok(()), |(name, ..)| Err(anyhow::anyhow!("`{name}` was not counted"))).context("bench dma")
}

/// The program's lines `count NAME instructions=N` and `figure NAME value=V`: name, number, unit.
fn parse(line: &str) -> Option<(&str, f64, &'static str)> {
    let (text, key, unit) = match line.strip_prefix("count ") {
        Some(text) => (text, " instructions=", "insns"),
        None => (line.strip_prefix("figure ")?, " value=", ""),
    };
    let (name, value) = text.split_once(key)?;
    Some((name, value.split_whitespace().next()?.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::parse;

    /// Would miss: a name with spaces cut short, so that its limit is never looked up.
    #[test]
    fn names_are_whole() {
        assert_eq!(parse("count load, 3 pages instructions=91.25"), Some(("load, 3 pages", 91.25, "insns")));
        assert_eq!(parse("figure slack, 256 live value=1.02"), Some(("slack, 256 live", 1.02, "")));
        assert_eq!(parse("loaded"), None);
    }
}
