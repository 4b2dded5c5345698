//! Lines on the console that a guest or its device can bring about: so many a second of each VM, not more.

use core::fmt::{Arguments, Display};

use bulkhead_core::{ids::VmId, vplat::VMS_MAX};
use bulkhead_dma::flush::Switch;
use bulkhead_smmu::{FaultBudget, Verdict};
use log::{error, info, warn};

use crate::{lock::Mutex, time};

/// Lines a second of each VM, and of all devices in none. One VM's lines do not keep another's from being shown.
const PER_SECOND: u32 = 32;

/// By VM; the last is nobody's.
static BUDGETS: Mutex<[FaultBudget; VMS_MAX + 1]> = Mutex::new([FaultBudget::new(PER_SECOND, 1_000_000); VMS_MAX + 1]);

/// Whether one more line of a VM's, or of nobody's, may be shown; the first that may not is told of.
#[inline(never)]
pub fn may_show(vm: Option<VmId>, name: &str) -> bool {
    let verdict = {
        let [budgets @ .., nobodys] = &mut *BUDGETS.lock();
        vm.and_then(|vm| budgets.get_mut(vm.index())).unwrap_or(nobodys).take(time::now_us())
    };
    if verdict == Verdict::Silence {
        warn!("vm={name}: more than {PER_SECOND} lines a second: further ones are not shown");
    }
    verdict == Verdict::Report
}

/// A change of policy, for the trace: `part` of the VM.
#[cold]
#[inline(never)]
pub fn switch(vm: VmId, name: &str, part: Arguments<'_>, switch: &Switch) {
    let Switch { from, to, from_ns, to_ns } = switch;
    if may_show(Some(vm), name) {
        info!("vm {name}{part}: flushes by {to:?} instead of {from:?}, {to_ns} ns instead of {from_ns}");
    }
}

/// What went wrong at the guest's request: `part` of the VM.
#[cold]
#[inline(never)]
pub fn problem(vm: VmId, name: &str, part: Arguments<'_>, problem: &dyn Display) {
    if may_show(Some(vm), name) {
        error!("vm {name}{part}: {problem}");
    }
}
