//! Runs of Linux guests: NICs, traffic, resets, and what the SMMU saw.

mod judge;
mod peer;
mod runs;
mod trace;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    build::{self, Hypervisor},
    console::{Event, Machine},
    guest::initramfs,
    manifest::schema::Manifest,
    pack::{self, ManifestFiles},
    qemu::QemuLine,
    setup,
    suite::Summary,
    workspace::Workspace,
};
use judge::Judge;
use peer::Peer;
use runs::{RUNS, Run};

/// Four times what it takes on a quiet machine with two cores.
const TIME_LIMIT: Duration = Duration::from_secs(600);
/// Where a guest finds the host on QEMU's user network.
const HOST_FROM_GUEST: &str = "10.0.2.2";

/// Boots every run whose name contains `filter` and judges what it does, one line a check.
///
/// # Errors
/// When one could not be started, or none has such a name.
pub fn run(workspace: &Workspace, filter: Option<&str>) -> Result<Summary> {
    let filter = filter.unwrap_or_default();
    let runs: Vec<&Run> = RUNS.iter().filter(|run| run.name.contains(filter)).collect();
    ensure!(!runs.is_empty(), "no run of Linux guests has {filter:?} in its name");
    setup::ensure(workspace)?;
    initramfs::build(workspace)?;
    let hypervisor = build::hypervisor(workspace)?;
    let mut summary = Summary::default();
    for run in runs {
        run_one(workspace, &hypervisor, run, &mut summary)?;
    }
    Ok(summary)
}

fn run_one(workspace: &Workspace, hypervisor: &Hypervisor, run: &Run, summary: &mut Summary) -> Result<()> {
    let peer = Peer::start(&workspace.root().join(run.scripts))?;
    let bundle = workspace.out().join(format!("smoke-{}.bundle", run.name));
    pack_with_peer(workspace, run, &peer, &bundle)?;

    let logs = workspace.out().join("logs");
    let log = logs.join(format!("smoke-{}.log", run.name));
    let trace = logs.join(format!("smoke-{}.trace", run.name));
    let mut line = QemuLine::machine();
    line.headless().boot(&hypervisor.image, &bundle);
    (run.plug)(&mut line);
    trace::enable(&mut line, &trace, run.has_twins);
    let mut machine = Machine::start(&line, &log)?;
    let judge = watch(&mut machine, run);
    let tail = machine.tail(30);
    drop(machine);

    for (name, verdict) in judge.verdicts() {
        summary.count(&format!("smoke {} {name}", run.name), verdict);
    }
    let name = format!("smoke {} SMMU: nothing bypassed, nothing untranslated, no fault", run.name);
    summary.count(&name, trace::judge(&trace));
    if run.has_twins {
        let name = format!("smoke {} SMMU: two VMs' devices use the same ASID and addresses", run.name);
        summary.count(&name, trace::judge_twins(&trace));
    }
    if !judge.is_complete() {
        println!("{tail}");
    }
    Ok(())
}

/// The run's bundle, whose guests ask the peer what to do.
fn pack_with_peer(workspace: &Workspace, run: &Run, peer: &Peer, bundle: &Path) -> Result<()> {
    let path = workspace.root().join(run.manifest);
    let mut manifest = Manifest::read(&path)?;
    for vm in &mut manifest.vms {
        vm.cmdline.push_str(&format!(" bulkhead.run=peer bulkhead.peer={HOST_FROM_GUEST}:{}", peer.port()));
    }
    pack::pack_manifest(&manifest, &ManifestFiles::of(workspace, &path), &path, bundle)
}

/// Follows the console to the end.
fn watch(machine: &mut Machine, run: &Run) -> Judge {
    let deadline = Instant::now() + TIME_LIMIT;
    let mut judge = Judge::new(run);
    loop {
        match machine.next(deadline) {
            Event::Line(line) => judge.see(&line),
            Event::End => {
                judge.machine_ended();
                return judge;
            }
            Event::Timeout => return judge,
        }
    }
}
