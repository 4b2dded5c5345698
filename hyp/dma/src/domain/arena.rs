//! A VM's table pages: in a row, so that a descriptor leads back to its table without a list.

use bulkhead_core::{
    addr::{PAGE_SIZE, PhysAddr},
    stage2::Descriptor,
};

use crate::tree::{Entry, ZERO};

/// No page.
pub const NONE: u32 = u32::MAX;

/// What is known of a page. Given to the arena as [`Note::EMPTY`].
#[derive(Clone, Copy, Debug)]
pub struct Note {
    /// The next of the list that it is in.
    pub(super) next: u32,
    /// The root of the tree that it is in, or was until it is flushed.
    pub(super) root: u32,
    /// The table that leads to it, and its place there.
    pub(super) parent: u32,
    pub(super) slot: u16,
    /// Entries that are not zero.
    pub(super) live: u16,
}

impl Note {
    /// A page that is in no tree.
    pub const EMPTY: Self = Self { next: NONE, root: NONE, parent: NONE, slot: 0, live: 0 };
}

/// The pages.
#[derive(Debug)]
pub struct Arena<'t> {
    tables: &'t [[Entry; 512]],
    phys: PhysAddr,
    notes: &'t mut [Note],
    free: u32,
    left: u32,
}

impl<'t> Arena<'t> {
    /// `tables`, all zeros, which an SMMU finds from `phys` on; as many `notes`.
    pub fn new(tables: &'t [[Entry; 512]], phys: PhysAddr, notes: &'t mut [Note]) -> Self {
        let mut arena = Self { tables, phys, notes, free: NONE, left: 0 };
        for page in (0..arena.pages()).rev() {
            arena.give(page);
        }
        arena
    }

    /// Pages in all.
    pub fn pages(&self) -> u32 {
        u32::try_from(self.tables.len().min(self.notes.len())).unwrap_or(0)
    }

    /// Pages in no tree.
    pub const fn left(&self) -> u32 {
        self.left
    }

    /// Takes a page of zeros for a root.
    pub(super) fn take_root(&mut self) -> Option<u32> {
        let root = self.free;
        self.take(root, NONE, 0)
    }

    /// Takes a page of zeros for the tree of `root`, to be linked in place `slot` of `parent`.
    pub(super) fn take(&mut self, root: u32, parent: u32, slot: u16) -> Option<u32> {
        let page = self.free;
        let note = self.note_mut(page)?;
        let (next, is_dirty) = (note.next, note.live != 0);
        *note = Note { next: NONE, root, parent, slot, live: 0 };
        self.free = next;
        self.left -= 1;
        if is_dirty {
            self.entries(page).iter().for_each(|entry| entry.store(ZERO));
        }
        Some(page)
    }

    /// Takes a page back, which no SMMU can reach any more.
    pub(super) fn give(&mut self, page: u32) {
        let free = self.free;
        if let Some(note) = self.note_mut(page) {
            (note.next, note.root) = (free, NONE);
            self.free = page;
            self.left += 1;
        }
    }

    /// Takes every page of a tree back.
    pub(super) fn give_tree(&mut self, root: u32) {
        for page in 0..self.pages() {
            if self.note(page).is_some_and(|note| note.root == root) {
                self.give(page);
            }
        }
    }

    /// Takes every page of a list back.
    pub(super) fn give_list(&mut self, mut first: u32) {
        while let Some(note) = self.note(first) {
            let next = note.next;
            self.give(first);
            first = next;
        }
    }

    /// The entries of a page; none for one that there is not.
    pub(super) fn entries(&self, page: u32) -> &'t [Entry] {
        self.tables.get(page as usize).map_or(&[], |table| table.as_slice())
    }

    /// An entry of a page.
    pub(super) fn entry(&self, page: u32, slot: usize) -> Option<&'t Entry> {
        self.entries(page).get(slot)
    }

    pub(super) fn note(&self, page: u32) -> Option<&Note> {
        self.notes.get(page as usize)
    }

    pub(super) fn note_mut(&mut self, page: u32) -> Option<&mut Note> {
        self.notes.get_mut(page as usize)
    }

    /// Where an SMMU finds a page.
    pub(super) fn phys(&self, page: u32) -> PhysAddr {
        PhysAddr::new(self.phys.as_u64().saturating_add(u64::from(page) * PAGE_SIZE))
    }

    /// The page that a table descriptor leads to.
    pub(super) fn page_of(&self, descriptor: Descriptor) -> Option<u32> {
        let Descriptor::Table(at) = descriptor else { return None };
        u32::try_from(at.checked_sub(self.phys)? / PAGE_SIZE).ok()
    }
}
