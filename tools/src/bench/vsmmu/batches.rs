//! What one batch takes, by a bare-metal guest that sends nothing else: the difference of two runs, so that the start cancels.

use anyhow::Result;

use super::{
    super::{
        Limit, Report,
        bare_metal::Dma,
        machine::{self, Bench},
    },
    JUDGED,
    counts::limit_of,
};
use crate::{build, console::Machine};

/// Batches of the short and of the long run.
const ROUNDS: [u32; 2] = [500, 2500];
/// The guest's TLBIs in a batch, single pages that do not lie together; a CMD_SYNC follows.
const COMMANDS: [u32; 3] = [1, 4, 17];

/// EL2's instructions for a batch.
///
/// # Errors
/// When a run does not end or prints no figures.
pub fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    build::guests(bench.workspace)?;
    for commands in COMMANDS {
        let [short, long] = ROUNDS.map(|rounds| run(bench, commands, rounds));
        let instructions = (long? - short?) / f64::from(ROUNDS[1] - ROUNDS[0]);
        let most = Limit::AtMost(limit_of(f64::from(commands + 1)));
        report.figure(&format!("EL2 instructions, {commands} TLBI and a SYNC, {JUDGED}"), instructions, "insns", most);
    }
    Ok(())
}

/// EL2's instructions for all batches and the start.
fn run(bench: &Bench<'_>, commands: u32, rounds: u32) -> Result<f64> {
    let name = "batches";
    let cmdline = format!("commands={commands} rounds={rounds}");
    let mut line = bench.bare_metal(name, "vsmmu-batches", cmdline, Dma::Nested(JUDGED))?;
    line.option("-device", "edu,addr=02.0,dma_mask=0xffffffffffffffff");
    let log = bench.workspace.out().join("logs").join("bench-vsmmu-batches.log");
    let mut machine = Machine::start(&line, &log)?;
    machine::run_to_end(&mut machine)?;
    Ok(machine::counts_of(&machine, "vsmmu", name)?.get("instructions").copied().unwrap_or_default())
}
