//! The TLB of both stages in one, and the walk cache of stage 1: what a flush by IPA need not forget (IHI 0070 16.2.1).

use std::{collections::BTreeMap, ops::Range};

use super::tlb::{Rights, SIZES};

/// A cached translation from a VA to physical memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Both {
    /// The smaller one of the two stages' sizes.
    pub(super) bytes: u64,
    pub(super) ipa: u64,
    pub(super) output: u64,
    pub(super) stage1: Rights,
    pub(super) stage2: Rights,
}

#[derive(Default)]
pub(super) struct TlbBoth {
    /// By VMID, ASID (`None`: global) and first VA (3.17).
    entries: BTreeMap<(u16, Option<u16>, u64), Both>,
    /// Physical address of the next table: by VMID, ASID, first VA and bytes of the region.
    walks: BTreeMap<(u16, u16, u64, u64), u64>,
}

impl TlbBoth {
    pub(super) fn insert(&mut self, vmid: u16, asid: Option<u16>, va: u64, entry: Both) {
        self.entries.insert((vmid, asid, va & !(entry.bytes - 1)), entry);
    }

    /// The translation of `va`, its addresses those of that byte.
    pub(super) fn find(&self, vmid: u16, asid: u16, va: u64) -> Option<Both> {
        let tags = [Some(asid), None];
        tags.into_iter().flat_map(|tag| SIZES.map(|bytes| (tag, bytes))).find_map(|(tag, bytes)| {
            let start = va & !(bytes - 1);
            let entry = self.entries.get(&(vmid, tag, start)).filter(|entry| va - start < entry.bytes)?;
            let offset = va & (entry.bytes - 1);
            Some(Both { ipa: entry.ipa + offset, output: entry.output + offset, ..*entry })
        })
    }

    pub(super) fn insert_walk(&mut self, vmid: u16, asid: u16, va: u64, bytes: u64, table: u64) {
        self.walks.insert((vmid, asid, va & !(bytes - 1), bytes), table);
    }

    pub(super) fn find_walk(&self, vmid: u16, asid: u16, va: u64, bytes: u64) -> Option<u64> {
        self.walks.get(&(vmid, asid, va & !(bytes - 1), bytes)).copied()
    }

    pub(super) fn forget_vmid(&mut self, vmid: u16) {
        self.entries.retain(|key, _| key.0 != vmid);
        self.walks.retain(|key, _| key.0 != vmid);
    }

    /// Global entries stay (4.4.2.2).
    pub(super) fn forget_asid(&mut self, vmid: u16, asid: u16) {
        self.entries.retain(|key, _| key.0 != vmid || key.1 != Some(asid));
        self.walks.retain(|key, _| key.0 != vmid || key.1 != asid);
    }

    /// Entries of `asid`, or of all without one, and global ones (4.4.2.3, 4.4.2.4).
    pub(super) fn forget_range(&mut self, vmid: u16, asid: Option<u16>, start: u64, bytes: u64, is_leaf: bool) {
        let end = start.saturating_add(bytes);
        let is_inside = |va: u64, size: u64| va < end && start < va.saturating_add(size);
        let is_meant = |tag: Option<u16>| asid.is_none() || tag.is_none() || tag == asid;
        self.entries.retain(|key, entry| key.0 != vmid || !is_meant(key.1) || !is_inside(key.2, entry.bytes));
        if !is_leaf {
            self.walks.retain(|key, _| key.0 != vmid || !is_meant(Some(key.1)) || !is_inside(key.2, key.3));
        }
    }

    pub(super) fn forget_all(&mut self) {
        self.entries.clear();
        self.walks.clear();
    }

    /// A cached way into `frames`.
    pub(super) fn reaches(&self, frames: &Range<u64>) -> Option<(u16, u64)> {
        let meets = |entry: &Both| entry.output < frames.end && frames.start < entry.output + entry.bytes;
        let entry = self.entries.iter().find(|(_, entry)| meets(entry)).map(|(key, _)| (key.0, key.2));
        let walk = self.walks.iter().find(|(_, table)| frames.contains(table));
        entry.or(walk.map(|(key, _)| (key.0, key.2)))
    }
}
