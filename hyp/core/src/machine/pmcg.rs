//! Performance monitor counter groups: where they are, and which SMMU each is taken to belong to.

use super::{Machine, PMCGS_MAX, SmmuKind, error::MachineError, tree::Path};
use crate::{
    addr::{AddrRange, PhysAddr},
    ids::SmmuId,
};

const COMPATIBLE: [&str; 1] = ["arm,smmu-v3-pmcg"];

/// A performance monitor counter group of an SMMUv3 (binding arm,smmu-v3-pmcg). Its interrupt is not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pmcg {
    /// Register page 0.
    pub registers: AddrRange<PhysAddr>,
    /// Register page 1, with the counters of a group that relocates them.
    pub counters: Option<AddrRange<PhysAddr>>,
}

/// Why a group is taken for an SMMU's: the binding names none, as IORT does, so that it has to be concluded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PmcgClaim {
    /// Its registers lie among those of the SMMU.
    Inside,
    /// There is no other SMMUv3.
    Only,
    /// The SMMU's registers begin nearest below it, as those of MMU-600 and MMU-700 do. A guess.
    Nearest,
}

impl PmcgClaim {
    /// The reason in a few words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inside => "among its registers",
            Self::Only => "the only smmu",
            Self::Nearest => "a guess: the nearest smmu below",
        }
    }
}

/// Takes the group at `path`. What there is no room for is left out: it is for statistics alone.
pub fn read(path: &Path<'_>, machine: &mut Machine) -> Result<(), MachineError> {
    if path.node().is_compatible(&COMPATIBLE) && machine.pmcgs.len() < PMCGS_MAX {
        let group = Pmcg { registers: path.reg(0)?, counters: path.regs().nth(1).flatten() };
        // There is room.
        let _ = machine.pmcgs.push(group);
    }
    Ok(())
}

impl Machine {
    /// The SMMUv3 that a group is taken to belong to; `None` where none is at or below it and there are several.
    pub fn smmu_of(&self, group: &Pmcg) -> Option<(SmmuId, PmcgClaim)> {
        let all = || self.numbered_smmus().filter(|(_, smmu)| smmu.kind == SmmuKind::V3);
        if let Some((id, _)) = all().find(|(_, smmu)| smmu.registers.overlaps(group.registers)) {
            return Some((id, PmcgClaim::Inside));
        }
        let mut others = all();
        if let (Some((id, _)), None) = (others.next(), others.next()) {
            return Some((id, PmcgClaim::Only));
        }
        let below = all().filter(|(_, smmu)| smmu.registers.start() <= group.registers.start());
        below.max_by_key(|(_, smmu)| smmu.registers.start()).map(|(id, _)| (id, PmcgClaim::Nearest))
    }
}

#[cfg(test)]
mod tests;
