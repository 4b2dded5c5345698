//! Leases alone: taken and given back while many are out.

use alloc::{vec, vec::Vec};

use bulkhead_dma::iova::{Iovas, Lease, Node, Wish, nodes_for};

use crate::meter;

/// Leases that are out meanwhile, in the two cases.
const LIVE: [usize; 2] = [256, 100_000];
/// Pages of a packet's map: three, a page more for each of three segments, and the guard page.
const PACKET_PAGES: u32 = 7;
/// Pages of a 64 KiB buffer's map.
const BUFFER_PAGES: u32 = 18;

/// Counts a lease's life.
pub fn run() {
    for live in LIVE {
        let nodes: &'static mut [Node] = Vec::leak(vec![Node::EMPTY; nodes_for(live + 1, 0)]);
        let mut iovas = Iovas::new(nodes, 1 << 22);
        let mut out: Vec<Option<Lease>> = Vec::with_capacity(live);
        for (owner, at) in (0..).zip(0..live) {
            let pages = if at % 8 == 0 { BUFFER_PAGES } else { PACKET_PAGES };
            out.push(iovas.take(&Wish::pages(pages), owner).ok());
        }
        let name = if live > 1000 { "lease, 100000 live" } else { "lease, 256 live" };
        let mut random = 1_u32;
        meter::measure(name, 1, |rounds| {
            for _ in 0..rounds {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let Some(place) = out.get_mut(random as usize % live) else { continue };
                let Some(lease) = place.take() else { continue };
                iovas.give(lease);
                let pages = if random >> 8 & 7 == 0 { BUFFER_PAGES } else { PACKET_PAGES };
                *place = iovas.take(&Wish::pages(pages), random).ok();
            }
        });
    }
}
