//! Create: the only step of a map's life that can run out of anything, with the strategy `reserve`.

use bulkhead_core::{addr::Iova, bundle::DmamapStrategy};

use super::{Channel, CreateError, Handle, MapParams, Space, piece::NONE, record::Kind};
use crate::{flush::Stamp, tree::TableSource};

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

impl<'t> Space<'t> {
    /// Leases space for a map and provides its tables. On error nothing has changed.
    pub fn create(
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
            Kind::Pages | Kind::Sampled => self.attach(channel, &plan.wish, owner, source)?,
            Kind::Blocks => self.attach_blocks(channel, &plan.wish, owner)?,
            Kind::PerLoad | Kind::PerSegment => NONE,
        };
        self.live += 1;
        let handle = channel.occupy(at);
        let piece = channel.pieces.get(pieces);
        let first = piece.map_or(0, |piece| piece.first);
        let lease_pages = piece.and_then(|piece| piece.lease.as_ref()).map_or(0, |lease| lease.pages);
        let slots = piece.map_or(&[][..], |piece| piece.slots);
        let is_plain = kind == Kind::Pages && plan.boundary == 0;
        let run = if is_plain { slots } else { &[] };
        let singles = run.get(..params.max_segments as usize).unwrap_or(run);
        let first = u64::from(first);
        if let Some(record) = channel.records.get_mut(at as usize) {
            // Field by field: a whole record would be made elsewhere and copied.
            record.word = handle.0;
            record.stamp = Stamp::new(0);
            record.first = first;
            record.singles = singles;
            record.run = run;
            record.slots = if kind == Kind::Blocks { slots } else { run };
            record.used = 0;
            record.pages = 0;
            record.pieces = pieces;
            record.capacity = if plan.is_blocks { plan.capacity / 512 } else { plan.capacity };
            record.max_segments = params.max_segments;
            record.boundary = plan.boundary;
            record.kind = kind;
            record.is_listed = false;
            record.is_gone = false;
            record.link = NONE;
            record.wish = plan.wish;
        }
        Ok(Created { handle, base: Iova::new(first << 12), bytes: u64::from(lease_pages) << 12 })
    }
}
