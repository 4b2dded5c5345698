//! What the driver needs of the machine: registers, memory, time.

use bulkhead_core::addr::PhysAddr;

/// One SMMU's registers, the memory it shares with the CPU, and a clock.
///
/// EL2 implements it with MMIO and cache maintenance, the tests with the strict model.
pub trait Platform {
    /// Reads the 32-bit register at `offset` bytes from the SMMU's base: page 0 from 0, page 1 from 0x1_0000.
    fn read32(&mut self, offset: u32) -> u32;
    /// Writes the 32-bit register at `offset` bytes from the SMMU's base.
    fn write32(&mut self, offset: u32, value: u32);
    /// Reads the 64-bit register at `offset` bytes from the SMMU's base.
    fn read64(&mut self, offset: u32) -> u64;
    /// Writes the 64-bit register at `offset` bytes from the SMMU's base, in one access.
    fn write64(&mut self, offset: u32, value: u64);

    /// Reads 64 bits of memory at `at`, a multiple of 8, in one access.
    fn read_memory(&mut self, at: PhysAddr) -> u64;
    /// Writes 64 bits of memory at `at`, a multiple of 8, in one access that nothing may tear or repeat.
    fn write_memory(&mut self, at: PhysAddr, value: u64);
    /// Cleans the cache lines of `bytes` bytes at `at` to the point of coherency. Only called when the SMMU's
    /// accesses are not coherent with the CPU's caches; the next [`barrier`](Self::barrier) completes it.
    fn clean(&mut self, at: PhysAddr, bytes: u64);
    /// Invalidates the cache lines of `bytes` bytes at `at`, so that the next read sees what the SMMU wrote; complete
    /// when it returns. Only called when the SMMU's accesses are not coherent.
    fn invalidate(&mut self, at: PhysAddr, bytes: u64);
    /// Orders every register and memory access and every clean before it ahead of every later one, as the SMMU sees
    /// them: DSB OSH. Stores alone would not do: an event is read after the register that says that it is there (IHI
    /// 0070 3.21.2; DDI 0487 B2.3.12).
    fn barrier(&mut self);

    /// Allocates `pages` pages of 4 KiB, zeroed, aligned to `alignment` bytes (a power of two). `None` when there is
    /// no such memory. Never freed: only called while taking over and on the first attach of a group of streams.
    fn alloc(&mut self, pages: u64, alignment: u64) -> Option<PhysAddr>;

    /// Time in microseconds from any origin, never going back.
    fn now_us(&mut self) -> u64;
    /// Told once per turn of a polling loop.
    fn relax(&mut self);
}

impl<P: Platform + ?Sized> Platform for &mut P {
    fn read32(&mut self, offset: u32) -> u32 {
        (**self).read32(offset)
    }
    fn write32(&mut self, offset: u32, value: u32) {
        (**self).write32(offset, value);
    }
    fn read64(&mut self, offset: u32) -> u64 {
        (**self).read64(offset)
    }
    fn write64(&mut self, offset: u32, value: u64) {
        (**self).write64(offset, value);
    }
    fn read_memory(&mut self, at: PhysAddr) -> u64 {
        (**self).read_memory(at)
    }
    fn write_memory(&mut self, at: PhysAddr, value: u64) {
        (**self).write_memory(at, value);
    }
    fn clean(&mut self, at: PhysAddr, bytes: u64) {
        (**self).clean(at, bytes);
    }
    fn invalidate(&mut self, at: PhysAddr, bytes: u64) {
        (**self).invalidate(at, bytes);
    }
    fn barrier(&mut self) {
        (**self).barrier();
    }
    fn alloc(&mut self, pages: u64, alignment: u64) -> Option<PhysAddr> {
        (**self).alloc(pages, alignment)
    }
    fn now_us(&mut self) -> u64 {
        (**self).now_us()
    }
    fn relax(&mut self) {
        (**self).relax();
    }
}
