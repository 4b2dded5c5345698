//! Architecture calls of SMCCC: versions, features, firmware workarounds.

use super::{NOT_SUPPORTED, Outcome};

/// A mitigation that firmware offers (DEN 0070; security rule 23).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workaround {
    /// SMCCC_ARCH_WORKAROUND_1: branch predictor (CVE-2017-5715).
    One,
    /// SMCCC_ARCH_WORKAROUND_2: speculative store bypass (CVE-2018-3639).
    Two,
    /// SMCCC_ARCH_WORKAROUND_3: branch history (CVE-2022-23960).
    Three,
}

impl Workaround {
    /// The workaround with this SMC32 function id.
    pub const fn from_function_id(id: u32) -> Option<Self> {
        match id {
            0x8000_8000 => Some(Self::One),
            0x8000_7fff => Some(Self::Two),
            0x8000_3fff => Some(Self::Three),
            _ => None,
        }
    }

    /// Its SMC32 function id.
    pub const fn function_id(self) -> u32 {
        match self {
            Self::One => 0x8000_8000,
            Self::Two => 0x8000_7fff,
            Self::Three => 0x8000_3fff,
        }
    }
}

/// What the host's firmware answered to SMCCC_ARCH_FEATURES for each workaround: 0 = call it, 1 = this CPU does not
/// need it, negative = not supported. The default is "not supported" for all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostFacts {
    /// For SMCCC_ARCH_WORKAROUND_1.
    pub workaround_1: i32,
    /// For SMCCC_ARCH_WORKAROUND_2.
    pub workaround_2: i32,
    /// For SMCCC_ARCH_WORKAROUND_3.
    pub workaround_3: i32,
}

impl Default for HostFacts {
    fn default() -> Self {
        Self { workaround_1: -1, workaround_2: -1, workaround_3: -1 }
    }
}

impl HostFacts {
    /// Firmware's answer for one workaround.
    pub const fn answer(self, workaround: Workaround) -> i32 {
        match workaround {
            Workaround::One => self.workaround_1,
            Workaround::Two => self.workaround_2,
            Workaround::Three => self.workaround_3,
        }
    }

    /// The guest asks for the features of function `id`: what the host answered, passed on.
    pub(super) fn features(self, id: u32) -> u64 {
        match id {
            0x8000_0000 | 0x8000_0001 => 0,
            _ => Workaround::from_function_id(id)
                .map_or(NOT_SUPPORTED, |workaround| sign_extend(self.answer(workaround))),
        }
    }

    /// The guest calls a workaround: forwarded only where the firmware has it.
    pub(super) fn call(self, workaround: Workaround) -> Outcome {
        match self.answer(workaround) {
            0 => Outcome::Workaround(workaround),
            1 => Outcome::Return(0),
            _ => Outcome::Return(NOT_SUPPORTED),
        }
    }
}

/// A 32-bit result in a 64-bit register.
pub(super) const fn sign_extend(value: i32) -> u64 {
    value as i64 as u64
}
