//! Frames behind a VM's stage-2 tables: set aside when the VM is made, so that no trap allocates.

use bulkhead_core::{
    addr::{AddrRange, Ipa, PAGE_SIZE, PhysAddr},
    ids::VmId,
    stage2::{Attributes, Leaves, Stage2, Stage2Error, TableMemory, best_input_bits, root_pages, tables_for_leaves},
};

use crate::{cache, frames, memory, sysreg};

/// Frames set aside for BARs: a guest that spreads its BARs over more 2 MiB regions than this is ended.
const FOR_BARS: u64 = 24;

/// Pages that are invalidated one by one; more cost less as one invalidation of the whole VM.
const PAGES_ONE_BY_ONE: u64 = 64;

/// A VM's spare frames. Tables are written with 64-bit stores; cleaned where an SMMU without coherent walks reads them.
pub struct Spares {
    /// The first of the spare frames; each holds the next one's address in its first word, the last one 0.
    first: Option<PhysAddr>,
    /// A root of several pages, until the tree takes it.
    root: Option<PhysAddr>,
    must_clean: bool,
}

fn entry(table: PhysAddr, index: usize) -> *mut u64 {
    core::ptr::with_exposed_provenance_mut(usize::try_from(table.as_u64()).unwrap_or(0) + (index & 511) * 8)
}

impl TableMemory for Spares {
    fn read(&self, table: PhysAddr, index: usize) -> u64 {
        // SAFETY: every table of the tree is a frame that `alloc` gave out, mapped at EL2 where it lies.
        unsafe { entry(table, index).read_volatile() }
    }

    fn write(&mut self, table: PhysAddr, index: usize, descriptor: u64) {
        // Earlier stores, to the table that this entry may link, come first for every walker (DDI 0487 D8.2.6).
        sysreg::instruction!("dmb ishst");
        // SAFETY: as for `read`; walkers take 64-bit stores whole.
        unsafe { entry(table, index).write_volatile(descriptor) };
        if self.must_clean {
            cache::clean(PhysAddr::new(table.as_u64() + index as u64 * 8), 8);
        }
    }

    fn alloc(&mut self) -> Option<PhysAddr> {
        let table = self.first?;
        let next = self.read(table, 0);
        self.first = (next != 0).then_some(PhysAddr::new(next));
        for index in 0..512 {
            // SAFETY: a spare frame belongs to nobody else.
            unsafe { entry(table, index).write_volatile(0) };
        }
        if self.must_clean {
            cache::clean(table, PAGE_SIZE);
        }
        Some(table)
    }

    fn alloc_root(&mut self, pages: u64) -> Option<PhysAddr> {
        if pages == 1 { self.alloc() } else { self.root.take() }
    }

    fn free(&mut self, table: PhysAddr) {
        let next = self.first.map_or(0, PhysAddr::as_u64);
        // SAFETY: the table is out of the tree, and no walker knows it any more.
        unsafe { entry(table, 0).write_volatile(next) };
        self.first = Some(table);
    }
}

/// The CPUs' tree and its frames.
pub struct GuestTables {
    tree: Stage2<Ipa>,
    spares: Spares,
}

/// Why a VM's tables could not be made.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[repr(u64)]
pub enum TablesError {
    /// The pool is exhausted.
    #[error(
        "no frame is left in the hypervisor's pool for its tables: fewer VMs or devices, or stage2 = \"blocks\" in the manifest"
    )]
    Pool,
    /// The mapping was refused.
    #[error("its stage 2: {0}")]
    Stage2(#[from] Stage2Error),
}

impl Spares {
    /// Frames for a tree whose mappings need `count` tables besides the root.
    ///
    /// # Errors
    /// The pool is exhausted.
    pub fn new(vm: VmId, count: u64, must_clean: bool) -> Result<Self, TablesError> {
        let frames = usize::try_from(count).unwrap_or(usize::MAX).saturating_add(1);
        let run = memory::take(frames, PAGE_SIZE, frames::vm_use(vm)).ok_or(TablesError::Pool)?;
        let mut spares = Self { first: None, root: None, must_clean };
        for frame in (0..=count).rev() {
            spares.free(PhysAddr::new(run.as_u64() + frame * PAGE_SIZE));
        }
        Ok(spares)
    }
}

