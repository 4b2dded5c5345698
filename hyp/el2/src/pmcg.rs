//! The SMMUs' counter groups: registers for the driver, and who looks at them.

use bulkhead_core::{
    addr::PhysAddr,
    ids::{CpuId, SmmuId},
    machine::{PMCGS_MAX, PmcgClaim},
};
use bulkhead_smmu::{Pmcg, PmcgRegisters};
use heapless::Vec;
use spin::Once;

use crate::{lock::Mutex, percpu::PerCpu, time};

/// How often counters of few bits are taken over.
const REFRESH_MS: u64 = 1000;

/// The two register pages of a group.
#[derive(Debug)]
pub struct Pages {
    page0: PhysAddr,
    page1: Option<PhysAddr>,
}

impl Pages {
    /// # Safety
    /// Both are pages of a counter group, mapped as device memory, and only this value is used to reach them.
    pub const unsafe fn new(page0: PhysAddr, page1: Option<PhysAddr>) -> Self {
        Self { page0, page1 }
    }

    fn register(&self, is_page1: bool, offset: u32) -> *mut u32 {
        let page = if is_page1 { self.page1.unwrap_or(self.page0) } else { self.page0 };
        // Offsets are the driver's own constants and counters, all within a page.
        crate::pointer::to(page.as_u64() + u64::from(offset & 0xffc))
    }
}

impl PmcgRegisters for Pages {
    fn has_page1(&self) -> bool {
        self.page1.is_some()
    }
    fn read32(&mut self, is_page1: bool, offset: u32) -> u32 {
        let register = self.register(is_page1, offset);
        // SAFETY: `new`'s promise, and the offset is within the page.
        unsafe { register.read_volatile() }
    }
    fn write32(&mut self, is_page1: bool, offset: u32, value: u32) {
        let register = self.register(is_page1, offset);
        // SAFETY: `new`'s promise, and the offset is within the page.
        unsafe { register.write_volatile(value) }
    }
}

/// A group that counts.
pub struct Group {
    /// The SMMU that it is taken to belong to.
    pub smmu: SmmuId,
    /// Why.
    pub claim: PmcgClaim,
    /// Its register page 0.
    pub at: PhysAddr,
    /// Its counters.
    pub counters: Pmcg<Pages>,
}

static GROUPS: Mutex<Vec<Group, PMCGS_MAX>> = Mutex::new(Vec::new());
/// The CPU whose timer takes over what counters of few bits say; none where all have many.
static KEEPER: Once<CpuId> = Once::new();

/// Adds a group that was started.
pub fn install(group: Group) {
    if group.counters.is_quick_to_wrap() {
        KEEPER.call_once(|| PerCpu::current().id);
        time::arm_ms(REFRESH_MS);
    }
    // As many as the device tree's.
    let _ = GROUPS.lock().push(group);
}

/// Whether a group counts for `smmu`.
pub fn counts(smmu: SmmuId) -> bool {
    GROUPS.lock().iter().any(|group| group.smmu == smmu)
}

/// Runs `f` on each group of `smmu`, with its counters as they are now.
pub fn each(smmu: SmmuId, mut f: impl FnMut(&Group)) {
    for group in GROUPS.lock().iter_mut().filter(|group| group.smmu == smmu) {
        group.counters.refresh();
        f(group);
    }
}

/// EL2's timer.
pub fn tick() {
    if KEEPER.get() == Some(&PerCpu::current().id) {
        GROUPS.lock().iter_mut().for_each(|group| group.counters.refresh());
        time::arm_ms(REFRESH_MS);
    }
}
