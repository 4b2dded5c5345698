//! The manifest as it is written: TOML, every field with its unit, unknown fields refused.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;

/// A whole manifest.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The machine as a whole.
    #[serde(default)]
    pub machine: MachineSection,
    /// The VMs, in order; the first one is VM 0.
    #[serde(default, rename = "vm")]
    pub vms: Vec<VmSection>,
}

/// `[machine]`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineSection {
    /// Power the machine off when the last VM has stopped. Default: false.
    #[serde(default)]
    pub poweroff_when_all_stopped: bool,
    /// What maps the VMs' RAM for their CPUs: `blocks`, the largest that fit, or `pages` of 4 KiB, for emulators. Default: `blocks`.
    #[serde(default)]
    pub stage2: Stage2Leaves,
}

/// `machine.stage2`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Stage2Leaves {
    /// The largest blocks that fit.
    #[default]
    Blocks,
    /// Pages of 4 KiB.
    Pages,
}

/// `[[vm]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSection {
    /// 1 to 16 of `a-z`, `0-9`, `-`.
    pub name: String,
    /// Physical CPU of each vCPU, by its place in the device tree from 0. 1 to 8, no CPU in two places.
    pub cpus: Vec<u32>,
    /// RAM: a number and `KiB`, `MiB` or `GiB`; a multiple of 2 MiB.
    pub memory: String,
    /// Physical address of the RAM in bytes, a multiple of 2 MiB. Default: the hypervisor places it.
    #[serde(default)]
    pub ram_at: Option<u64>,
    /// Path of an arm64 Image, from the manifest's folder; may use `${cache}` (what was downloaded),
    /// `${out}` (what was built) and `${guest}` (bare-metal guests).
    pub kernel: String,
    /// Path of an initrd. Default: none.
    #[serde(default)]
    pub initrd: Option<String>,
    /// Kernel command line, at most 2,047 bytes of ASCII. Default: empty.
    #[serde(default)]
    pub cmdline: String,
    /// Start the VM at boot. Default: true.
    #[serde(default = "yes")]
    pub autostart: bool,
    /// Passed-through devices.
    #[serde(default, rename = "device")]
    pub devices: Vec<DeviceSection>,
    /// Its DMA maps, when its devices have `dma = "dmamap"`. Default: the defaults of each setting.
    #[serde(default)]
    pub dmamap: Option<DmamapSection>,
    /// Its virtual SMMU, when its devices have `dma = "nested"`. Default: the defaults of each setting.
    #[serde(default)]
    pub nested: Option<NestedSection>,
}

/// `[vm.nested]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NestedSection {
    /// What the guest's invalidations become: `auto`, `page`, `range`, `context`, `each`. Default: `auto`.
    pub flush: Option<String>,
}

/// `[vm.dmamap]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DmamapSection {
    /// How IOVA is found: `reserve`, `per-load`, `per-segment`, `magazine`, `one-to-one`, `bitmap`. Default: `reserve`.
    pub strategy: Option<String>,
    /// How the SMMU's TLB is cleared: `auto`, `page`, `range`, `context`, `deferred`. Default: `auto`.
    pub flush: Option<String>,
    /// Most maps at a time, 1 to 16,384. Default: 1,024.
    pub maps: Option<u64>,
    /// Most leaf tables at a time, 1 to 512 pages of 4 KiB, each for 2 MiB of IOVA. Default: 64.
    pub tables: Option<u64>,
    /// With `deferred`: unmapped pages that may wait, 1 to 4,096. Default: 256.
    pub deferred_pages: Option<u64>,
    /// With `deferred`: milliseconds that they may wait, 1 to 100. Default: 10.
    pub deferred_ms: Option<u64>,
}

/// `[[vm.device]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceSection {
    /// PCI function as `SSSS:BB:DD.F`, in hexadecimal.
    pub pci: String,
    /// How its DMA is translated: `identity`, `dmamap`, `nested` or `virtio-iommu`, one for all devices of a VM. Default: `identity`.
    #[serde(default = "identity")]
    pub dma: String,
}

fn yes() -> bool {
    true
}

fn identity() -> String {
    "identity".to_owned()
}

impl Manifest {
    /// Reads the TOML file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, or is not a manifest: the message has the line and the field.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("reading the manifest {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("the manifest {}", path.display()))
    }
}
