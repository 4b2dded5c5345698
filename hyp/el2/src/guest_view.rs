//! A guest's memory as EL2 reads and writes it during one call: through the CPU's window, a block at a time.
//!
//! The guest's other vCPUs may write it meanwhile: every byte is copied once, by volatile accesses as wide as alignment
//! allows, so that a word of the guest's is never torn, and nothing is looked at twice.

use core::sync::atomic::Ordering::{Acquire, Release};

use bulkhead_core::addr::{AddrRange, BLOCK_2M, Ipa, PhysAddr};

use crate::{mmu::Window, percpu::PerCpu, pointer, sysreg, vm::Vm};

/// The memory of the VM that this CPU runs. The window stays on the last block until another one is needed.
pub struct GuestView {
    cpu: &'static PerCpu,
    vm: &'static Vm,
    open: Option<(PhysAddr, Window)>,
}

impl GuestView {
    /// Takes the window of this CPU; `None` while something else on it holds it.
    pub fn new(cpu: &'static PerCpu, vm: &'static Vm) -> Option<Self> {
        let was_in_use = cpu.window_in_use.swap(true, Acquire);
        (!was_in_use).then_some(Self { cpu, vm, open: None })
    }

    /// Copies guest memory at `ipa` out; false, and nothing said of `into`, when not all of it is the VM's RAM.
    #[must_use]
    pub fn read(&mut self, ipa: Ipa, into: &mut [u8]) -> bool {
        let Some(start) = self.check(ipa, into.len()) else { return false };
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let from = self.reach(start, done);
            let step = step(from, rest.len());
            let Some(part) = rest.get_mut(..step) else { return false };
            if step == 8 {
                // SAFETY: `reach` mapped the aligned word, guest memory, for this CPU alone.
                part.copy_from_slice(&unsafe { from.cast::<u64>().read_volatile() }.to_ne_bytes());
            } else if step == 4 {
                // SAFETY: as above.
                part.copy_from_slice(&unsafe { from.cast::<u32>().read_volatile() }.to_ne_bytes());
            } else {
                // SAFETY: as above.
                part.fill(unsafe { from.read_volatile() });
            }
            done += step;
        }
        // What is read later was written by the guest after this, not before (the entry after its index).
        sysreg::instruction!("dmb ishld");
        true
    }

    /// Copies into guest memory at `ipa`, after everything that was read and written before; false, and nothing
    /// written, when not all of it is the VM's RAM.
    #[must_use]
    pub fn write(&mut self, ipa: Ipa, from: &[u8]) -> bool {
        let Some(start) = self.check(ipa, from.len()) else { return false };
        sysreg::instruction!("dmb ish");
        let mut done = 0;
        while let Some(rest) = from.get(done..).filter(|rest| !rest.is_empty()) {
            let to = self.reach(start, done);
            let step = step(to, rest.len());
            if let Some(word) = rest.first_chunk().filter(|_| step == 8) {
                // SAFETY: `reach` mapped the aligned word, guest memory, for this CPU alone.
                unsafe { to.cast::<u64>().write_volatile(u64::from_ne_bytes(*word)) };
            } else if let Some(word) = rest.first_chunk().filter(|_| step == 4) {
                // SAFETY: as above.
                unsafe { to.cast::<u32>().write_volatile(u32::from_ne_bytes(*word)) };
            } else if let Some(byte) = rest.first() {
                // SAFETY: as above.
                unsafe { to.write_volatile(*byte) };
            }
            done += step;
        }
        true
    }

    fn check(&self, ipa: Ipa, bytes: usize) -> Option<PhysAddr> {
        let range = AddrRange::new(ipa, u64::try_from(bytes).ok()?)?;
        if !self.vm.ram.contains_range(range) {
            return None;
        }
        self.vm.translate(ipa)
    }

    /// Where byte `done` after `start` is at EL2.
    fn reach(&mut self, start: PhysAddr, done: usize) -> *mut u8 {
        let at = PhysAddr::new(start.as_u64() + done as u64);
        let block = at.align_down(BLOCK_2M);
        let offset = at.as_u64() - block.as_u64();
        if let Some((open, window)) = &self.open
            && *open == block
        {
            return pointer::to(window.address() + offset);
        }
        // The old window is gone before the new one is there: one entry serves both.
        self.open = None;
        let window = Window::open(self.cpu.windows, self.cpu.id, block);
        let base = window.address();
        self.open = Some((block, window));
        pointer::to(base + offset)
    }
}

impl Drop for GuestView {
    fn drop(&mut self) {
        self.open = None;
        self.cpu.window_in_use.store(false, Release);
    }
}

/// Bytes of the widest aligned access at `at`, with `rest` bytes to go. Such an access stays in its block.
fn step(at: *mut u8, rest: usize) -> usize {
    match rest {
        8.. if at.addr().is_multiple_of(8) => 8,
        4.. if at.addr().is_multiple_of(4) => 4,
        _ => 1,
    }
}
