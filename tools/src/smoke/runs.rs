//! The runs: what boots, and what must come of it.

use crate::{cli::DEFAULT_MANIFEST, qemu::QemuLine};

/// One machine with Linux guests.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Its name.
    pub name: &'static str,
    /// The manifest, from the repository's root.
    pub manifest: &'static str,
    /// The folder of the guests' scripts, from the repository's root.
    pub scripts: &'static str,
    /// Plugs in the NICs.
    pub plug: fn(&mut QemuLine),
    /// The VMs.
    pub vms: &'static [Vm],
    /// Whose data goes to whom.
    pub transfers: &'static [(&'static str, &'static str)],
    /// MiB of each transfer.
    pub transfer_mib: u64,
    /// Whether devices of two VMs must be seen to use the same ASIDs and addresses.
    pub has_twins: bool,
}

/// What one VM must do.
#[derive(Clone, Copy, Debug)]
pub struct Vm {
    /// Its name.
    pub name: &'static str,
    /// Times that it boots to userspace.
    pub boots: usize,
    /// What its scripts report, and how often.
    pub reports: &'static [(&'static str, usize)],
    /// What they report besides, once each.
    pub once: &'static [&'static str],
}

impl Vm {
    /// What its scripts report, and how often.
    pub fn all_reports(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.reports.iter().copied().chain(self.once.iter().map(|name| (*name, 1)))
    }
}

/// A device's driver, its domain and the device itself go and come.
const COMINGS_AND_GOINGS: [&str; 10] = [
    "traffic-after-reload",
    "traffic-after-bind",
    "domain-becomes-identity",
    "traffic-as-identity",
    "domain-becomes-DMA",
    "traffic-as-DMA",
    "domain-becomes-DMA-FQ",
    "traffic-as-DMA-FQ",
    "traffic-after-replug",
    "domain-after-replug",
];

/// All runs.
pub const RUNS: [Run; 3] = [DEFAULT, NESTED, VIRTIO_IOMMU];

/// The default bundle: a VM behind an SMMU of its own keeps its traffic while its neighbour resets.
const DEFAULT: Run = Run {
    name: "default",
    manifest: DEFAULT_MANIFEST,
    scripts: "guest-tests/linux/smoke",
    plug: |line| {
        line.default_nics();
    },
    vms: &[
        Vm {
            name: "alpha",
            boots: 1,
            reports: &[
                ("own-smmu", 1),
                ("domain-DMA", 1),
                ("quiet-smmu", 1),
                ("ping-gateway", 1),
                ("ping-neighbour", 1),
                ("traffic", 1),
                ("carrier", 1),
                ("quiet-log", 1),
                ("still-quiet-smmu", 1),
            ],
            once: &[],
        },
        Vm {
            name: "beta",
            boots: 2,
            reports: &[
                ("ping-gateway", 1),
                ("ping-neighbour", 1),
                ("again-ping-gateway", 1),
                ("again-ping-neighbour", 1),
            ],
            once: &[],
        },
    ],
    transfers: &[("alpha", "beta"), ("beta", "alpha")],
    transfer_mib: 64,
    has_twins: false,
};

/// Every VM behind an SMMU of its own: domains of every type, drivers that go and come, twenty reboots.
const NESTED: Run = Run {
    name: "nested",
    manifest: "guest-tests/linux/nested/manifest.toml",
    scripts: "guest-tests/linux/nested",
    plug: |line| {
        line.default_nics().further_nics();
    },
    vms: &[
        Vm {
            name: "alpha",
            boots: 21,
            reports: &[
                ("own-smmu", 21),
                ("domain-DMA", 21),
                ("quiet-smmu", 21),
                ("still-quiet-smmu", 1),
                ("traffic", 20),
            ],
            once: &COMINGS_AND_GOINGS,
        },
        Vm {
            name: "beta",
            boots: 1,
            reports: &[("own-smmu", 1), ("domain-DMA", 1), ("quiet-smmu", 1), ("traffic", 1), ("still-quiet-smmu", 1)],
            once: &COMINGS_AND_GOINGS,
        },
        Vm {
            name: "lazy",
            boots: 1,
            reports: &[("own-smmu", 1), ("domain-DMA-FQ", 1), ("quiet-smmu", 1), ("still-quiet-smmu", 1)],
            once: &[],
        },
        Vm {
            name: "through",
            boots: 1,
            reports: &[("own-smmu", 1), ("domain-identity", 1), ("quiet-smmu", 1), ("still-quiet-smmu", 1)],
            once: &[],
        },
    ],
    transfers: &[("alpha", "beta"), ("beta", "alpha"), ("lazy", "through"), ("through", "lazy")],
    transfer_mib: 16,
    has_twins: true,
};

/// Every VM behind a virtio IOMMU, on an SMMU without nesting: as above, and its driver goes and comes too.
const VIRTIO_IOMMU: Run = Run {
    name: "virtio-iommu",
    manifest: "guest-tests/linux/virtio-iommu/manifest.toml",
    scripts: "guest-tests/linux/virtio-iommu",
    plug: |line| {
        line.default_nics().stage2_only();
    },
    vms: &[
        Vm {
            name: "alpha",
            boots: 6,
            reports: &[
                ("own-iommu", 6),
                ("domain-DMA", 6),
                ("quiet-iommu", 6),
                ("iommu-unloads", 1),
                ("traffic-after-iommu", 1),
                ("domain-after-iommu", 1),
                ("still-quiet-iommu", 1),
                ("traffic", 5),
            ],
            once: &COMINGS_AND_GOINGS,
        },
        Vm {
            name: "beta",
            boots: 1,
            reports: &[
                ("own-iommu", 1),
                ("domain-DMA", 1),
                ("quiet-iommu", 1),
                ("traffic", 1),
                ("still-quiet-iommu", 1),
            ],
            once: &COMINGS_AND_GOINGS,
        },
    ],
    transfers: &[("alpha", "beta"), ("beta", "alpha")],
    transfer_mib: 16,
    has_twins: false,
};
