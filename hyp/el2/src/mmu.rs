//! EL2's own translation: identity map, W^X, guard pages, and a window a CPU.
//!
//! VMSAv8-64, EL2 regime without VHE, 4 KiB granule, 48-bit input (DDI 0487 D8.2). Everything EL2 owns is mapped where
//! it lies. Guest memory is not mapped at all, but for a 2 MiB window of the CPU that is copying into it right now.

use aarch64_cpu::registers::{ID_AA64MMFR0_EL1, MAIR_EL2, Readable, SCTLR_EL2, TCR_EL2, TTBR0_EL2, Writeable};
use bulkhead_core::{
    addr::{AddrRange, BLOCK_2M, PAGE_SIZE, PhysAddr},
    ids::CpuId,
};

use crate::{
    cache,
    frames::{FramePool, Use},
    image, sysreg,
};

/// Virtual address of the first CPU's window; above every physical address that a 44-bit machine has.
const WINDOWS: u64 = 0xff00_0000_0000;

const VALID: u64 = 1;
const TABLE_OR_PAGE: u64 = 1 << 1;
const AP1_RES1: u64 = 1 << 6;
const AP2_READ_ONLY: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 3 << 8;
const ACCESS_FLAG: u64 = 1 << 10;
const XN: u64 = 1 << 54;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
/// MAIR_EL2: attribute 0 is Normal write-back, 1 is Device-nGnRE, 2 is Device-nGnRnE.
const MAIR: u64 = 0x00_04ff;
const DEVICE: u64 = 1 << 2;
const CONFIGURATION: u64 = 2 << 2;

/// SCTLR_EL2: MMU, caches, stack alignment check, WXN; the RES1 bits of ARMv8.0 (DDI 0487).
const SCTLR: u64 = 0x30c5_0830 | 1 | 1 << 2 | 1 << 3 | 1 << 12 | 1 << 19;

/// What EL2 may do with a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Code.
    ReadExecute,
    /// Constants, the bundle, the DTB.
    Read,
    /// Data and tables.
    ReadWrite,
    /// Registers.
    Device,
    /// PCI configuration space: a write is over when the function has it, not when it is under way (nGnRnE).
    Configuration,
}

impl Access {
    const fn bits(self) -> u64 {
        let normal = VALID | AP1_RES1 | INNER_SHAREABLE | ACCESS_FLAG;
        match self {
            Self::ReadExecute => normal | AP2_READ_ONLY,
            Self::Read => normal | AP2_READ_ONLY | XN,
            Self::ReadWrite => normal | XN,
            Self::Device => VALID | AP1_RES1 | ACCESS_FLAG | XN | DEVICE,
            Self::Configuration => VALID | AP1_RES1 | ACCESS_FLAG | XN | CONFIGURATION,
        }
    }
}

/// No frame left for a table of EL2's own.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no frame is left in the hypervisor's pool to map {0}: fewer VMs, or a larger pool in linker/hyp.ld")]
pub struct MapError(pub AddrRange<PhysAddr>);

/// EL2's tables.
pub struct Mmu {
    root: PhysAddr,
    windows: PhysAddr,
}

/// What a secondary CPU needs to turn its MMU on. Its layout is known to `secondary_start` in boot.s.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Registers {
    ttbr0: u64,
    tcr: u64,
    mair: u64,
    sctlr: u64,
}

#[inline(always)]
fn entry(table: PhysAddr, index: usize) -> *mut u64 {
    let address = usize::try_from(table.as_u64()).unwrap_or(0) + (index & 511) * 8;
    core::ptr::with_exposed_provenance_mut(address)
}

fn read(table: PhysAddr, index: usize) -> u64 {
    // SAFETY: `table` is a frame that `Mmu` took from the pool for a table, identity-mapped or reached with the MMU off.
    unsafe { entry(table, index).read_volatile() }
}

#[inline(always)]
fn write(table: PhysAddr, index: usize, descriptor: u64) {
    // SAFETY: as for `read`; the walker takes 64-bit stores whole.
    unsafe { entry(table, index).write_volatile(descriptor) }
}

fn new_table(pool: &mut FramePool) -> Option<PhysAddr> {
    let table = pool.take(1, PAGE_SIZE, Use::Hypervisor as usize)?;
    for index in 0..512 {
        write(table, index, 0);
    }
    Some(table)
}

/// Index into the table of `level` for a virtual address.
fn index_at(level: u32, address: u64) -> usize {
    usize::try_from(address >> (39 - 9 * level) & 511).unwrap_or(0)
}

