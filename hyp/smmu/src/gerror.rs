//! Global errors: what GERROR says, and the acknowledgement (IHI 0070 7.5).

use core::fmt;

use bitflags::bitflags;

use crate::{platform::Platform, registers::offset};

bitflags! {
    /// Bits of GERROR and GERRORN. An error is active while the two registers differ in its bit (6.3, SMMU_GERROR).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Gerror: u32 {
        /// The command queue stopped at a command.
        const CMDQ_ERR = 1 << 0;
        /// An event could not be written to memory.
        const EVENTQ_ABT_ERR = 1 << 2;
        /// A page request could not be written to memory.
        const PRIQ_ABT_ERR = 1 << 3;
        /// The MSI of a CMD_SYNC could not be written.
        const MSI_CMDQ_ABT_ERR = 1 << 4;
        /// The MSI of the event queue could not be written.
        const MSI_EVENTQ_ABT_ERR = 1 << 5;
        /// The MSI of the PRI queue could not be written.
        const MSI_PRIQ_ABT_ERR = 1 << 6;
        /// The MSI of a global error could not be written.
        const MSI_GERROR_ABT_ERR = 1 << 7;
        /// The SMMU entered service failure mode: it aborts every transaction until it is reset.
        const SFM_ERR = 1 << 8;
    }
}

impl Gerror {
    /// The errors that are active, i.e. not acknowledged.
    pub(crate) fn active<P: Platform>(platform: &mut P) -> Self {
        let raised = platform.read32(offset::GERROR);
        let acknowledged = platform.read32(offset::GERRORN);
        Self::from_bits_truncate(raised ^ acknowledged)
    }

    /// Acknowledges `errors`, which have to be active: to toggle another bit would be an error of its own (6.3, SMMU_GERRORN).
    pub(crate) fn acknowledge<P: Platform>(platform: &mut P, errors: Self) {
        let acknowledged = platform.read32(offset::GERRORN);
        platform.write32(offset::GERRORN, acknowledged ^ errors.bits());
    }
}

/// What [`crate::Smmu::handle_gerror`] found and acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GerrorReport {
    /// The errors that were active.
    pub errors: Gerror,
    /// Events are lost: the queue's memory could not be written.
    pub has_lost_events: bool,
    /// The SMMU aborts everything from now on (service failure mode, 12.3).
    pub is_dead: bool,
}

impl GerrorReport {
    pub(crate) fn new(errors: Gerror) -> Self {
        Self {
            errors,
            has_lost_events: errors.contains(Gerror::EVENTQ_ABT_ERR),
            is_dead: errors.contains(Gerror::SFM_ERR),
        }
    }
}

impl fmt::Display for GerrorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bitflags::parser::to_writer(&self.errors, &mut *f)?;
        if self.is_dead {
            f.write_str(": service failure, every transaction is aborted")?;
        } else if self.has_lost_events {
            f.write_str(": events were lost")?;
        }
        Ok(())
    }
}