impl GuestTables {
    /// The CPUs' tree: `range` mapped to `phys` by `leaves`, and room for BARs. `bits` are those of inputs and outputs.
    ///
    /// # Errors
    /// The pool is exhausted, or the addresses do not fit the tree.
    pub fn new(
        vm: VmId,
        range: AddrRange<Ipa>,
        phys: PhysAddr,
        bits: (u8, u8),
        leaves: Leaves,
    ) -> Result<Self, TablesError> {
        // Every BAR lies below RAM, so what reaches the end of RAM reaches all.
        let input_bits = best_input_bits(range, phys, bits.0, leaves);
        let mut spares = Spares::new(vm, tables_for_leaves(range, phys, leaves) + FOR_BARS, false)?;
        let pages = root_pages(input_bits);
        if pages > 1 {
            let count = usize::try_from(pages).unwrap_or(1);
            spares.root = memory::take(count, pages * PAGE_SIZE, frames::vm_use(vm));
        }
        let mut tree = Stage2::new(&mut spares, input_bits)?.with_output_bits(bits.1).with_leaves(leaves);
        tree.map(&mut spares, range, phys, Attributes::RAM)?;
        Ok(Self { tree, spares })
    }

    /// The tree.
    pub const fn tree(&self) -> &Stage2<Ipa> {
        &self.tree
    }

    /// Starts anew with `range` mapped to `phys` and every frame that BARs took given back. No CPU walks the tree, and no
    /// TLB holds anything of it.
    ///
    /// # Errors
    /// None that a tree that was built once could meet again.
    pub fn rebuild(&mut self, range: AddrRange<Ipa>, phys: PhysAddr) -> Result<(), Stage2Error> {
        self.tree.clear(&mut self.spares);
        self.tree.map(&mut self.spares, range, phys, Attributes::RAM)
    }

    /// Maps a BAR's registers. Not mapped before, so nothing has to be invalidated.
    ///
    /// # Errors
    /// No spare frame is left, or something is mapped there. Nothing has changed.
    pub fn map_device(&mut self, range: AddrRange<Ipa>, phys: PhysAddr) -> Result<(), Stage2Error> {
        let result = self.tree.map(&mut self.spares, range, phys, Attributes::DEVICE);
        sysreg::dsb_ishst();
        sysreg::isb();
        result
    }

    /// Unmaps a BAR's registers on every CPU of the VM. The caller's VTTBR_EL2 is the VM's.
    ///
    /// # Errors
    /// Something of it is not mapped. Nothing has changed.
    pub fn unmap_device(&mut self, range: AddrRange<Ipa>) -> Result<(), Stage2Error> {
        self.tree.unmap(&mut self.spares, range)?;
        // Order of DDI 0487, TLB maintenance: table store, DSB, stage-2 invalidation, DSB, then the combined entries, DSB, ISB.
        sysreg::dsb_ishst();
        let pages = range.size_bytes() / PAGE_SIZE;
        if pages > PAGES_ONE_BY_ONE {
            sysreg::instruction!("tlbi vmalls12e1is");
        }
        for page in 0..if pages > PAGES_ONE_BY_ONE { 0 } else { pages } {
            let operand = range.start().as_u64() / PAGE_SIZE + page;
            // SAFETY: dropping TLB entries is always allowed.
            unsafe { core::arch::asm!("tlbi ipas2e1is, {}", in(reg) operand, options(nostack)) };
        }
        sysreg::dsb_ish();
        sysreg::instruction!("tlbi vmalle1is");
        sysreg::dsb_ish();
        sysreg::isb();
        Ok(())
    }
}
