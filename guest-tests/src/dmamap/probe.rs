//! What an edu reaches: writes and reads at an IOVA, and a look at the memory that must, or must not, have been meant.

use bulkhead_bus_dma::{Direction, Loaded, Map, Span, Tag};

use super::HvcBus;
use crate::{edu::Edu, mem};

/// Bytes of a probe: few faults each, so that the hypervisor names every one of them.
pub const PROBE_BYTES: u64 = 8;
const SENT: u64 = 0x5e27_5e27_5e27_5e27;

/// An edu with maps of its own for what goes into its buffer and what comes out of it.
#[derive(Debug)]
pub struct Probe {
    edu: Edu,
    pattern: Loaded<Span>,
    result: Loaded<Span>,
    seed: u64,
}

impl Probe {
    /// Two pages at `at` in scratch memory and two maps of `channel` are the probe's.
    pub fn new(bus: &HvcBus, edu: Edu, channel: u8, at: u64) -> Self {
        mem::fill(at, 4096, SENT);
        let load = |ipa, direction| {
            let map = Map::create(bus, channel, &Tag::single(4096)).unwrap_or_else(|error| panic!("create: {error}"));
            let span = Span { ipa, bytes: 4096 };
            map.load(bus, direction, span).unwrap_or_else(|refused| panic!("load: {refused}"))
        };
        let (pattern, result) = (load(at, Direction::DeviceReads), load(at + 4096, Direction::DeviceWrites));
        Self { edu, pattern, result, seed: 1 }
    }

    /// Gives its maps back.
    pub fn destroy(self, bus: &HvcBus) {
        for loaded in [self.pattern, self.result] {
            loaded.destroy(bus).unwrap_or_else(|refused| panic!("destroy: {refused}"));
        }
    }

    /// Whether the device, writing `bytes` bytes at `iova`, changes what is at `ipa`.
    pub fn writes(&mut self, iova: u64, ipa: u64, bytes: u64) -> bool {
        self.seed += 1;
        mem::fill(ipa, bytes, self.seed);
        let is_done = self.edu.read(self.pattern.iova(), 0, bytes) && self.edu.write(iova, 0, bytes);
        assert!(is_done, "the edu ends its transfers");
        if mem::find_changed(ipa, bytes, self.seed).is_none() {
            return false;
        }
        assert!(mem::find_changed(ipa, bytes, SENT).is_none(), "what changed is what was sent, all of it");
        true
    }

    /// Whether the device, reading `bytes` bytes at `iova`, gets what is at `ipa`.
    pub fn reads(&mut self, iova: u64, ipa: u64, bytes: u64) -> bool {
        self.seed += 1;
        mem::fill(ipa, bytes, self.seed);
        let result = self.result.segments().first().map_or(0, |segment| segment.ipa);
        mem::fill(result, bytes, 0);
        let is_done = self.edu.read(iova, 0, bytes) && self.edu.write(self.result.iova(), 0, bytes);
        assert!(is_done, "the edu ends its transfers");
        mem::find_changed(result, bytes, self.seed).is_none()
    }

    /// Whether the device reaches nothing of `ipa` at `iova`, writing or reading.
    pub fn is_refused(&mut self, iova: u64, ipa: u64) -> bool {
        !self.writes(iova, ipa, PROBE_BYTES) && !self.reads(iova, ipa, PROBE_BYTES)
    }

    /// Whether the device reads and writes `ipa` at `iova`.
    pub fn reaches(&mut self, iova: u64, ipa: u64, bytes: u64) -> bool {
        self.writes(iova, ipa, bytes) && self.reads(iova, ipa, bytes)
    }
}
