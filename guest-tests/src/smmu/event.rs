//! Events (IHI 0070 7.3).

use super::{Smmu, register};
use crate::mem;

/// What was recorded of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Its four words.
    pub words: [u64; 4],
}

impl Event {
    /// F_STE_FETCH.
    pub const STE_FETCH: u64 = 0x03;
    /// C_BAD_STE.
    pub const BAD_STE: u64 = 0x04;
    /// F_CD_FETCH.
    pub const CD_FETCH: u64 = 0x09;
    /// C_BAD_CD.
    pub const BAD_CD: u64 = 0x0a;
    /// F_WALK_EABT.
    pub const WALK_ABORT: u64 = 0x0b;
    /// F_TRANSLATION.
    pub const TRANSLATION: u64 = 0x10;
    /// F_PERMISSION.
    pub const PERMISSION: u64 = 0x13;

    /// Its number.
    pub fn reason(&self) -> u64 {
        self.words[0] & 0xff
    }

    /// The StreamID.
    pub fn stream(&self) -> u64 {
        self.words[0] >> 32
    }

    /// The input address.
    pub fn address(&self) -> u64 {
        self.words[2]
    }

    /// Whether it was a read.
    pub fn is_read(&self) -> bool {
        self.words[1] >> 35 & 1 != 0
    }

    /// Whether it says anything of stage 2, which the VM's SMMU does not have.
    pub fn has_stage2(&self) -> bool {
        self.words[1] >> 39 & 1 != 0
    }
}

fn indices(smmu: Smmu, log2: u32) -> (u32, u32) {
    let mask = (2 << log2) - 1;
    (smmu.read(register::EVENTQ_PROD) & mask, smmu.read(register::EVENTQ_CONS) & mask)
}

pub fn has_any(smmu: Smmu, log2: u32) -> bool {
    let (producer, consumer) = indices(smmu, log2);
    producer != consumer
}

pub fn take(smmu: Smmu, log2: u32) -> Option<Event> {
    let (producer, consumer) = indices(smmu, log2);
    if producer == consumer {
        return None;
    }
    let place = u64::from(consumer & ((1 << log2) - 1));
    let at = smmu.event_queue() + place * 32;
    let words = [0, 8, 16, 24].map(|offset| mem::read64(at + offset));
    let overflow = smmu.read(register::EVENTQ_PROD) & 1 << 31;
    smmu.write(register::EVENTQ_CONS, (consumer + 1) & ((2 << log2) - 1) | overflow);
    Some(Event { words })
}
