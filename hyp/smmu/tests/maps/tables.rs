//! Tables in the model's memory: the entries that `bulkhead-dma` stores to are the words that the model walks.

use std::{cell::Cell, rc::Rc};

use bulkhead_core::addr::{PAGE_SIZE, PhysAddr};
use bulkhead_dma::tree::{Entry, Table, TableSource};
use bulkhead_smmu::model::{Model, SharedFrame};

/// A table as the model sees it. While `is_held` says so, no barrier makes its stores visible.
struct Frame {
    entries: &'static [Entry; 512],
    is_held: Rc<Cell<bool>>,
}

impl SharedFrame for Frame {
    fn load(&self, word: usize) -> u64 {
        self.entries[word].load()
    }

    fn update(&self, word: usize, old: u64, new: u64) -> bool {
        self.entries[word].replace(old, new).is_ok()
    }

    fn copy_to(&self, words: &mut [u64; 512]) {
        if self.is_held.get() {
            return;
        }
        for (word, entry) in words.iter_mut().zip(self.entries) {
            *word = entry.load();
        }
    }
}

/// Where a space's tables come from.
pub struct Pool {
    model: Model,
    all: Vec<Table<'static>>,
    free: Vec<Table<'static>>,
    /// Descriptor of a page that is not the VM's: what is in a table that is nobody's.
    poison: u64,
    /// Tables that came back with entries.
    pub dirty: u64,
    is_held: Rc<Cell<bool>>,
}

impl Pool {
    /// A pool of `count` tables. `is_held`: see [`Frame`].
    pub fn new(model: &Model, count: usize, is_held: &Rc<Cell<bool>>) -> Self {
        let foreign = model.alloc(1, PAGE_SIZE);
        let all: Vec<Table<'static>> = (0..count)
            .map(|_| {
                let entries: &'static [Entry; 512] = Box::leak(Box::new([const { Entry::new(0) }; 512]));
                let phys = model.alloc(1, PAGE_SIZE);
                model.share(phys, Box::new(Frame { entries, is_held: is_held.clone() }));
                Table { entries, phys }
            })
            .collect();
        let mut pool = Self {
            model: model.clone(),
            free: Vec::new(),
            // Valid, access flag, inner shareable, Normal write-back, read and write: at level 3 a page.
            poison: foreign.as_u64() | 0x7ff,
            dirty: 0,
            is_held: is_held.clone(),
            all: all.clone(),
        };
        all.into_iter().for_each(|table| pool.put(table));
        pool
    }

    /// Tables that are out.
    pub fn out(&self) -> usize {
        self.all.len() - self.free.len()
    }

    /// Whoever still walks the table finds what is not the VM's.
    fn put(&mut self, table: Table<'static>) {
        fill(&table, self.poison);
        self.free.push(table);
    }

    /// From now on no barrier orders the tables' stores, until it is called with `false`.
    pub fn hold_stores(&self, is_held: bool) {
        self.is_held.set(is_held);
    }
}

fn fill(table: &Table<'static>, value: u64) {
    table.entries.iter().for_each(|entry| entry.store(value));
}

impl TableSource<'static> for Pool {
    fn take(&mut self) -> Option<Table<'static>> {
        let table = self.free.pop()?;
        fill(&table, 0);
        Some(table)
    }

    fn give(&mut self, table: Table<'static>) {
        self.dirty += u64::from(table.entries.iter().any(|entry| entry.load() != 0));
        // A violation if the SMMU can still get there, by a table or a cache.
        self.model.release(PhysAddr::new(table.phys.as_u64()), PAGE_SIZE);
        self.put(table);
    }
}
