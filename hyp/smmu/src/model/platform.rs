//! The driver's side of the model.

use bulkhead_core::addr::PhysAddr;

use super::{Model, State, Violation};
use crate::platform::Platform;

impl State {
    pub(super) fn alloc(&mut self, pages: u64, alignment: u64) -> Option<u64> {
        let start = self.next_free.next_multiple_of(alignment.max(4096));
        let end = start.checked_add(pages * 4096).filter(|end| *end <= self.memory_end)?;
        self.next_free = end;
        self.memory.add_fresh(start..end);
        Some(start)
    }

    /// Checks a write into a stream table entry against 3.21.3.
    fn check_entry_write(&mut self, at: u64, value: u64) {
        let Some((stream, word, entry)) = self.entry_word(at) else {
            self.note_descriptor(at, value);
            return;
        };
        let old = self.memory.cpu_peek(at);
        let is_valid_for_smmu =
            self.memory.device_read(entry).is_some_and(|word0| word0 & 1 != 0) || self.configs.has_valid(stream);
        let is_valid = self.memory.cpu_peek(entry) & 1 != 0;
        let at = PhysAddr::new(at);
        if word != 0 {
            if value != old && (is_valid || is_valid_for_smmu) {
                self.violations.push(Violation::LiveEntryChanged { at });
            }
        } else if value & 1 != 0 {
            if old & 1 != 0 && value != old || is_valid_for_smmu && old & 1 == 0 {
                self.violations.push(Violation::LiveEntryChanged { at });
            }
            if (1..8).any(|word| !self.memory.is_published(entry + word * 8)) {
                self.violations.push(Violation::EntryNotPublished { at });
            }
        } else if value != 0 && old & 1 != 0 {
            // Made invalid with other bits changed: harmless, an invalid entry's other bits are ignored.
        }
    }
}

impl Platform for Model {
    fn read32(&mut self, offset: u32) -> u32 {
        let mut state = self.0.borrow_mut();
        let value = state.read_register32(offset);
        state.step();
        value
    }

    fn write32(&mut self, offset: u32, value: u32) {
        let mut state = self.0.borrow_mut();
        state.write_register32(offset, value);
        state.step();
    }

    fn read64(&mut self, offset: u32) -> u64 {
        self.0.borrow_mut().read_register64(offset)
    }

    fn write64(&mut self, offset: u32, value: u64) {
        let mut state = self.0.borrow_mut();
        state.write_register64(offset, value);
        state.step();
    }

    fn read_memory(&mut self, at: PhysAddr) -> u64 {
        let mut state = self.0.borrow_mut();
        if !state.memory.has(at.as_u64()) {
            state.violations.push(Violation::WildAccess { at });
            return 0;
        }
        state.memory.cpu_read(at.as_u64())
    }

    fn write_memory(&mut self, at: PhysAddr, value: u64) {
        let mut state = self.0.borrow_mut();
        if !state.memory.has(at.as_u64()) {
            state.violations.push(Violation::WildAccess { at });
            return;
        }
        state.check_entry_write(at.as_u64(), value);
        state.memory.cpu_write(at.as_u64(), value);
        state.step();
    }

    fn clean(&mut self, at: PhysAddr, bytes: u64) {
        let mut state = self.0.borrow_mut();
        state.memory.clean(at.as_u64()..at.as_u64() + bytes);
        state.step();
    }

    fn invalidate(&mut self, at: PhysAddr, bytes: u64) {
        let mut state = self.0.borrow_mut();
        if let Some(line) = state.memory.invalidate(at.as_u64()..at.as_u64() + bytes) {
            state.violations.push(Violation::DirtyInvalidated { at: PhysAddr::new(line) });
        }
    }

    fn barrier(&mut self) {
        let mut state = self.0.borrow_mut();
        state.memory.barrier();
        state.step();
    }

    fn alloc(&mut self, pages: u64, alignment: u64) -> Option<PhysAddr> {
        self.0.borrow_mut().alloc(pages, alignment).map(PhysAddr::new)
    }

    fn now_us(&mut self) -> u64 {
        let mut state = self.0.borrow_mut();
        state.time_us += 1;
        state.time_us
    }

    fn relax(&mut self) {
        self.0.borrow_mut().time_us += 100;
    }
}
