//! Instructions made at run time: any system register, by its encoding.

use core::arch::asm;

use crate::{
    exception::{Fault, expect_fault},
    mem, params,
};

const RETURN: u32 = 0xd65f_03c0;

/// A system register by its encoding (DDI 0487 C5.1.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Encoding {
    /// op0, 2 or 3.
    pub op0: u32,
    /// op1, 0 to 7.
    pub op1: u32,
    /// CRn, 0 to 15.
    pub crn: u32,
    /// CRm, 0 to 15.
    pub crm: u32,
    /// op2, 0 to 7.
    pub op2: u32,
}

impl Encoding {
    /// `None` where a field is out of range.
    pub fn new(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> Option<Self> {
        let is_legal = (2..4).contains(&op0) && op1 < 8 && crn < 16 && crm < 16 && op2 < 8;
        is_legal.then_some(Self { op0, op1, crn, crm, op2 })
    }

    fn bits(self) -> u32 {
        self.op0 << 19 | self.op1 << 16 | self.crn << 12 | self.crm << 8 | self.op2 << 5
    }

    /// Whether writing it could take this program's own footing away: translation, vectors, return state, masks.
    pub fn holds_program(self) -> bool {
        let Self { op0, op1, crn, crm, .. } = self;
        op0 == 3 && op1 == 0 && (matches!(crn, 1 | 2 | 4 | 5 | 6 | 10) || crn == 12 && crm == 0)
            || op0 == 3 && op1 == 3 && crn == 4
    }
}

fn run(instruction: u32, argument: u64) -> Result<u64, Fault> {
    let at = params::scratch();
    mem::write32(at, instruction);
    mem::write32(at + 4, RETURN);
    let mut value = argument;
    let fault = expect_fault(|| {
        // SAFETY: `at` holds one instruction that touches x0 and no memory, and a return. The caches are in step first.
        unsafe {
            asm!(
                "dc cvau, {at}", "dsb ish", "ic ivau, {at}", "dsb ish", "isb", "blr {at}", "isb",
                at = in(reg) at, inout("x0") value, out("x30") _, options(nostack),
            );
        }
    });
    fault.map_or(Ok(value), Err)
}

/// Executes one instruction that touches x0 at most; its value then, or the exception that this gave.
pub fn execute(instruction: u32) -> Result<u64, Fault> {
    run(instruction, 0)
}

/// Reads any system register, or tells the exception that this gave.
pub fn read(register: Encoding) -> Result<u64, Fault> {
    run(0xd520_0000 | register.bits(), 0)
}

/// Writes a system register that does not hold this program, or tells the exception that this gave.
pub fn write(register: Encoding, value: u64) -> Result<(), Fault> {
    assert!(!register.holds_program(), "{register:?} is not for tests to write");
    run(0xd500_0000 | register.bits(), value).map(|_| ())
}
