//! IOVA = address: the device reaches all of this VM's memory, so there is nothing to do.

use super::{Counts, Direction, Dma, SEGMENTS_MAX, Segment};

/// The VM's devices see its memory as its CPUs do.
#[derive(Debug, Default)]
pub struct Identity {
    counts: Counts,
}

impl Dma for Identity {
    type Map = [u64; SEGMENTS_MAX];

    fn create(&mut self, _bytes: u64, _segments: usize) -> Self::Map {
        [0; SEGMENTS_MAX]
    }

    fn load(&mut self, map: &mut Self::Map, segments: &[Segment], _direction: Direction) {
        for (iova, segment) in map.iter_mut().zip(segments) {
            *iova = segment.address;
        }
        self.counts.loads += 1;
    }

    fn unload(&mut self, _map: &mut Self::Map) {
        self.counts.unloads += 1;
    }

    fn run(&mut self) {}

    fn iovas(&self, map: &Self::Map) -> [u64; SEGMENTS_MAX] {
        *map
    }

    fn counts(&self) -> Counts {
        self.counts
    }
}
