//! Whose memory is whose: what each stream may reach at this moment.

use std::{collections::BTreeMap, format, ops::Range, vec::Vec};

use bulkhead_core::{addr::PhysAddr, ids::StreamId};

use super::{State, Violation, entry::Decoded};

#[derive(Default)]
pub(super) struct Ledger {
    grants: BTreeMap<u32, Vec<Range<u64>>>,
}

impl Ledger {
    pub(super) fn grant(&mut self, stream: StreamId, start: u64, bytes: u64) {
        self.grants.entry(stream.0).or_default().push(start..start + bytes);
    }

    pub(super) fn revoke(&mut self, stream: StreamId) {
        self.grants.remove(&stream.0);
    }

    pub(super) fn may_reach(&self, stream: u32, at: u64) -> bool {
        self.grants.get(&stream).is_some_and(|ranges| ranges.iter().any(|range| range.contains(&at)))
    }
}

impl State {
    /// Looks for ways into frames that are given up.
    pub(super) fn release(&mut self, frames: Range<u64>) {
        let frame = PhysAddr::new(frames.start);
        let mut found = Vec::new();
        if let Some((vmid, input)) = self.tlb.reaches(&frames).or_else(|| self.tlb_both.reaches(&frames)) {
            found.push(format!("the tlb's entry of vmid {vmid} at {input:#x}"));
        }
        for (stream, root) in self.configs.valid_entries() {
            if frames.contains(&(root & !0xfff)) {
                found.push(format!("the cached entry of stream {stream:#x}"));
            }
        }
        for stream in self.streams_in_memory() {
            let Some(entry) = self.peek_entry(stream) else { continue };
            if let Ok(Some(Decoded::Stage2(s2, _))) = self.decode_entry(&entry)
                && self.table_reaches(s2.root, s2.level, &frames)
            {
                found.push(format!("the table of stream {stream:#x}"));
            }
        }
        for how in found {
            self.violations.push(Violation::FreedReachable { how, frame });
        }
    }

    fn table_reaches(&self, table: u64, level: u32, frames: &Range<u64>) -> bool {
        if frames.contains(&table) {
            return true;
        }
        let bytes = 1u64 << (39 - 9 * level);
        (0..512).any(|index| {
            let Some(descriptor) = self.memory.device_read(table + index * 8) else { return false };
            let output = descriptor & 0x0000_ffff_ffff_f000;
            match (descriptor & 3, level) {
                (3, 1 | 2) => self.table_reaches(output, level + 1, frames),
                (1, 1 | 2) | (3, 3) => {
                    let start = output & !(bytes - 1);
                    start < frames.end && frames.start < start + bytes
                }
                _ => false,
            }
        })
    }
}
