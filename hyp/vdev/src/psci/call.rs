//! Decoding of a guest's HVC or SMC by the SMC calling convention.

use super::Workaround;
use arm_psci::{Error, ErrorCode, Function};

const SMCCC_VERSION: u32 = 0x8000_0000;
const SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;
/// Standard secure service calls, PSCI's range (DEN 0028 6.3): function numbers 0 to 0x1f, SMC32 and SMC64.
const PSCI_RANGE: u32 = 0x8400_0000;

/// A call of the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// A PSCI function with parameters that are well-formed.
    Psci(Function),
    /// A PSCI function with malformed parameters: the code to return.
    Malformed(ErrorCode),
    /// SMCCC_VERSION.
    SmcccVersion,
    /// SMCCC_ARCH_FEATURES, with the function id that is asked about.
    ArchFeatures(u32),
    /// SMCCC_ARCH_WORKAROUND_1, 2 or 3.
    Workaround(Workaround),
    /// Anything else (TRNG, SDEI, vendor calls…): this function id is not supported.
    Unknown(u32),
}

impl Call {
    /// Decodes x0 to x3. Bits 63:32 of x0 are ignored, as are those of an SMC32 call's parameters.
    pub fn decode(x: [u64; 4]) -> Self {
        let id = (x[0] & 0xffff_ffff) as u32;
        match id {
            SMCCC_VERSION => return Self::SmcccVersion,
            SMCCC_ARCH_FEATURES => return Self::ArchFeatures((x[1] & 0xffff_ffff) as u32),
            _ => {}
        }
        if let Some(workaround) = Workaround::from_function_id(id) {
            return Self::Workaround(workaround);
        }
        if id & !0x4000_001f != PSCI_RANGE {
            return Self::Unknown(id);
        }
        match Function::try_from(&[u64::from(id), x[1], x[2], x[3]]) {
            Ok(function) => Self::Psci(function),
            Err(Error::UnrecognisedFunctionId(id)) if id != (x[0] & 0xffff_ffff) as u32 => {
                // PSCI_FEATURES of a function that PSCI does not know.
                Self::Malformed(ErrorCode::NotSupported)
            }
            Err(Error::UnrecognisedFunctionId(_)) => Self::Unknown(id),
            Err(_) => Self::Malformed(ErrorCode::InvalidParameters),
        }
    }
}
