//! A VM's memory, and its driver of the SMMU that it sees.

use std::{
    cell::Cell,
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use bulkhead_core::addr::{Ipa, PAGE_SIZE, PhysAddr};
use bulkhead_smmu::model::{Model, SharedFrame, TestTable};
use bulkhead_vdev::memory::GuestMemory;

/// Where RAM is for the VM.
pub const RAM: u64 = 0x4000_0000;
/// Pages of RAM.
pub const PAGES: u64 = 48;
/// First page of data, behind the tables.
pub const DATA: u64 = 16;
/// Where the stream table of 256 entries, the queues and the context descriptors are.
pub const STRTAB: u64 = RAM;
pub const CMDQ: u64 = RAM + 4 * PAGE_SIZE;
pub const EVENTQ: u64 = RAM + 5 * PAGE_SIZE;
pub const CONTEXTS: u64 = RAM + 6 * PAGE_SIZE;
/// First address that is mapped, of `SLOTS` pages.
pub const VA: u64 = 0x7f_0000_0000;
/// Pages of addresses.
pub const SLOTS: usize = 32;

/// RAM, which the SMMU sees as well.
#[derive(Clone)]
pub struct Ram(Rc<Pages>);

struct Pages {
    words: Vec<AtomicU64>,
    /// Pages that may have been stored to since they were copied last, and those that somebody still holds.
    news: Vec<Cell<bool>>,
    held: Vec<Cell<bool>>,
}

struct Frame(Ram, usize);

impl SharedFrame for Frame {
    fn load(&self, word: usize) -> u64 {
        self.0.0.words[self.1 * 512 + word].load(Relaxed)
    }
    fn update(&self, word: usize, old: u64, new: u64) -> bool {
        self.0.0.words[self.1 * 512 + word].compare_exchange(old, new, Relaxed, Relaxed).is_ok()
    }
    fn copy_to(&self, words: &mut [u64; 512]) {
        let pages = &self.0.0;
        if pages.news[self.1].replace(pages.held[self.1].get()) {
            for (word, from) in words.iter_mut().zip(&pages.words[self.1 * 512..]) {
                *word = from.load(Relaxed);
            }
        }
    }
}

impl GuestMemory for Ram {
    fn words(&mut self, at: Ipa, count: usize) -> Option<&[AtomicU64]> {
        let first = usize::try_from(at.as_u64().checked_sub(RAM)? / 8).ok()?;
        let words = self.0.words.get(first..first.checked_add(count)?)?;
        for page in first / 512..=(first + count.max(1) - 1) / 512 {
            self.0.held[page].set(true);
            self.0.news[page].set(true);
        }
        Some(words)
    }
}

impl Ram {
    /// RAM in `model`'s memory: it, its first frame, and its stage 2.
    pub fn new(model: &Model) -> (Self, PhysAddr, TestTable) {
        let flags = |is_set| (0..PAGES).map(|_| Cell::new(is_set)).collect();
        let words = (0..PAGES * 512).map(|_| AtomicU64::new(0)).collect();
        let ram = Self(Rc::new(Pages { words, news: flags(true), held: flags(false) }));
        let first = model.alloc(PAGES, PAGE_SIZE);
        let mut table = TestTable::new(model);
        for (page, index) in (0..PAGES).zip(0..) {
            let frame = PhysAddr::new(first.as_u64() + page * PAGE_SIZE);
            model.share(frame, Box::new(Frame(ram.clone(), index)));
            table.map_page(Ipa::new(RAM + page * PAGE_SIZE), frame, true);
        }
        (ram, first, table)
    }

    /// Who was given words has stored what it wanted to.
    pub fn release(&self) {
        self.0.held.iter().for_each(|held| held.set(false));
    }

    /// The guest stores.
    pub fn store(&self, at: u64, value: u64) {
        let word = usize::try_from((at - RAM) / 8).expect("RAM");
        self.0.words[word].store(value, Relaxed);
        self.0.news[word / 512].set(true);
    }

    /// The word at `at`; `None` where no RAM is.
    pub fn load(&self, at: u64) -> Option<u64> {
        let word = usize::try_from(at.checked_sub(RAM)? / 8).ok()?;
        self.0.words.get(word).map(|word| word.load(Relaxed))
    }

    /// The tables of a context, four pages from page 7 on: root, the next level, and two for the last.
    pub fn root(table: usize) -> u64 {
        RAM + (7 + 4 * table as u64) * PAGE_SIZE
    }

    /// Links the tables of both contexts.
    pub fn link(&self) {
        for table in 0..2 {
            let root = Self::root(table);
            self.store(root + (VA >> 30 & 511) * 8, root + PAGE_SIZE + 3);
            self.store(Self::link_at(table), root + 2 * PAGE_SIZE + 3);
        }
    }

    fn link_at(table: usize) -> u64 {
        Self::root(table) + PAGE_SIZE + (VA >> 21 & 511) * 8
    }

    /// The last level of a table.
    fn leaves(&self, table: usize) -> u64 {
        self.load(Self::link_at(table)).expect("RAM") & !0xfff
    }

    /// Has the other one of two last levels take over, the same in it, and the old one lead astray.
    pub fn replace_leaves(&self, table: usize) {
        let old = self.leaves(table);
        let new = old ^ (Self::root(table) + 2 * PAGE_SIZE) ^ (Self::root(table) + 3 * PAGE_SIZE);
        for at in (0..SLOTS as u64).map(|slot| slot * 8) {
            self.store(new + at, self.load(old + at).expect("RAM"));
            self.store(old + at, Self::leaf(0));
        }
        self.store(Self::link_at(table), new + 3);
    }

    /// A descriptor of a page of RAM.
    pub const fn leaf(page: u64) -> u64 {
        // A page, AF, inner shareable, EL0 may write, not global.
        (RAM + page * PAGE_SIZE) | 3 | 1 << 10 | 3 << 8 | 1 << 6 | 1 << 11
    }

    /// Maps a slot of a table to a page of RAM, or to nothing.
    pub fn map(&self, table: usize, slot: usize, page: Option<u64>) {
        self.store(self.leaves(table) + slot as u64 * 8, page.map_or(0, Self::leaf));
    }

    /// The first word of a context descriptor as Linux has it.
    pub fn context(asid: u64) -> u64 {
        // T0SZ 25, EPD1, V, IPS 40 bits, AA64, R, A, ASET, ASID.
        25 | 5 << 8 | 3 << 12 | 1 << 30 | 1 << 31 | 2 << 32 | 1 << 41 | 7 << 45 | asid << 48
    }

    /// Has a context lead to a table, under the table's ASID.
    pub fn point(&self, context: usize, table: usize) {
        let at = CONTEXTS + context as u64 * 64;
        self.store(at + 8, Self::root(table));
        self.store(at, Self::context(table as u64 + 1));
    }

    /// Has a stream use a context: `None` is an abort.
    pub fn use_context(&self, stream: u32, context: Option<usize>) {
        let at = STRTAB + u64::from(stream) * 64;
        let low = context.map_or(1, |context| CONTEXTS + context as u64 * 64 + (5 << 1 | 1));
        self.store(at + 8, 1 << 2 | 1 << 4 | 3 << 6);
        self.store(at, low);
    }
}
