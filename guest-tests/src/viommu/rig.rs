//! What most programs begin with: a virtio IOMMU that works, an edu behind it in a domain, and a page that it reaches.

use super::{
    ENDPOINT, Viommu,
    request::{OK, READ, WRITE},
};
use crate::{edu::Edu, params, smmu::Probe};

/// The IOMMU and a device.
#[derive(Debug)]
pub struct Rig {
    /// The IOMMU.
    pub iommu: Viommu,
    /// The first edu.
    pub probe: Probe,
    /// Scratch memory that nothing else uses, to the end of RAM.
    pub free: u64,
}

impl Rig {
    /// The domain.
    pub const DOMAIN: u32 = 1;
    /// Where [`Self::works`] has a page.
    pub const IOVA: u64 = 0x12_3456_0000;
    /// The page.
    const OWN: u64 = 0x2_0000;

    /// Memory ready, the IOMMU as it was.
    pub fn new() -> Self {
        let at = params::scratch();
        let probe = Probe::new(Edu::first(), at + 0x1_0000);
        Self { iommu: Viommu::new(at), probe, free: at + 0x3_0000 }
    }

    /// The driver is ready, the device in [`Self::DOMAIN`] with its pages.
    pub fn start(&mut self) -> bool {
        self.iommu.start() && self.attach(Self::DOMAIN)
    }

    /// Puts the device in a domain that maps its pages.
    pub fn attach(&mut self, domain: u32) -> bool {
        let page = (Self::IOVA, params::scratch() + Self::OWN);
        self.probe.through_stage1(true);
        self.iommu.attach(domain, ENDPOINT, 0) == OK
            && self
                .probe
                .pages()
                .into_iter()
                .chain([page])
                .all(|(iova, ipa)| self.iommu.map(domain, (iova, iova + 0xfff), ipa, READ | WRITE) == OK)
    }

    /// Whether the device reads and writes its page.
    pub fn works(&mut self) -> bool {
        self.probe.reaches(Self::IOVA, params::scratch() + Self::OWN)
    }

    /// From anything: reset, and begun again.
    pub fn restart(&mut self) -> bool {
        self.start() && self.works()
    }
}

impl Default for Rig {
    fn default() -> Self {
        Self::new()
    }
}
