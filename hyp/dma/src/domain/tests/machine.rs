//! An arena, a domain, and an SMMU: a TLB of pages, and a cache of the ways to tables, which keep what no command names.

use std::{boxed::Box, collections::BTreeMap, vec, vec::Vec};

use bulkhead_core::{
    addr::{AddrRange, Iova, Ipa, PAGE_SIZE, PhysAddr},
    ids::{SmmuId, Vmid},
    stage2::{Access, Descriptor},
};

use crate::{
    domain::{Arena, Domain, DomainConfig, MapError, Mapping, Note, SplitsMapping},
    flush::{Command, Costs, FlushError, Invalidate, Kind, Mode, Policy, SyncWitness, Work},
    tree::Entry,
};

pub const RAM: u64 = 0x4000_0000;
pub const RAM_BYTES: u64 = 4 << 30;
pub const PHYS: u64 = 0x2_4000_0000;
pub const TABLES: u64 = 0x10_0000;
pub const VMID: Vmid = Vmid::new(12).expect("not zero");
pub const RW: Access = Access::READ.union(Access::WRITE);

/// What a page leads to.
pub type Reach = (u64, Access);

#[derive(Default)]
pub struct Smmu {
    /// By page.
    pub tlb: BTreeMap<u64, Reach>,
    /// By 2 MiB, and by GiB: the table that leads on.
    ways: [BTreeMap<u64, u64>; 2],
    pub commands: u64,
    pub syncs: u64,
    pub is_stuck: bool,
}

pub struct Done;

impl SyncWitness for Done {
    fn smmu(&self) -> SmmuId {
        SmmuId(0)
    }
    fn vmid(&self) -> Vmid {
        VMID
    }
}

impl Invalidate for Smmu {
    type Ticket = ();
    type Witness = Done;
    type Error = &'static str;
    fn submit(&mut self, work: &Work<'_>) -> Result<(), &'static str> {
        self.syncs += 1;
        for command in work.commands() {
            self.commands += 1;
            let (first, end) = match command {
                Command::Page { page } => (page, page + 1),
                Command::Range { page, num, scale } => (page, page + ((u64::from(num) + 1) << scale)),
                Command::Context => (0, u64::MAX),
            };
            self.tlb.retain(|page, _| *page < first || *page >= end);
            if !work.is_leaf() {
                for (ways, pages) in self.ways.iter_mut().zip([512, 512 * 512]) {
                    ways.retain(|way, _| (*way + 1) * pages <= first || *way * pages >= end);
                }
            }
        }
        Ok(())
    }
    fn wait(&mut self, (): ()) -> Result<Done, &'static str> {
        if self.is_stuck { Err("stuck") } else { Ok(Done) }
    }
}

pub struct Machine {
    tables: &'static [[Entry; 512]],
    pub arena: Arena<'static>,
    pub domain: Option<Domain>,
    pub smmu: Smmu,
}

impl Machine {
    pub fn new(tables: usize, mode: Mode) -> Self {
        let pages: Vec<[Entry; 512]> = (0..tables).map(|_| core::array::from_fn(|_| Entry::new(0))).collect();
        let tables: &'static [[Entry; 512]] = Box::leak(pages.into_boxed_slice());
        let notes = Box::leak(vec![Note::EMPTY; tables.len()].into_boxed_slice());
        let arena = Arena::new(tables, PhysAddr::new(TABLES), notes);
        let mut machine = Self { tables, arena, domain: None, smmu: Smmu::default() };
        machine.create(mode);
        machine
    }

    pub fn create(&mut self, mode: Mode) {
        let config = DomainConfig {
            ram: AddrRange::new(Ipa::new(RAM), RAM_BYTES).expect("ram"),
            phys: PhysAddr::new(PHYS),
            input_bits: 39,
            output_bits: 44,
            vmid: VMID,
        };
        let policy = Policy::new(mode, true, Costs::START);
        self.domain = Some(Domain::new(&config, policy, [SmmuId(0)], true, &mut self.arena).expect("a table"));
    }

