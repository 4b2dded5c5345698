//! What a VM's DMA maps are kept in: every array and table that they can ever need, carved out when the VM is made.

use bulkhead_core::{
    addr::{AddrRange, BLOCK_1G, BLOCK_2M, Ipa},
    bundle::{Dmamap, DmamapStrategy},
    ids::VmId,
};
use bulkhead_dma::{
    iova::{Node, nodes_for},
    map::{ChannelStorage, Piece, Record, SpaceStorage},
    tree::{Region, WINDOW_GIB_MAX},
};

use super::{CHANNELS, pool::TablePool};
use crate::{
    arena::{Array, frames_for},
    frames,
};

/// Ranges of the space that are never leased.
pub const RESERVED_MAX: usize = 4;
/// GiB of a space: what a device of 32 address bits reaches.
const WINDOW_GIB: u64 = 4;
/// Channels that can have as many maps as the VM; the others have room for a part of them.
const WHOLE_CHANNELS: usize = 2;
/// That part.
const PART: usize = 8;

/// How many of each.
#[derive(Clone, Copy)]
pub struct Sizes {
    maps: usize,
    pieces_more: usize,
    nodes: usize,
    regions: usize,
    bits: usize,
    tables: usize,
}

impl Sizes {
    /// For these settings and this RAM.
    pub fn of(settings: &Dmamap, ram: AddrRange<Ipa>) -> Self {
        let whole = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let (maps, leaves) = (whole(settings.maps), whole(settings.tables));
        let is_one_to_one = settings.strategy == DmamapStrategy::OneToOne;
        let reach = if is_one_to_one { ram.end().as_u64().div_ceil(BLOCK_1G) } else { 0 };
        let gib = usize::try_from(reach.max(WINDOW_GIB)).unwrap_or(WINDOW_GIB_MAX).min(WINDOW_GIB_MAX);
        let regions = gib * usize::try_from(BLOCK_1G / BLOCK_2M).unwrap_or(512);
        // A lease at create: one that crosses into another table needs one more piece. A lease at load: as many as loads.
        let is_reserve = settings.strategy == DmamapStrategy::Reserve;
        let leases = if is_reserve { maps } else { 2 * maps };
        let is_bitmap = settings.strategy == DmamapStrategy::Bitmap;
        Self {
            maps,
            pieces_more: if is_reserve { leaves } else { maps },
            nodes: if is_bitmap { 0 } else { nodes_for(leases, RESERVED_MAX) },
            regions,
            // A bit for each 16 of a region's 512 pages.
            bits: if is_bitmap { regions / 2 } else { 0 },
            tables: leaves + gib + 1,
        }
    }

    /// One past the space's last address.
    pub fn end(&self) -> u64 {
        self.regions as u64 * BLOCK_2M
    }

    /// Maps of a channel.
    fn maps_of(&self, channel: usize) -> usize {
        if channel < WHOLE_CHANNELS { self.maps } else { self.maps.div_ceil(PART) }
    }

    fn pieces_of(&self, channel: usize) -> usize {
        self.maps_of(channel) + self.pieces_more
    }

    /// Frames for all of it.
    pub fn frames(&self) -> usize {
        let channels = (0..CHANNELS).map(|channel| {
            frames_for::<Record<'static>>(self.maps_of(channel)) + frames_for::<Piece<'static>>(self.pieces_of(channel))
        });
        let space = frames_for::<Node>(self.nodes) + frames_for::<Region<'static>>(self.regions);
        channels.sum::<usize>() + space + frames_for::<u64>(self.bits) + self.tables + frames_for::<u64>(self.tables)
    }
}

/// The arrays of a space and its channels.
pub struct Storage {
    nodes: Array<Node>,
    regions: Array<Region<'static>>,
    bits: Array<u64>,
    channels: heapless::Vec<(Array<Record<'static>>, Array<Piece<'static>>), CHANNELS>,
}

impl Storage {
    /// Carves everything out, and the pool of tables.
    pub fn new(vm: VmId, sizes: &Sizes) -> Option<(Self, TablePool)> {
        let owner = frames::vm_use(vm);
        let mut channels = heapless::Vec::new();
        for channel in 0..CHANNELS {
            let arrays = (Array::new(sizes.maps_of(channel), owner)?, Array::new(sizes.pieces_of(channel), owner)?);
            channels.push(arrays).ok()?;
        }
        let storage = Self {
            nodes: Array::new(sizes.nodes, owner)?,
            regions: Array::new(sizes.regions, owner)?,
            bits: Array::new(sizes.bits, owner)?,
            channels,
        };
        Some((storage, TablePool::new(vm, sizes.tables)?))
    }

    /// What a new space needs.
    ///
    /// # Safety
    /// The space that was made of an earlier answer is gone.
    pub unsafe fn space(&mut self) -> SpaceStorage<'static> {
        // SAFETY: the caller's promise.
        let nodes = unsafe { self.nodes.fill(|| Node::EMPTY) };
        // SAFETY: as above.
        let regions = unsafe { self.regions.fill(|| Region::EMPTY) };
        // SAFETY: as above.
        let bits = unsafe { self.bits.fill(|| 0) };
        SpaceStorage { nodes, regions, bits }
    }

    /// What a new channel needs; `None` for one that no VM has.
    ///
    /// # Safety
    /// The channel that was made of an earlier answer is gone.
    pub unsafe fn channel(&mut self, number: usize) -> Option<ChannelStorage<'static>> {
        let (records, pieces) = self.channels.get_mut(number)?;
        // SAFETY: the caller's promise.
        let records = unsafe { records.fill(Record::empty) };
        // SAFETY: as above.
        let pieces = unsafe { pieces.fill(|| Piece::EMPTY) };
        Some(ChannelStorage { records, pieces })
    }
}
