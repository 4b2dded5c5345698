//! Bare-metal scenarios: one manifest, one guest program, one expected output each.

mod expect;
mod jump;
mod settings;
mod tree;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    build::{self, Hypervisor},
    console::{Event, Machine},
    manifest::schema::Manifest,
    pack::{self, ManifestFiles},
    qemu::QemuLine,
    setup,
    station::Station,
    suite::Summary,
    workspace::Workspace,
};
use expect::{Expectation, Progress};
use jump::Jump;
use settings::{BundleDamage, Settings};

/// How long a machine that has said everything may take to power off.
const POWER_OFF_TIME: Duration = Duration::from_secs(10);

/// Runs every scenario whose name contains `filter`, as many at a time as the host has CPUs.
///
/// # Errors
/// When something cannot be built, or no scenario has such a name.
pub fn run(workspace: &Workspace, filter: Option<&str>) -> Result<Summary> {
    setup::ensure(workspace)?;
    let folder = workspace.root().join("guest-tests/scenarios");
    let scenarios = find(&folder, filter.unwrap_or_default())?;
    ensure!(
        !scenarios.is_empty(),
        "no scenario in {} has {:?} in its name",
        folder.display(),
        filter.unwrap_or_default()
    );
    let hypervisor = build::hypervisor(workspace)?;
    build::guests(workspace)?;
    let summary = Mutex::new(Summary::default());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let start = Instant::now();
                    let verdict = run_one(workspace, &hypervisor, scenario);
                    let mut summary = summary.lock().expect("no thread panics with the summary");
                    let name = format!("guest {} ({:.1} s)", name_of(scenario), start.elapsed().as_secs_f64());
                    summary.count(&name, verdict.map_err(|error| format!("{error:#}")));
                }
            });
        }
    });
    Ok(summary.into_inner().expect("no thread panics with the summary"))
}

fn find(folder: &Path, filter: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut scenarios: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("expected.txt").is_file() && name_of(path).contains(filter))
        .collect();
    scenarios.sort();
    Ok(scenarios)
}

fn name_of(scenario: &Path) -> String {
    scenario.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Runs one scenario.
///
/// # Errors
/// What went wrong, with the end of the console.
fn run_one(workspace: &Workspace, hypervisor: &Hypervisor, scenario: &Path) -> Result<()> {
    let name = name_of(scenario);
    let settings = Settings::read(scenario)?;
    let expected = scenario.join("expected.txt");
    let expected = fs::read_to_string(&expected).with_context(|| format!("reading {}", expected.display()))?;
    let expectation = Expectation::parse(&expected);
    let manifest_path = scenario.join("manifest.toml");
    let manifest = Manifest::read(&manifest_path)?;
    let bundle = workspace.out().join("scenarios").join(format!("{name}.bundle"));
    pack::pack_manifest(&manifest, &ManifestFiles::of(workspace, &manifest_path), &manifest_path, &bundle)?;
    settings.damage(&bundle)?;

    let mut line = QemuLine::machine();
    line.headless().kernel(&hypervisor.image);
    if settings.bundle != Some(BundleDamage::Missing) {
        line.initrd(&bundle);
    }
    if settings.station {
        Station::start()?.plug_into(&mut line, "station");
    }
    line.arguments(&settings.qemu_arguments);
    if !settings.node.is_empty() {
        let path = workspace.out().join("scenarios").join(format!("{name}.dtb"));
        tree::write(&line, &settings.node, &path)?;
        line.option("-dtb", &path.to_string_lossy());
    }
    let logs = workspace.out().join("logs");
    let (log, trace) = (logs.join(format!("guest-{name}.log")), logs.join(format!("guest-{name}.trace")));
    if !settings.events.is_empty() {
        for event in &settings.events {
            line.option("-trace", event);
        }
        line.option("-D", &trace.to_string_lossy());
    }
    let stub = workspace.out().join("scenarios").join(format!("{name}.gdb"));
    if settings.jump.is_some() {
        let _ = fs::remove_file(&stub);
        line.option("-gdb", &format!("unix:{},server=on,wait=off", stub.display()));
    }
    let mut machine = Machine::start(&line, &log)?;
    let must_power_off = manifest.machine.poweroff_when_all_stopped && settings.bundle.is_none();
    let jump = |jump: &Jump, base| jump.run(&fs::read(&hypervisor.elf)?, base, &stub);
    watch(&mut machine, &expectation, &settings, &jump, must_power_off)
        .map_err(|reason| anyhow::anyhow!("{reason}\n{}", machine.tail(25)))?;
    drop(machine);
    if settings.events.is_empty() { Ok(()) } else { check_trace(scenario, &trace) }
}

/// Compares QEMU's trace with the scenario's `trace.txt`.
fn check_trace(scenario: &Path, trace: &Path) -> Result<()> {
    let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    let expectation = Expectation::parse(&read(&scenario.join("trace.txt"))?);
    let mut progress = Progress::default();
    for line in read(trace)?.lines() {
        expectation.see(&mut progress, line).map_err(|reason| anyhow::anyhow!("in QEMU's trace: {reason}"))?;
    }
    match expectation.missing(&progress) {
        Some(missing) => anyhow::bail!("this is not in QEMU's trace {}: {missing}", trace.display()),
        None => Ok(()),
    }
}

/// Follows the console until everything has come and the machine is off, and types what is to be typed.
fn watch(
    machine: &mut Machine,
    expectation: &Expectation,
    settings: &Settings,
    run_jump: &dyn Fn(&Jump, u64) -> Result<()>,
    must_power_off: bool,
) -> Result<(), String> {
    let limit = settings.time_limit();
    let mut keys = settings.keys.iter().peekable();
    let mut jump = settings.jump.as_ref();
    let mut base = None;
    let mut deadline = Instant::now() + limit;
    let mut progress = Progress::default();
    let mut is_complete = false;
    loop {
        match (machine.next(deadline), expectation.missing(&progress)) {
            (Event::Line(line), _) => {
                expectation.see(&mut progress, &line)?;
                if let Some(keys) = keys.next_if(|keys| keys.after().matches(&line)) {
                    thread::sleep(Duration::from_millis(keys.pause_ms));
                    machine.send(&keys.send).map_err(|error| format!("{:?} could not be typed: {error}", keys.send))?;
                }
                base = base.or_else(|| jump::base_in(&line));
                if let (Some(jump), Some(base)) = (jump.take_if(|jump| jump.after().matches(&line)), base) {
                    run_jump(jump, base).map_err(|error| format!("the jump: {error:#}"))?;
                }
            }
            (Event::End, None) => return Ok(()),
            (Event::End, Some(missing)) => return Err(format!("the machine ended before this came: {missing}")),
            (Event::Timeout, None) if must_power_off => {
                return Err("all lines came, but the machine did not power off".to_owned());
            }
            (Event::Timeout, None) => return Ok(()),
            (Event::Timeout, Some(missing)) => return Err(format!("this did not come within {limit:?}: {missing}")),
        }
        // What must not come may still follow the last line.
        if !is_complete && expectation.missing(&progress).is_none() {
            is_complete = true;
            deadline = Instant::now() + if must_power_off { POWER_OFF_TIME } else { Duration::from_secs(2) };
        }
    }
}