    pub fn range() -> Self {
        Self::new(64, Mode::Fixed(Kind::Range))
    }

    pub fn domain(&mut self) -> &mut Domain {
        self.domain.as_mut().expect("a domain")
    }

    /// Maps, in as many steps as it takes; what a refused mapping left is taken away, as a device does.
    pub fn map(&mut self, first: u64, bytes: u64, ipa: u64, access: Access) -> Result<u32, MapError> {
        let mapping = Mapping { first: Iova::new(first), bytes, ipa: Ipa::new(ipa), access };
        let (mut done, mut steps) = (0, 0);
        while done < bytes {
            let domain = self.domain.as_mut().expect("a domain");
            match domain.map(&mut self.arena, &mapping, done) {
                Ok(more) => {
                    assert!(more > done && more <= bytes && more % PAGE_SIZE == 0);
                    (done, steps) = (more, steps + 1);
                }
                Err(error) => {
                    if done > 0 {
                        self.unmap_all(first, first + done - 1);
                    }
                    return Err(error);
                }
            }
        }
        Ok(steps)
    }

    pub fn unmap_all(&mut self, first: u64, last: u64) -> u32 {
        let domain = self.domain.as_mut().expect("a domain");
        let (mut from, mut steps) = (Some(first), 0);
        while let Some(at) = from {
            from = domain.unmap(&mut self.arena, at, last);
            assert!(from.is_none_or(|next| next > at), "no step is for nothing");
            steps += 1;
        }
        steps
    }

    pub fn unmap(&mut self, first: u64, last: u64) -> Result<u32, SplitsMapping> {
        self.domain.as_ref().expect("a domain").check_unmap(&self.arena, first, last)?;
        Ok(self.unmap_all(first, last))
    }

    pub fn flush(&mut self) -> Result<(), FlushError<&'static str>> {
        let domain = self.domain.as_mut().expect("a domain");
        domain.flush(&mut self.arena, core::slice::from_mut(&mut self.smmu))
    }

    /// A device's access, by what the SMMU has cached, and by the table where it has nothing.
    pub fn access(&mut self, iova: u64) -> Option<Reach> {
        let page = iova / PAGE_SIZE;
        if let Some(reach) = self.smmu.tlb.get(&page) {
            return Some(*reach);
        }
        let mut table = self.domain.as_ref().expect("a domain").config().root.as_u64();
        for level in 1..=3u8 {
            let bytes = [1 << 30, 2 << 20, PAGE_SIZE][usize::from(level) - 1];
            // The nearest way that is cached, from below.
            let way = match level {
                3 => self.smmu.ways[0].get(&(iova >> 21)),
                2 => self.smmu.ways[1].get(&(iova >> 30)),
                _ => None,
            };
            table = way.copied().unwrap_or(table);
            let place = usize::try_from((table - TABLES) / PAGE_SIZE).expect("small");
            let value = self.tables[place][usize::try_from(iova / bytes % 512).expect("small")].load();
            match Descriptor::decode(value, level) {
                Descriptor::Invalid => return None,
                Descriptor::Table(next) => {
                    table = next.as_u64();
                    let ways = &mut self.smmu.ways[usize::from(level == 1)];
                    ways.insert(if level == 1 { iova >> 30 } else { iova >> 21 }, table);
                }
                Descriptor::Leaf(base, attributes) => {
                    let reach = (base.as_u64() + iova % bytes / PAGE_SIZE * PAGE_SIZE, attributes.access);
                    self.smmu.tlb.insert(page, reach);
                    return Some(reach);
                }
            }
        }
        None
    }

    pub fn destroy(&mut self) {
        let retired = self.domain.take().expect("a domain").retire([]).settle().expect("no walker");
        Domain::dismantle(retired, &mut self.arena);
        self.smmu.tlb.clear();
        self.smmu.ways = Default::default();
    }
}
