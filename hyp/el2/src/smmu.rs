//! The machine's SMMUs: registers and memory for the driver, and one lock an SMMU.

use bulkhead_core::{
    addr::{AddrRange, PAGE_SIZE, PhysAddr},
    ids::SmmuId,
};
use bulkhead_smmu::{Mark, Platform, Progress, Smmu, Synced, Ticket};

use crate::{cache, frames::Use, lock::Mutex, memory, sysreg, time};

/// Most SMMUs of one machine.
pub const SMMUS_MAX: usize = bulkhead_core::machine::SMMUS_MAX;

/// Registers of one SMMU, mapped at EL2.
#[derive(Clone, Copy, Debug)]
pub struct Hardware {
    base: PhysAddr,
    size_bytes: u64,
}

impl Hardware {
    /// # Safety
    /// `range` is an SMMUv3's registers, mapped as device memory, and only this value is used to reach them.
    pub const unsafe fn new(base: PhysAddr, size_bytes: u64) -> Self {
        Self { base, size_bytes }
    }

    #[inline(always)]
    fn register<T>(&self, offset: u32) -> *mut T {
        // An offset of the driver's own constants; the assertion keeps a short `reg` from reaching another device.
        assert!(u64::from(offset) + size_of::<T>() as u64 <= self.size_bytes, "SMMU register outside its range");
        crate::pointer::to(self.base.as_u64() + u64::from(offset))
    }
}

fn memory_word(at: PhysAddr) -> *mut u64 {
    crate::pointer::to(at.as_u64())
}

impl Platform for Hardware {
    #[inline(always)]
    fn read32(&mut self, offset: u32) -> u32 {
        let register = self.register::<u32>(offset);
        // SAFETY: `new`'s promise, and the bound is checked.
        unsafe { register.read_volatile() }
    }
    #[inline(always)]
    fn write32(&mut self, offset: u32, value: u32) {
        let register = self.register::<u32>(offset);
        // SAFETY: `new`'s promise, and the bound is checked.
        unsafe { register.write_volatile(value) }
    }
    fn read64(&mut self, offset: u32) -> u64 {
        let register = self.register::<u64>(offset);
        // SAFETY: `new`'s promise, and the bound is checked.
        unsafe { register.read_volatile() }
    }
    fn write64(&mut self, offset: u32, value: u64) {
        let register = self.register::<u64>(offset);
        // SAFETY: `new`'s promise, and the bound is checked.
        unsafe { register.write_volatile(value) }
    }
    fn read_memory(&mut self, at: PhysAddr) -> u64 {
        // SAFETY: the driver only passes addresses inside what `alloc` gave it, aligned to 8.
        unsafe { memory_word(at).read_volatile() }
    }
    fn write_memory(&mut self, at: PhysAddr, value: u64) {
        // SAFETY: the driver only passes addresses inside what `alloc` gave it, aligned to 8.
        unsafe { memory_word(at).write_volatile(value) }
    }
    fn clean(&mut self, at: PhysAddr, bytes: u64) {
        cache::clean(at, bytes);
    }
    fn invalidate(&mut self, at: PhysAddr, bytes: u64) {
        cache::clean_invalidate(at.as_u64(), bytes);
    }
    fn barrier(&mut self) {
        sysreg::instruction!("dsb osh");
    }
    fn alloc(&mut self, pages: u64, alignment: u64) -> Option<PhysAddr> {
        memory::take(usize::try_from(pages).ok()?, alignment.max(PAGE_SIZE), Use::Smmu as usize)
    }
    fn now_us(&mut self) -> u64 {
        time::now_us()
    }
    fn relax(&mut self) {
        core::hint::spin_loop();
    }
}

pub use bulkhead_smmu::Flushed;

/// The driver of one SMMU.
pub type Driver = Smmu<Hardware>;

