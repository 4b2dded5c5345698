//! Create: the only step of a map's life that can run out of anything, with the strategy `reserve`.

use bulkhead_core::{addr::Iova, bundle::DmamapStrategy};

use super::{Channel, CreateError, Handle, MapParams, Space, params::Plan, piece::NONE, record::Kind};
use crate::{
    flush::Stamp,
    iova::Wish,
    strategy::Leases,
    tree::{LEAF_PAGES, TableSource},
};

/// Pages of a lease that may lie in two tables.
const SHORT: u32 = 8;

/// A map that was created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Created {
    /// The map.
    pub handle: Handle,
    /// First address of its lease; 0 where a lease is taken by each load.
    pub base: Iova,
    /// Bytes of its lease, guard page included.
    pub bytes: u64,
}

/// What the last map with a short lease anywhere was made for, and what that came to.
#[derive(Debug)]
pub(super) struct Again {
    params: MapParams,
    plan: Plan,
}

impl Again {
    /// No map.
    pub const NOTHING: Self = Self {
        params: MapParams::new(0, 0),
        plan: Plan { capacity: 0, wish: Wish::pages(0), is_blocks: false, boundary: 0 },
    };
}

impl<'t> Space<'t> {
    /// Leases space for a map and provides its tables. On error nothing has changed.
    pub fn create(
        &mut self,
        channel: &mut Channel<'t>,
        params: &MapParams,
        source: &mut dyn TableSource<'t>,
    ) -> Result<Created, CreateError> {
        match self.create_again(channel, params) {
            Some(created) => Ok(created),
            None => self.create_any(channel, params, source),
        }
    }

    /// The everyday case: a map like the last one, where another of its kind was.
    #[inline(always)]
    fn create_again(&mut self, channel: &mut Channel<'t>, params: &MapParams) -> Option<Created> {
        let Again { params: last, plan } = &self.again;
        if params != last || self.live == self.maps || channel.kind_of_pages() != Kind::Pages {
            return None;
        }
        let (at, pages) = (channel.spare(), plan.wish.pages);
        let record = channel.records.get_mut(at as usize)?;
        let Leases::Fit(iovas) = &mut self.leases else { return None };
        let (node, first) = iovas.hole(pages, u32::MAX)?;
        let piece = channel.pieces.spare()?;
        let slots = self.tree.hold_linked(first, pages.wrapping_sub(1))?;
        // Nothing fails from here on.
        let lease = iovas.take_hole(pages, node, u32::from(channel.number) << 24 | at);
        channel.pieces.take_spare(slots, lease);
        let handle = record.handle();
        record.word = handle.0;
        record.set_first(first.into());
        record.triple = if params.max_segments < 3 { None } else { slots.first_chunk() };
        (record.run, record.pieces) = (slots, piece);
        (record.max_segments, record.boundary) = (params.max_segments, 0);
        (record.kind, record.wish) = (Kind::Pages, plan.wish);
        // The last map here may have been one of a block.
        record.set_block(&[], 0);
        let next = record.link;
        channel.count_created(next);
        self.live = self.live.wrapping_add(1);
        Some(Created { handle, base: Iova::new(u64::from(first) << 12), bytes: u64::from(pages) << 12 })
    }

    #[inline(never)]
    fn create_any(
        &mut self,
        channel: &mut Channel<'t>,
        params: &MapParams,
        source: &mut dyn TableSource<'t>,
    ) -> Result<Created, CreateError> {
        let plan = params.plan(self.has_blocks && self.strategy == DmamapStrategy::Reserve)?;
        if self.live == self.maps {
            return Err(CreateError::TooManyMaps(self.maps));
        }
        let Some(at) = channel.vacant() else { return Err(CreateError::TooManyMaps(channel.capacity())) };
        let kind = match self.strategy {
            DmamapStrategy::Reserve if plan.is_blocks => Kind::Blocks,
            DmamapStrategy::Reserve => channel.kind_of_pages(),
            DmamapStrategy::PerLoad | DmamapStrategy::Magazine | DmamapStrategy::Bitmap => Kind::PerLoad,
            DmamapStrategy::PerSegment | DmamapStrategy::OneToOne => Kind::PerSegment,
        };
        let owner = u32::from(channel.number) << 24 | at;
        let pieces = match kind {
            Kind::Pages | Kind::Sampled => self.attach(channel, &within_a_table(plan.wish), owner, source)?,
            Kind::Blocks => self.attach_blocks(channel, &plan.wish, owner)?,
            Kind::PerLoad | Kind::PerSegment => NONE,
        };
        self.live += 1;
        let handle = channel.occupy(at);
        let piece = channel.pieces.get(pieces);
        let base = piece.map_or(0, |piece| piece.first);
        let lease_pages = piece.and_then(|piece| piece.lease.as_ref()).map_or(0, |lease| lease.pages);
        // Of a lease in two tables, everyday loads use the longer part.
        let part = piece.map(|piece| if piece.next == NONE { piece } else { channel.pieces.longest(piece) });
        let (first, slots) = part.map_or((0, &[][..]), |part| (u64::from(part.first), part.slots));
        let run = if kind == Kind::Pages && plan.boundary == 0 { slots } else { &[] };
        if let Some(record) = channel.records.get_mut(at as usize) {
            // Field by field: a whole record would be made elsewhere and copied.
            record.word = handle.0;
            record.set_stamp(Stamp::new(0));
            record.set_first(first);
            record.triple = if params.max_segments < 3 { None } else { run.first_chunk() };
            record.run = run;
            record.loaded = &[];
            record.pieces = pieces;
            record.max_segments = params.max_segments;
            record.boundary = plan.boundary;
            record.kind = kind;
            record.set_block(slots, u32::try_from(self.ram.blocks).unwrap_or(u32::MAX));
            record.is_listed = false;
            record.link = NONE;
            record.wish = plan.wish;
        }
        let is_plain = plan.wish == Wish::pages(plan.wish.pages) && plan.boundary == 0;
        if kind == Kind::Pages && is_plain && plan.wish.pages <= SHORT {
            self.again = Again { params: *params, plan };
        }
        Ok(Created { handle, base: Iova::new(u64::from(base) << 12), bytes: u64::from(lease_pages) << 12 })
    }
}

/// Leases that are longer than a packet's lie in one table if they fit one, so that a load of one segment does. The
/// holes before the next table are for the shorter ones.
#[inline]
const fn within_a_table(wish: Wish) -> Wish {
    let is_middling = SHORT < wish.pages && wish.pages <= LEAF_PAGES;
    if is_middling && wish.boundary == 0 { Wish { boundary: LEAF_PAGES, ..wish } } else { wish }
}
