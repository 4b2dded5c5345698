//! Exceptions: interrupts go to the program's handler, expected faults are recorded, others end the program.

use core::{
    arch::global_asm,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use bulkhead_core::vplat::VCPUS_MAX;

use crate::{console, cpu, irq, psci};

global_asm!(include_str!("exception/vectors.S"));

/// What vectors.S saves, in its order.
#[repr(C)]
struct Frame {
    x: [u64; 31],
    elr: u64,
    spsr: u64,
    esr: u64,
    far: u64,
}

/// A synchronous exception that a program asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1; without meaning where the class has no address.
    pub far: u64,
}

impl Fault {
    /// Exception class, ESR_EL1.EC (DDI 0487).
    pub fn class(self) -> u64 {
        self.esr >> 26 & 0x3f
    }

    /// Whether the class is "unknown reason": what an instruction that does not exist gives.
    pub fn is_undefined(self) -> bool {
        self.class() == 0
    }

    /// Whether the class is "trapped system register": what the CPU itself gives for gaps among the ID registers where
    /// it has FEAT_IDST.
    pub fn is_register_trap(self) -> bool {
        self.class() == 0x18
    }
}

struct Expectation {
    armed: AtomicBool,
    taken: AtomicBool,
    esr: AtomicU64,
    far: AtomicU64,
}

static EXPECTATIONS: [Expectation; VCPUS_MAX] = [const {
    Expectation {
        armed: AtomicBool::new(false),
        taken: AtomicBool::new(false),
        esr: AtomicU64::new(0),
        far: AtomicU64::new(0),
    }
}; VCPUS_MAX];

/// Runs `body` and returns the first synchronous exception in it, if there was one. The instruction that took it is
/// skipped; a fetch that took it returns to its caller.
pub fn expect_fault(body: impl FnOnce()) -> Option<Fault> {
    let expectation = &EXPECTATIONS[cpu::index()];
    expectation.taken.store(false, Ordering::SeqCst);
    expectation.armed.store(true, Ordering::SeqCst);
    body();
    expectation.armed.store(false, Ordering::SeqCst);
    expectation
        .taken
        .load(Ordering::SeqCst)
        .then(|| Fault { esr: expectation.esr.load(Ordering::SeqCst), far: expectation.far.load(Ordering::SeqCst) })
}

const CLASS_FETCH_ABORT: u64 = 0x21;
const KINDS: [&str; 4] = ["synchronous exception", "IRQ", "FIQ", "SError"];

// SAFETY: the one definition of this name, called by vectors.S with the ABI declared here.
#[unsafe(no_mangle)]
extern "C" fn rust_exception(vector: usize, frame: &mut Frame) {
    match vector {
        4 if recover(frame) => {}
        5 => irq::dispatch(),
        _ => {
            let kind = KINDS[vector & 3];
            let (esr, far, elr) = (frame.esr, frame.far, frame.elr);
            console::emergency(format_args!(
                "FAIL: unexpected {kind} (vector {vector}) esr={esr:#x} far={far:#x} elr={elr:#x} x0={:#x} x30={:#x}",
                frame.x[0], frame.x[30],
            ));
            psci::system_off()
        }
    }
}

fn recover(frame: &mut Frame) -> bool {
    let expectation = &EXPECTATIONS[cpu::index()];
    if !expectation.armed.load(Ordering::SeqCst) {
        return false;
    }
    if !expectation.taken.swap(true, Ordering::SeqCst) {
        expectation.esr.store(frame.esr, Ordering::SeqCst);
        expectation.far.store(frame.far, Ordering::SeqCst);
    }
    frame.elr = if frame.esr >> 26 == CLASS_FETCH_ABORT { frame.x[30] } else { frame.elr.wrapping_add(4) };
    true
}
