//! The TLB and the walk cache of stage 2: everything is kept until it is invalidated.

use std::{collections::BTreeMap, ops::Range, vec::Vec};

use super::DmaAccess;

/// What a stage allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rights {
    pub(super) read: bool,
    pub(super) write: bool,
}

impl Rights {
    pub(super) const ALL: Self = Self { read: true, write: true };

    pub(super) const fn allow(self, access: DmaAccess) -> bool {
        match access {
            DmaAccess::Read => self.read,
            DmaAccess::Write => self.write,
        }
    }
}

/// A cached translation of a page or block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) bytes: u64,
    pub(super) output: u64,
    pub(super) rights: Rights,
}

/// A translation found: `output` is the byte that the input address reaches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    pub(super) bytes: u64,
    pub(super) output: u64,
    pub(super) rights: Rights,
}

#[derive(Default)]
pub(super) struct Tlb {
    entries: BTreeMap<(u16, u64), Entry>,
    /// Address of the table that maps an input region: by VMID, first input address, bytes of the region.
    walks: BTreeMap<(u16, u64, u64), u64>,
}

/// Sizes of a leaf with the 4 KiB granule, at levels 3, 2, 1.
pub(super) const SIZES: [u64; 3] = [1 << 12, 1 << 21, 1 << 30];

impl Tlb {
    /// What an earlier user may have left: translations of the first VMIDs to memory that is not theirs any more.
    pub(super) fn leave_stale(&mut self, output: u64) {
        for vmid in 1..8 {
            let stale = Entry { bytes: 1 << 30, output, rights: Rights::ALL };
            self.insert(vmid, 0, stale);
            self.insert(vmid, 1 << 30, stale);
        }
    }

    pub(super) fn insert(&mut self, vmid: u16, input: u64, entry: Entry) {
        self.entries.insert((vmid, input & !(entry.bytes - 1)), entry);
    }

    pub(super) fn find(&self, vmid: u16, input: u64) -> Option<Hit> {
        SIZES.iter().find_map(|bytes| {
            let start = input & !(bytes - 1);
            let entry = self.entries.get(&(vmid, start))?;
            (input - start < entry.bytes).then_some(Hit {
                output: entry.output + (input & (entry.bytes - 1)),
                rights: entry.rights,
                bytes: entry.bytes,
            })
        })
    }

    pub(super) fn insert_walk(&mut self, vmid: u16, input: u64, bytes: u64, table: u64) {
        self.walks.insert((vmid, input & !(bytes - 1), bytes), table);
    }

    pub(super) fn find_walk(&self, vmid: u16, input: u64, bytes: u64) -> Option<u64> {
        self.walks.get(&(vmid, input & !(bytes - 1), bytes)).copied()
    }

    pub(super) fn forget_vmid(&mut self, vmid: u16) {
        self.entries.retain(|(owner, _), _| *owner != vmid);
        self.walks.retain(|(owner, _, _), _| *owner != vmid);
    }

    pub(super) fn forget_range(&mut self, vmid: u16, start: u64, bytes: u64, is_leaf: bool) {
        let end = start.saturating_add(bytes);
        // What starts in the range, and what starts before it and reaches into it.
        for size in SIZES {
            let key = (vmid, start & !(size - 1));
            if self.entries.get(&key).is_some_and(|entry| key.1 + entry.bytes > start) {
                self.entries.remove(&key);
            }
        }
        let inside: Vec<(u16, u64)> = self.entries.range((vmid, start)..(vmid, end)).map(|(key, _)| *key).collect();
        for key in inside {
            self.entries.remove(&key);
        }
        if !is_leaf {
            self.walks.retain(|(owner, input, size), _| *owner != vmid || *input >= end || *input + *size <= start);
        }
    }

    pub(super) fn forget_all(&mut self) {
        self.entries.clear();
        self.walks.clear();
    }

    /// A cached way into `frames`.
    pub(super) fn reaches(&self, frames: &Range<u64>) -> Option<(u16, u64)> {
        let entry = self
            .entries
            .iter()
            .find(|(_, entry)| entry.output < frames.end && frames.start < entry.output + entry.bytes);
        let walk = self.walks.iter().find(|(_, table)| frames.contains(table));
        entry.map(|(key, _)| *key).or(walk.map(|(key, _)| (key.0, key.1)))
    }
}
