//! The Linux smoke test: two guests, two NICs, traffic, a reset, and what the SMMU saw.

mod judge;
mod peer;
mod trace;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    build, cli,
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
use peer::{Peer, Stage};

/// Four times what it takes on a quiet machine with two cores.
const TIME_LIMIT: Duration = Duration::from_secs(600);
/// Where a guest finds the host on QEMU's user network.
const HOST_FROM_GUEST: &str = "10.0.2.2";

/// Boots the default bundle and judges what it does, one line a check.
///
/// # Errors
/// When it could not be started.
pub fn run(workspace: &Workspace) -> Result<Summary> {
    setup::ensure(workspace)?;
    initramfs::build(workspace)?;
    let hypervisor = build::hypervisor(workspace)?;
    let peer = Arc::new(Peer::start(&workspace.root().join("guest-tests/linux/smoke"))?);
    let bundle = workspace.out().join("smoke.bundle");
    pack_with_peer(workspace, peer.port(), &bundle)?;

    let log = workspace.out().join("logs/smoke.log");
    let trace = workspace.out().join("logs/smoke.trace");
    let mut line = QemuLine::machine();
    line.headless().boot(&hypervisor.image, &bundle).default_nics();
    trace::enable(&mut line, &trace);
    let mut machine = Machine::start(&line, &log)?;
    let judge = watch(&mut machine, &peer);
    let tail = machine.tail(30);
    drop(machine);

    let mut summary = Summary::default();
    for (name, verdict) in judge.verdicts() {
        summary.count(&format!("smoke {name}"), verdict);
    }
    summary.count("smoke SMMU: nothing bypassed, nothing untranslated, no fault", trace::judge(&trace));
    if !judge.is_complete() {
        println!("{tail}");
    }
    Ok(summary)
}

/// The default bundle, whose guests ask the peer what to do.
fn pack_with_peer(workspace: &Workspace, port: u16, bundle: &Path) -> Result<()> {
    let path = cli::default_manifest(workspace);
    let mut manifest = Manifest::read(&path)?;
    for vm in &mut manifest.vms {
        vm.cmdline.push_str(&format!(" bulkhead.run=peer bulkhead.peer={HOST_FROM_GUEST}:{port}"));
    }
    pack::pack_manifest(&manifest, &ManifestFiles::of(workspace, &path), &path, bundle)
}

/// Follows the console to the end, and moves the peer from stage to stage.
fn watch(machine: &mut Machine, peer: &Peer) -> Judge {
    let deadline = Instant::now() + TIME_LIMIT;
    let mut judge = Judge::default();
    loop {
        match machine.next(deadline) {
            Event::Line(line) => judge.see(&line),
            Event::End => {
                judge.machine_ended();
                return judge;
            }
            Event::Timeout => return judge,
        }
        if judge.traffic_has_begun() {
            peer.advance(Stage::Reset);
        }
        if judge.neighbour_is_back() {
            peer.advance(Stage::Done);
        }
    }
}
