//! Mapping: checked, and made leaf by leaf.

use bulkhead_core::{
    addr::{AddrRange, Iova, Ipa, PAGE_SIZE, PhysAddr},
    stage2::{Access, Attributes, Descriptor, MemoryType, Shareability},
};

use super::{
    Domain, DomainError, FIRST, MapError, STEPS,
    arena::Arena,
    walk::{LEAF, ROOT, Spot, span},
};

/// What is to be mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// First address of the endpoints.
    pub first: Iova,
    /// Bytes.
    pub bytes: u64,
    /// First guest-physical address.
    pub ipa: Ipa,
    /// What the endpoints may do.
    pub access: Access,
}

/// The VM's RAM: the only thing that is ever mapped.
#[derive(Clone, Copy, Debug)]
pub struct Ram {
    range: AddrRange<Ipa>,
    phys: PhysAddr,
}

impl Ram {
    pub(super) fn new(range: AddrRange<Ipa>, phys: PhysAddr, bits: u8) -> Result<Self, DomainError> {
        let size_bytes = range.size_bytes();
        let is_reached = phys.as_u64().checked_add(size_bytes).is_some_and(|end| end <= 1 << bits);
        if !is_reached || !range.is_aligned(PAGE_SIZE) || !phys.is_aligned(PAGE_SIZE) {
            return Err(DomainError::BadRam { phys, size_bytes, bits });
        }
        Ok(Self { range, phys })
    }

    /// Where `bytes` bytes from `ipa` on are, if they are all there.
    fn translate(&self, ipa: Ipa, bytes: u64) -> Option<u64> {
        let range = AddrRange::new(ipa, bytes)?;
        if !self.range.contains_range(range) {
            return None;
        }
        Some(self.phys.checked_add(ipa.checked_sub(self.range.start())?)?.as_u64())
    }
}

impl Domain {
    /// Maps on from `done` bytes into `mapping`, in one step. Yields how many bytes are mapped then: more than before, all
    /// of them at last. On error no more is mapped than was; what was is the caller's to take away.
    ///
    /// The caller's barrier makes the stores visible to the SMMUs.
    pub fn map(&mut self, arena: &mut Arena<'_>, mapping: &Mapping, done: u64) -> Result<u64, MapError> {
        let (first, bytes) = (mapping.first.as_u64(), mapping.bytes);
        let end = first.checked_add(bytes).filter(|end| *end <= 1 << self.config.ipa_bits).ok_or(MapError::BadRange)?;
        if done >= bytes || !(first | bytes | done | mapping.ipa.as_u64()).is_multiple_of(PAGE_SIZE) {
            return Err(MapError::BadRange);
        }
        let phys = self.ram.translate(mapping.ipa, bytes).ok_or(MapError::NotRam)?;
        if self.is_unflushed(first, end) {
            return Err(MapError::Unflushed);
        }
        let memory = MemoryType::Normal;
        let attributes = Attributes { memory, access: mapping.access, shareability: Shareability::Inner };
        let (mut at, mut steps) = (first + done, STEPS);
        while at < end && steps > 0 {
            let part = Part { at, phys: phys + (at - first), bytes: end - at, attributes, is_first: at == first };
            match self.map_run(arena, &part, steps) {
                Ok((bytes, entries)) => (at, steps) = (at + bytes, steps.saturating_sub(entries)),
                Err(error) if at == first + done => return Err(error),
                // Said again by the next step.
                Err(_) => break,
            }
        }
        Ok(at - first)
    }

    /// Whether an SMMU may have something of `first` to `end` cached that is no longer so: it is gathered, or a table above
    /// it was unlinked.
    fn is_unflushed(&self, first: u64, end: u64) -> bool {
        if self.batch.is_empty() {
            return false;
        }
        let reach = if self.batch.has_tables() { span(ROOT) } else { PAGE_SIZE };
        let hull = self.batch.hull();
        first / reach <= (hull.end - 1) * PAGE_SIZE / reach && hull.first * PAGE_SIZE / reach <= (end - 1) / reach
    }

    /// Maps leaves of one size in one table. Yields their bytes, and how many they are.
    fn map_run(&mut self, arena: &mut Arena<'_>, part: &Part, most: u64) -> Result<(u64, u64), MapError> {
        let level = part.level();
        let spot = self.table_for(arena, part.at, level)?;
        let bytes = span(level);
        let count = (part.bytes / bytes).min(most);
        let entries = arena.entries(spot.page).get(spot.slot.into()..).unwrap_or_default();
        let template = Descriptor::Leaf(PhysAddr::new(0), part.attributes).encode(level);
        let mut phys = part.phys;
        let mut made = 0;
        for entry in entries.iter().take(usize::try_from(count).unwrap_or(usize::MAX)) {
            if entry.load() != 0 {
                break;
            }
            let first = if part.is_first && made == 0 { FIRST } else { 0 };
            entry.store(template | phys | first);
            phys += bytes;
            made += 1;
        }
        if made == 0 {
            return Err(MapError::Mapped);
        }
        if let Some(note) = arena.note_mut(spot.page) {
            note.live = note.live.saturating_add(u16::try_from(made).unwrap_or(u16::MAX));
        }
        self.live += made;
        Ok((made * bytes, made))
    }

    /// The entry for `at` in a table of `level`, made where it is not there. On error nothing has changed.
    fn table_for(&self, arena: &mut Arena<'_>, at: u64, level: u8) -> Result<Spot, MapError> {
        let mut spot = self.spot(arena, at, level);
        if spot.value != 0 {
            return Err(MapError::Mapped);
        }
        if u32::from(level - spot.level) > arena.left() {
            return Err(MapError::NoTables);
        }
        while spot.level < level {
            // A table of zeros is complete before it is linked.
            let page = arena.take(self.root, spot.page, spot.slot).ok_or(MapError::NoTables)?;
            if let Some(entry) = arena.entry(spot.page, spot.slot.into()) {
                entry.store(Descriptor::Table(arena.phys(page)).encode(spot.level));
            }
            if let Some(note) = arena.note_mut(spot.page) {
                note.live += 1;
            }
            let level = spot.level + 1;
            spot = Spot { page, level, slot: super::walk::slot(at, level), value: 0 };
        }
        Ok(spot)
    }
}

/// The rest of a mapping.
struct Part {
    at: u64,
    phys: u64,
    bytes: u64,
    attributes: Attributes,
    is_first: bool,
}

impl Part {
    /// The highest level whose leaves can begin it.
    fn level(&self) -> u8 {
        let fits = |level: &u8| self.bytes >= span(*level) && (self.at | self.phys).is_multiple_of(span(*level));
        (ROOT..LEAF).find(fits).unwrap_or(LEAF)
    }
}