impl Mmu {
    /// Tables that map the image alone: code, constants, data, the pool; the boot stack's guard page left out.
    ///
    /// # Errors
    /// The pool is too small.
    pub fn new(pool: &mut FramePool) -> Result<Self, MapError> {
        let root = new_table(pool).ok_or(MapError(image::range()))?;
        let mut mmu = Self { root, windows: root };
        mmu.map(image::between(image::start(), image::text_end()), Access::ReadExecute, pool)?;
        mmu.map(image::between(image::text_end(), image::rodata_end()), Access::Read, pool)?;
        // By pages, never by blocks: guard pages are taken out of the pool and from under the boot stack.
        mmu.map_with(image::between(image::rodata_end(), image::end()), Access::ReadWrite, pool, PAGE_SIZE)?;
        if !mmu.unmap_page(image::boot_stack_guard()) {
            return Err(MapError(image::range()));
        }
        // The windows' level-2 table exists from the start, so that opening a window never allocates.
        let mut table = root;
        for level in 0..2 {
            table = mmu.table_below(table, level, WINDOWS, pool).ok_or(MapError(image::range()))?;
        }
        mmu.windows = table;
        Ok(mmu)
    }

    fn table_below(&mut self, table: PhysAddr, level: u32, address: u64, pool: &mut FramePool) -> Option<PhysAddr> {
        let index = index_at(level, address);
        let descriptor = read(table, index);
        if descriptor & VALID != 0 {
            return (descriptor & TABLE_OR_PAGE != 0).then_some(PhysAddr::new(descriptor & ADDRESS));
        }
        let below = new_table(pool)?;
        sysreg::dsb_ishst();
        write(table, index, below.as_u64() | VALID | TABLE_OR_PAGE);
        Some(below)
    }

    /// Maps whole pages around `range` where they lie. What is mapped already stays as it is.
    ///
    /// # Errors
    /// The pool has no frame for a table; what came before is mapped.
    pub fn map(&mut self, range: AddrRange<PhysAddr>, access: Access, pool: &mut FramePool) -> Result<(), MapError> {
        self.map_with(range, access, pool, BLOCK_2M)
    }

    fn map_with(
        &mut self,
        range: AddrRange<PhysAddr>,
        access: Access,
        pool: &mut FramePool,
        largest_bytes: u64,
    ) -> Result<(), MapError> {
        let range = range.align_outward(PAGE_SIZE).ok_or(MapError(range))?;
        let mut at = range.start().as_u64();
        let end = range.end().as_u64();
        while at < end {
            let level_1 = self.table_below(self.root, 0, at, pool).ok_or(MapError(range))?;
            let level_2 = self.table_below(level_1, 1, at, pool).ok_or(MapError(range))?;
            let index = index_at(2, at);
            let here = read(level_2, index);
            let is_block = largest_bytes == BLOCK_2M && at.is_multiple_of(BLOCK_2M) && end - at >= BLOCK_2M;
            if is_block && here & VALID == 0 {
                write(level_2, index, at | access.bits());
                at += BLOCK_2M;
                continue;
            }
            if here & VALID != 0 && here & TABLE_OR_PAGE == 0 {
                at = (at | (BLOCK_2M - 1)) + 1;
                continue;
            }
            let level_3 = self.table_below(level_2, 2, at, pool).ok_or(MapError(range))?;
            let index = index_at(3, at);
            if read(level_3, index) & VALID == 0 {
                write(level_3, index, at | access.bits() | TABLE_OR_PAGE);
            }
            at += PAGE_SIZE;
        }
        sysreg::dsb_ishst();
        sysreg::isb();
        Ok(())
    }

    /// Takes one page of the pool or of a stack away: a guard page. False when it is no page of its own.
    #[must_use = "without its guard page a stack must not be used"]
    pub fn unmap_page(&mut self, page: PhysAddr) -> bool {
        let Some(table) = self.table_of(page) else { return false };
        write(table, index_at(3, page.as_u64()), 0);
        invalidate(page.as_u64());
        true
    }

    /// Takes whole pages of code away, on every CPU, and maps them anew as data. False when one is no page of its own,
    /// and what came before it is data.
    pub fn make_data(&mut self, range: AddrRange<PhysAddr>) -> bool {
        for at in (range.start().as_u64()..range.end().as_u64()).step_by(4096) {
            let page = PhysAddr::new(at);
            let Some(table) = self.table_of(page).filter(|_| self.unmap_page(page)) else { return false };
            write(table, index_at(3, at), at | Access::ReadWrite.bits() | TABLE_OR_PAGE);
        }
        sysreg::dsb_ishst();
        sysreg::isb();
        true
    }

