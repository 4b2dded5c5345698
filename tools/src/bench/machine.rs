//! The machines that are compared: one guest under Bulkhead, and the same kernel without it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    build::Hypervisor,
    console::Machine,
    manifest::schema::{DeviceSection, MachineSection, Manifest, NestedSection, Stage2Leaves, VmSection},
    pack::{self, ManifestFiles},
    qemu::QemuLine,
    setup::guest_files,
    workspace::Workspace,
};

/// Four times what the longest run takes on a quiet machine.
const TIME_LIMIT: Duration = Duration::from_secs(600);
/// Of the VM.
const NAME: &str = "guest";
/// Memory of the guest, under Bulkhead and directly, in MiB.
const MEMORY_MIB: u32 = 256;
/// What keeps e1000e from trying MSI-X first, in vain and with two lines on the console.
pub const WIRED: &str = "e1000e.IntMode=0";
/// Slots of the NICs.
const SLOTS: [u8; 2] = [2, 3];

/// What every measurement needs.
pub struct Bench<'a> {
    /// Where everything is.
    pub workspace: &'a Workspace,
    /// What is measured.
    pub hypervisor: Hypervisor,
}

/// One guest.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Its vCPUs, or CPUs.
    pub cpus: u32,
    /// Its e1000es, 1 or 2, on one wire.
    pub nics: usize,
    /// Its command line, after what all have.
    pub cmdline: String,
    /// Virtual time by instructions, so that every digit repeats; else the host's time.
    pub is_exact: bool,
    /// What maps its RAM for its CPUs, under Bulkhead.
    pub stage2: Stage2Leaves,
    /// The flush policy of its SMMU, where it has one. Directly it has the machine's own, if any.
    pub nested: Option<&'static str>,
}

impl Guest {
    fn full_cmdline(&self) -> String {
        format!("console=ttyAMA0 quiet nokaslr bulkhead.name={NAME} {}", self.cmdline)
    }

    fn line(&self, machine: &str, memory: &str) -> QemuLine {
        let randomness = if self.is_exact { ",dtb-randomness=off" } else { "" };
        let mut line = QemuLine::virt(&format!("{machine}{randomness}"), self.cpus, memory);
        line.headless();
        if self.is_exact {
            line.exact();
        }
        for slot in SLOTS.into_iter().take(self.nics) {
            let port = format!("port{slot}");
            line.hub_port(&port).e1000e(&port, slot);
        }
        line
    }
}

impl Bench<'_> {
    /// Starts `guest` as the only VM under Bulkhead.
    ///
    /// # Errors
    /// When it cannot be packed or started.
    pub fn start_under_bulkhead(&self, name: &str, guest: &Guest) -> Result<Machine> {
        let dma = if guest.nested.is_some() { "nested" } else { "identity" };
        let device = |slot: u8| DeviceSection { pci: format!("0000:00:{slot:02x}.0"), dma: dma.to_owned() };
        let vm = VmSection {
            name: NAME.to_owned(),
            cpus: (0..guest.cpus).collect(),
            memory: format!("{MEMORY_MIB} MiB"),
            ram_at: None,
            kernel: "${cache}/guest/Image".to_owned(),
            initrd: Some("${out}/initramfs.cpio".to_owned()),
            cmdline: format!("{} {WIRED}", guest.full_cmdline()),
            autostart: true,
            devices: SLOTS.into_iter().take(guest.nics).map(device).collect(),
            dmamap: None,
            nested: guest.nested.map(|flush| NestedSection { flush: Some(flush.to_owned()) }),
        };
        let manifest = Manifest {
            machine: MachineSection { poweroff_when_all_stopped: true, stage2: guest.stage2 },
            vms: vec![vm],
        };
        let bundle = self.workspace.out().join("bench.bundle");
        let path = self.workspace.out().join("bench.toml");
        let files = ManifestFiles::of(self.workspace, &path).with_fixed_seed();
        pack::pack_manifest(&manifest, &files, &path, &bundle)?;
        let mut line = guest.line("virt,gic-version=3,iommu=smmuv3,virtualization=on", "1G");
        line.boot(&self.hypervisor.image, &bundle);
        self.start(name, &line)
    }

    /// Starts the same kernel directly: no EL2, and the machine's SMMU if the guest has one.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn start_directly(&self, name: &str, guest: &Guest) -> Result<Machine> {
        let iommu = if guest.nested.is_some() { ",iommu=smmuv3" } else { "" };
        let mut line = guest.line(&format!("virt,gic-version=3{iommu}"), &format!("{MEMORY_MIB}M"));
        line.boot(&guest_files::kernel(self.workspace), &self.workspace.out().join("initramfs.cpio"));
        line.option("-append", &guest.full_cmdline());
        self.start(name, &line)
    }

    fn start(&self, name: &str, line: &QemuLine) -> Result<Machine> {
        Machine::start(line, &self.workspace.out().join("logs").join(format!("bench-{name}.log")))
    }
}

/// When a run that starts now has failed.
pub fn deadline() -> Instant {
    Instant::now() + TIME_LIMIT
}

/// Runs `machine` to its end.
///
/// # Errors
/// When it does not end in time.
pub fn run_to_end(machine: &mut Machine) -> Result<()> {
    if machine.has_ended_within(TIME_LIMIT) {
        return Ok(());
    }
    bail!("the machine did not power off:\n{}", machine.tail(20))
}

/// The counts of the hypervisor's line `exits NAME total=N irq=N …`.
///
/// # Errors
/// When no such line was printed.
pub fn exits(machine: &Machine) -> Result<BTreeMap<String, f64>> {
    counts(machine, "exits")
}

/// The counts of the hypervisor's line `WHAT NAME one=N another=N …`.
///
/// # Errors
/// When no such line was printed.
pub fn counts(machine: &Machine, what: &str) -> Result<BTreeMap<String, f64>> {
    counts_of(machine, what, NAME)
}

/// The same of a VM of this name.
///
/// # Errors
/// When no such line was printed.
pub fn counts_of(machine: &Machine, what: &str, name: &str) -> Result<BTreeMap<String, f64>> {
    let lines = machine.lines();
    let found = lines.iter().rev().find_map(|line| line.split_once(&format!("{what} {name} ")));
    let (_, counts) = found.with_context(|| format!("no line with the VM's {what}:\n{}", machine.tail(20)))?;
    Ok(parse_counts(counts))
}

/// The pairs `name=number` of a line.
pub fn parse_counts(text: &str) -> BTreeMap<String, f64> {
    let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
    pairs.filter_map(|(name, count)| Some((name.to_owned(), count.parse().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::parse_counts;

    /// Would miss: a reason that the hypervisor prints and the report leaves out.
    #[test]
    fn every_reason_is_counted() {
        let counts = parse_counts("total=12 irq=7 gic=5");
        assert_eq!(counts.get("total"), Some(&12.0));
        assert_eq!(counts.len(), 3);
    }
}
