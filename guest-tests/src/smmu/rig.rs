//! What most programs begin with: an SMMU that translates, an edu behind it, and a page that it reaches.

use super::{Access, Probe, Smmu, Space, entry};
use crate::{edu::Edu, params};

/// The SMMU, a device, and a table for it.
#[derive(Debug)]
pub struct Rig {
    /// The SMMU.
    pub smmu: Smmu,
    /// The first edu.
    pub probe: Probe,
    /// Its table, in descriptor 0.
    pub space: Space,
    /// Scratch memory that nothing else uses, to the end of RAM.
    pub free: u64,
}

impl Rig {
    /// Where [`Self::works`] has a page.
    pub const IOVA: u64 = 0x12_3456_0000;
    /// The page.
    const OWN: u64 = 0x3_0000;

    /// Memory ready, the SMMU as it was.
    pub fn new(asid: u16) -> Self {
        let at = params::scratch();
        let mut space = Space::new(at + 0x1_0000, asid);
        let probe = Probe::new(Edu::first(), at + 0x2_0000);
        probe.map(&mut space);
        space.map(Self::IOVA, at + Self::OWN, Access::Both);
        Self { smmu: Smmu::new(at), probe, space, free: at + 0x4_0000 }
    }

    /// Queues and stream table in place, the device translated by the table.
    pub fn start(&mut self) -> bool {
        self.probe.through_stage1(true);
        self.smmu.start();
        self.smmu.set_space(0, &self.space)
    }

    /// Points the stream at its own descriptor again.
    pub fn restore(&mut self) -> bool {
        entry::store(self.smmu.context(0), entry::context(&self.space));
        self.smmu.set_entry(entry::stage1(self.smmu.context(0)))
    }

    /// Whether the device reads and writes its page.
    pub fn works(&mut self) -> bool {
        self.probe.reaches(Self::IOVA, params::scratch() + Self::OWN)
    }
}