    /// The table of level 3 that maps `page`, if it is mapped by one.
    fn table_of(&self, page: PhysAddr) -> Option<PhysAddr> {
        let mut table = self.root;
        for level in 0..3 {
            let descriptor = read(table, index_at(level, page.as_u64()));
            if descriptor & (VALID | TABLE_OR_PAGE) != VALID | TABLE_OR_PAGE {
                return None;
            }
            table = PhysAddr::new(descriptor & ADDRESS);
        }
        Some(table)
    }

    /// The registers that turn this translation on.
    pub fn registers(&self) -> Registers {
        let pa_range = ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::PARange).min(5);
        // T0SZ 16; write-back walks, inner shareable; 4 KiB; RES1 bits 31 and 23 (DDI 0487).
        let tcr = 16 | 1 << 8 | 1 << 10 | 3 << 12 | pa_range << 16 | 1 << 23 | 1 << 31;
        Registers { ttbr0: self.root.as_u64(), tcr, mair: MAIR, sctlr: SCTLR }
    }

    /// Turns MMU and caches on, on this CPU.
    pub fn turn_on(&self) {
        let registers = self.registers();
        // Relocations, .bss and tables were stored with the MMU off: lines that were fetched since the start must go.
        cache::clean_invalidate(image::text_end().as_u64(), image::end().as_u64() - image::text_end().as_u64());
        MAIR_EL2.set(registers.mair);
        TCR_EL2.set(registers.tcr);
        TTBR0_EL2.set(registers.ttbr0);
        // Tables are written, stale entries of a boot loader gone, before the first walk.
        sysreg::dsb_sy();
        sysreg::isb();
        sysreg::instruction!("tlbi alle2");
        sysreg::instruction!("ic iallu");
        sysreg::dsb_sy();
        sysreg::isb();
        SCTLR_EL2.set(registers.sctlr);
        sysreg::isb();
    }

    /// The table that holds every CPU's window, for [`Window::open`].
    pub fn window_table(&self) -> WindowTable {
        WindowTable(self.windows)
    }
}

/// Break-before-make's second half: the entry is gone on every CPU when this returns.
#[inline(always)]
fn invalidate(address: u64) {
    sysreg::dsb_ishst();
    let operand = address >> 12;
    // SAFETY: dropping TLB entries is always allowed; they are walked again.
    unsafe { core::arch::asm!("tlbi vae2is, {}", in(reg) operand, options(nostack)) };
    sysreg::dsb_ish();
    sysreg::isb();
}

/// Level-2 table with one entry a CPU: no lock, each CPU writes its own entry alone.
#[derive(Clone, Copy)]
pub struct WindowTable(PhysAddr);

/// 2 MiB of guest memory, mapped writable on this CPU while the value lives.
pub struct Window {
    table: WindowTable,
    cpu: CpuId,
}

impl WindowTable {
    /// Opens `cpu`'s window, which is closed, on the 2 MiB block that holds `target`; where the block begins at EL2.
    #[inline(always)]
    pub fn open(self, cpu: CpuId, target: PhysAddr) -> u64 {
        let block = target.align_down(BLOCK_2M).as_u64();
        write(self.0, cpu.index(), block | Access::ReadWrite.bits());
        sysreg::dsb_ishst();
        sysreg::isb();
        Self::address(cpu)
    }

    /// Where `cpu`'s window is.
    #[inline(always)]
    pub fn address(cpu: CpuId) -> u64 {
        WINDOWS + cpu.index() as u64 * BLOCK_2M
    }

    /// Closes it.
    #[inline(always)]
    pub fn close(self, cpu: CpuId) {
        write(self.0, cpu.index(), 0);
        invalidate(Self::address(cpu));
    }
}

impl Window {
    /// Opens `cpu`'s window on the 2 MiB block that holds `target`. One at a time and on that CPU: `&mut` of its block guards it.
    pub fn open(table: WindowTable, cpu: CpuId, target: PhysAddr) -> Self {
        table.open(cpu, target);
        Self { table, cpu }
    }

    /// Where the block begins at EL2.
    pub fn address(&self) -> u64 {
        WindowTable::address(self.cpu)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.table.close(self.cpu);
    }
}
