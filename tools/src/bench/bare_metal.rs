//! A bare-metal guest alone under Bulkhead on one CPU, with a device at 00:02.0, in virtual time.

use anyhow::Result;

use super::machine::Bench;
use crate::{
    manifest::schema::{DeviceSection, DmamapSection, MachineSection, Manifest, NestedSection, VmSection},
    pack::{self, ManifestFiles},
    qemu::QemuLine,
};

/// How the device's DMA is translated.
#[derive(Clone, Debug)]
pub enum Dma {
    /// IOVA = IPA.
    Identity,
    /// By the maps of this section.
    Maps(DmamapSection),
    /// By the guest's own SMMU, with this flush policy.
    Nested(&'static str),
}

impl Bench<'_> {
    /// Packs `guest` as VM `name` with this command line and its device's DMA; the
    /// machine, to which the device is to be added.
    ///
    /// # Errors
    /// When it cannot be packed.
    pub fn bare_metal(&self, name: &str, guest: &str, cmdline: String, dma: Dma) -> Result<QemuLine> {
        let (dma, dmamap, nested) = match dma {
            Dma::Identity => ("identity", None, None),
            Dma::Maps(section) => ("dmamap", Some(section), None),
            Dma::Nested(flush) => ("nested", None, Some(NestedSection { flush: Some(flush.to_owned()) })),
        };
        let vm = VmSection {
            name: name.to_owned(),
            cpus: vec![0],
            memory: "16 MiB".to_owned(),
            ram_at: None,
            kernel: format!("${{guest}}/{guest}"),
            initrd: None,
            cmdline,
            autostart: true,
            devices: vec![DeviceSection { pci: "0000:00:02.0".to_owned(), dma: dma.to_owned() }],
            dmamap,
            nested,
        };
        let manifest = Manifest {
            machine: MachineSection { poweroff_when_all_stopped: true, ..MachineSection::default() },
            vms: vec![vm],
        };
        let out = self.workspace.out();
        let (path, bundle) = (out.join(format!("bench-{name}.toml")), out.join(format!("bench-{name}.bundle")));
        let files = ManifestFiles::of(self.workspace, &path).with_fixed_seed();
        pack::pack_manifest(&manifest, &files, &path, &bundle)?;
        let mut line =
            QemuLine::virt("virt,gic-version=3,iommu=smmuv3,virtualization=on,dtb-randomness=off", 1, "512M");
        line.headless().exact().boot(&self.hypervisor.image, &bundle);
        Ok(line)
    }
}
