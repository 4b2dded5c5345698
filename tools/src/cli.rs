//! The commands, as `./justw` gives them.

use std::{
    io::IsTerminal,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::{
    bench, build, guest::initramfs, lint, manifest, pack, qemu::QemuLine, scenario, setup, smoke, suite,
    workspace::Workspace,
};

/// Where the default bundle's manifest is, from the repository's root.
pub const DEFAULT_MANIFEST: &str = "platform/qemu-virt/default.toml";

/// The host command of Bulkhead.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Installs and downloads what is missing.
    Setup {
        /// Only say what would change.
        #[arg(long)]
        dry_run: bool,
    },
    /// Builds the hypervisor's flat image.
    Build,
    /// Boots the default bundle, or another one, with the console here.
    Qemu {
        /// Manifest to boot instead of the default one.
        #[arg(long)]
        manifest: Option<PathBuf>,
        /// Further arguments for QEMU.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Prints the command line that `qemu` would run.
    QemuCmd {
        /// Manifest to boot instead of the default one.
        #[arg(long)]
        manifest: Option<PathBuf>,
        /// Further arguments for QEMU.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Packs a manifest into a bundle.
    Pack {
        /// The manifest; without it the default one.
        manifest: Option<PathBuf>,
        /// Where the bundle goes.
        #[arg(short, long)]
        output: Option<PathBuf>,
    },
    /// Prints every problem of a manifest.
    CheckManifest {
        /// The manifest.
        manifest: PathBuf,
        /// The board that it is for.
        #[arg(long)]
        dtb: Option<PathBuf>,
    },
    /// Boots Linux guests headless and moves traffic.
    Smoke {
        /// Runs whose name contains this.
        name: Option<String>,
    },
    /// Runs bare-metal guest scenarios.
    Guest {
        /// Scenarios whose name contains this.
        name: Option<String>,
    },
    /// Runs the host tests.
    Unit,
    /// Runs all tests.
    Test,
    /// Checks format, lints and the rules that no lint knows.
    Lint,
    /// Measures, and prints figures.
    Bench {
        /// Figures whose name contains this.
        name: Option<String>,
    },
    /// Removes what was built.
    Clean {
        /// Remove what was downloaded, too.
        #[arg(long)]
        cache: bool,
    },
}

/// Runs the command. `false` means that it ran and found something wrong.
///
/// # Errors
/// When it could not run.
pub fn run(cli: &Cli) -> Result<bool> {
    let workspace = &Workspace::find()?;
    match &cli.command {
        Action::Setup { dry_run: true } => setup::dry_run(workspace),
        Action::Setup { dry_run: false } => {
            setup::ensure(workspace)?;
            println!("everything is set up");
        }
        Action::Build => {
            setup::ensure(workspace)?;
            println!("{}", build::hypervisor(workspace)?.image.display());
        }
        Action::Qemu { manifest, arguments } => {
            let line = default_line(workspace, manifest.as_deref(), arguments)?;
            if std::io::stdout().is_terminal() {
                eprintln!("{}", line.to_shell());
            }
            let error = Command::new(setup::qemu::PROGRAM).args(line.as_slice()).exec();
            return Err(error).context("QEMU cannot be started");
        }
        Action::QemuCmd { manifest, arguments } => {
            println!("{}", default_line(workspace, manifest.as_deref(), arguments)?.to_shell());
        }
        Action::Pack { manifest, output } => {
            println!("{}", pack_bundle(workspace, manifest.as_deref(), output.as_deref())?.display());
        }
        Action::CheckManifest { manifest, dtb } => return check_manifest(workspace, manifest, dtb.as_deref()),
        Action::Smoke { name } => {
            return smoke::run(workspace, name.as_deref()).map(|summary| summary.print_and_judge());
        }
        Action::Guest { name } => {
            return scenario::run(workspace, name.as_deref()).map(|summary| summary.print_and_judge());
        }
        Action::Unit => return Ok(suite::unit(workspace)?.print_and_judge()),
        Action::Test => return suite::all(workspace),
        Action::Lint => return lint::run(workspace),
        Action::Bench { name } => return bench::run(workspace, name.as_deref()),
        Action::Clean { cache } => clean(workspace, *cache)?,
    }
    Ok(true)
}

/// The default manifest's path.
fn default_manifest(workspace: &Workspace) -> PathBuf {
    workspace.root().join(DEFAULT_MANIFEST)
}

fn pack_bundle(workspace: &Workspace, manifest: Option<&Path>, output: Option<&Path>) -> Result<PathBuf> {
    setup::ensure(workspace)?;
    initramfs::build(workspace)?;
    let output = output.map_or_else(|| workspace.out().join("bundle.img"), Path::to_path_buf);
    pack::pack(workspace, manifest.unwrap_or(&default_manifest(workspace)), &output)?;
    Ok(output)
}

fn default_line(workspace: &Workspace, manifest: Option<&Path>, arguments: &[String]) -> Result<QemuLine> {
    let bundle = pack_bundle(workspace, manifest, None)?;
    let hypervisor = build::hypervisor(workspace)?;
    let mut line = QemuLine::machine();
    line.interactive().boot(&hypervisor.image, &bundle).default_nics().arguments(arguments);
    Ok(line)
}

fn check_manifest(workspace: &Workspace, path: &Path, dtb: Option<&Path>) -> Result<bool> {
    if setup::guest_files::is_ready(workspace) {
        initramfs::build(workspace)?;
    }
    let manifest = manifest::schema::Manifest::read(path)?;
    let mut problems = manifest::check(&manifest, &pack::ManifestFiles::of(workspace, path)).err().unwrap_or_default();
    if let Some(dtb) = dtb {
        let bytes = std::fs::read(dtb).with_context(|| format!("reading {}", dtb.display()))?;
        problems.extend(manifest::board::check(&manifest, &bytes));
    }
    if problems.is_empty() {
        println!("{} is good", path.display());
        return Ok(true);
    }
    println!("{} has {} problems:\n{}", path.display(), problems.len(), pack::list(&problems));
    Ok(false)
}

fn clean(workspace: &Workspace, cache: bool) -> Result<()> {
    let mut folders = vec![workspace.target()];
    if cache {
        folders.push(workspace.cache());
    }
    for folder in folders.into_iter().filter(|folder| folder.exists()) {
        std::fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    Ok(())
}
