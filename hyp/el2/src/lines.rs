//! Lines on the console that a guest or its device can bring about: so many a second of each VM, not more.

use core::fmt::{Arguments, Display};

use bulkhead_core::{ids::VmId, vplat::VMS_MAX};
use bulkhead_dma::flush::Switch;
use bulkhead_smmu::{FaultBudget, Verdict};
use log::{error, info};

use crate::{lock::Mutex, time};

/// Lines a second of each VM, and of all devices in none. What is over it is counted (`smmu` in the shell). One VM's
/// lines do not keep another's from being shown.
pub const PER_SECOND: u32 = 32;

/// By VM; the last is nobody's.
static BUDGETS: Mutex<[FaultBudget; VMS_MAX + 1]> = Mutex::new([FaultBudget::new(PER_SECOND, 1_000_000); VMS_MAX + 1]);

/// Takes one line of a VM's, or of nobody's, into account.
#[inline(never)]
pub fn take(vm: Option<VmId>) -> Verdict {
    let [budgets @ .., nobodys] = &mut *BUDGETS.lock();
    vm.and_then(|vm| budgets.get_mut(vm.index())).unwrap_or(nobodys).take(time::now_us())
}

/// A change of policy, for the trace: `part` of the VM.
#[cold]
#[inline(never)]
pub fn switch(vm: VmId, name: &str, part: Arguments<'_>, switch: &Switch) {
    let Switch { from, to, from_ns, to_ns } = switch;
    if take(Some(vm)) == Verdict::Report {
        info!("vm {name}{part}: flushes by {to:?} instead of {from:?}, {to_ns} ns instead of {from_ns}");
    }
}

/// What went wrong at the guest's request: `part` of the VM.
#[cold]
#[inline(never)]
pub fn problem(vm: VmId, name: &str, part: Arguments<'_>, problem: &dyn Display) {
    if take(Some(vm)) == Verdict::Report {
        error!("vm {name}{part}: {problem}");
    }
}