static SMMUS: [Mutex<Option<Driver>>; SMMUS_MAX] = [const { Mutex::new(None) }; SMMUS_MAX];
/// How far each one's queue is, for CPUs that do not hold its lock.
static PROGRESS: [Progress; SMMUS_MAX] = [const { Progress::new() }; SMMUS_MAX];
/// Register ranges, for the panic path, which must not wait for a lock.
static BASES: [spin::Once<Hardware>; SMMUS_MAX] = [const { spin::Once::new() }; SMMUS_MAX];

/// Makes an SMMU known to the panic path before it is touched.
pub fn announce(id: SmmuId, hardware: Hardware) {
    if let Some(slot) = BASES.get(usize::from(id.0)) {
        slot.call_once(|| hardware);
    }
}

/// Puts a driver in its place.
pub fn install(id: SmmuId, mut driver: Driver) {
    if let Some((slot, progress)) = SMMUS.get(usize::from(id.0)).zip(PROGRESS.get(usize::from(id.0))) {
        driver.share(progress);
        *slot.lock() = Some(driver);
    }
}

/// How far an SMMU's queue is now; the stores to the tables and their barrier come before.
pub fn mark(id: SmmuId) -> Mark {
    PROGRESS.get(usize::from(id.0)).map_or(Mark::NEVER, Progress::mark)
}

/// The proof of a flush that another CPU has seen complete.
pub fn redeem(id: SmmuId, ticket: &Ticket) -> Option<Synced> {
    PROGRESS.get(usize::from(id.0))?.redeem(ticket)
}

/// Runs `f` on an SMMU's driver; `None` where that SMMU was refused.
pub fn with<R>(id: SmmuId, f: impl FnOnce(&mut Driver) -> R) -> Option<R> {
    SMMUS.get(usize::from(id.0))?.lock().as_mut().map(f)
}

/// Why an SMMU did not flush.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[repr(u64)]
pub enum NotFlushed {
    /// What the driver says.
    #[error(transparent)]
    Smmu(#[from] bulkhead_smmu::Error),
    /// No driver: no VM has a device behind it.
    #[error("smmu {0} is not in use")]
    NotInUse(u8),
}

/// Runs a part of a flush on an SMMU's driver.
///
/// # Errors
/// What the driver says, or that there is none.
pub fn flush_with<R>(
    id: SmmuId,
    f: impl FnOnce(&mut Driver) -> Result<R, bulkhead_smmu::Error>,
) -> Result<R, NotFlushed> {
    // By `match`: `?` would have tickets copied, byte by byte.
    match with(id, f) {
        Some(Ok(done)) => Ok(done),
        Some(Err(error)) => Err(NotFlushed::Smmu(error)),
        None => Err(NotFlushed::NotInUse(id.0)),
    }
}

/// Waits for a flush. The lock is let go between two looks, so that others can submit meanwhile. The driver bounds the wait.
///
/// # Errors
/// The SMMU did not do it in time, or refused it.
pub fn wait(id: SmmuId, mut ticket: Ticket) -> Result<Synced, NotFlushed> {
    loop {
        if let Some(synced) = redeem(id, &ticket) {
            return Ok(synced);
        }
        let polled = flush_with(id, |driver| driver.poll(&mut ticket).map_err(|failed| driver.reason(&failed)));
        if let Some(synced) = polled? {
            return Ok(synced);
        }
        core::hint::spin_loop();
    }
}

/// Puts every stream of every SMMU in abort by registers alone: no lock, no memory, bounded. How many there are.
pub fn abort_all() -> usize {
    for hardware in BASES.iter().filter_map(spin::Once::get) {
        let _ = bulkhead_smmu::panic_abort(&mut hardware.clone());
    }
    BASES.iter().filter_map(spin::Once::get).count()
}

/// The range of an SMMU's registers that the driver uses: pages 0 and 1.
pub fn register_range(range: AddrRange<PhysAddr>) -> AddrRange<PhysAddr> {
    AddrRange::new(range.start(), range.size_bytes().min(0x2_0000)).unwrap_or(range)
}
