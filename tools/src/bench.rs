//! Figures: ratios from one run and counts, each beside its limit.

mod bare_metal;
mod boot;
mod dma;
mod exits;
mod machine;
mod nic;
mod size;
mod strict;
mod tcp;
mod vsmmu;

use anyhow::Result;

use crate::{build, guest::initramfs, setup, workspace::Workspace};
use machine::Bench;

/// A figure's place among the others, for `bench NAME`.
type Figures = (&'static str, fn(&Bench<'_>, &mut Report) -> Result<()>);

const ALL: [Figures; 8] = [
    ("size", size::measure),
    ("boot", boot::measure),
    ("exits", exits::measure),
    ("tcp", tcp::measure),
    ("vsmmu", vsmmu::measure),
    ("dma-nic", nic::measure),
    ("dma", dma::measure),
    ("strict", strict::measure),
];

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
    /// Shown for comparison.
    None,
}

/// Prints figures and remembers whether all are within their limits.
#[derive(Debug)]
pub struct Report {
    is_good: bool,
}

impl Report {
    /// Prints one figure.
    pub fn figure(&mut self, name: &str, value: f64, unit: &str, limit: Limit) {
        let (is_within, bound) = match limit {
            Limit::AtMost(most) => (value <= most, format!("at most {most}")),
            Limit::AtLeast(least) => (value >= least, format!("at least {least}")),
            Limit::None => (true, String::new()),
        };
        self.is_good &= is_within;
        let mark = match limit {
            Limit::None => "    ",
            _ if is_within => "ok  ",
            _ => "OVER",
        };
        let digits = if value.fract() == 0.0 { 0 } else { 3 };
        println!("{mark} {name:<58} {value:>12.digits$} {unit:<8} {bound}");
    }
}

/// Measures everything whose name contains `filter`. `false` when a figure misses its limit.
///
/// # Errors
/// When something could not be measured.
pub fn run(workspace: &Workspace, filter: Option<&str>) -> Result<bool> {
    setup::ensure(workspace)?;
    initramfs::build(workspace)?;
    let bench = Bench { workspace, hypervisor: build::hypervisor(workspace)? };
    let mut report = Report { is_good: true };
    for (name, measure) in ALL.iter().filter(|(name, _)| name.contains(filter.unwrap_or_default())) {
        println!("{name}:");
        measure(&bench, &mut report)?;
    }
    Ok(report.is_good)
}
