//! What an edu reaches through stage 1: writes and reads at an IOVA, and a look at the memory that was meant, or not.

use super::{Access, Space};
use crate::{edu::Edu, mem, params};

/// Where every table of a probe maps the probe's own two pages.
const PATTERN_IOVA: u64 = 0x7f_0000_0000;
const RESULT_IOVA: u64 = 0x7f_0000_1000;
const SENT: u64 = 0x5e27_5e27_5e27_5e27;

/// An edu, and two pages for what goes into its buffer and what comes out of it.
#[derive(Debug)]
pub struct Probe {
    /// The device.
    pub edu: Edu,
    pattern: (u64, u64),
    result: (u64, u64),
    seed: u64,
}

impl Probe {
    /// Bytes of most probes: few faults each.
    pub const BYTES: u64 = 8;

    /// Two pages at `at`, reached by their own addresses until [`Self::through_stage1`] says otherwise. `seed=` on the command
    /// line makes what VMs read different.
    pub fn new(edu: Edu, at: u64) -> Self {
        mem::fill(at, 4096, SENT);
        Self { edu, pattern: (at, at), result: (at + 4096, at + 4096), seed: at ^ params::number("seed", 0) }
    }

    /// Maps the two pages in `space`.
    pub fn map(&self, space: &mut Space) {
        space.map(PATTERN_IOVA, self.pattern.1, Access::Read);
        space.map(RESULT_IOVA, self.result.1, Access::Both);
    }

    /// Where the two pages are to be mapped, and where they are.
    pub fn pages(&self) -> [(u64, u64); 2] {
        [(PATTERN_IOVA, self.pattern.1), (RESULT_IOVA, self.result.1)]
    }

    /// From now on the two pages are where [`Self::map`] puts them, or at their own addresses.
    pub fn through_stage1(&mut self, is_translated: bool) {
        self.pattern.0 = if is_translated { PATTERN_IOVA } else { self.pattern.1 };
        self.result.0 = if is_translated { RESULT_IOVA } else { self.result.1 };
    }

    /// The device's buffer gets what [`Self::sends`] looks for.
    pub fn load(&self) {
        assert!(self.edu.read(self.pattern.0, 0, Self::BYTES), "the edu ends its transfers");
    }

    /// Tells the device to write at `iova`, whatever comes of it.
    pub fn write(&self, iova: u64) {
        assert!(self.edu.write(iova, 0, Self::BYTES), "the edu ends its transfers");
    }

    /// Tells the device to read at `iova`, whatever comes of it.
    pub fn read(&self, iova: u64) {
        assert!(self.edu.read(iova, 0, Self::BYTES), "the edu ends its transfers");
    }

    /// What the device's buffer holds, which has a way to memory.
    pub fn buffer(&self) -> u64 {
        mem::write64(self.result.1, !SENT);
        self.write(self.result.0);
        mem::read64(self.result.1)
    }

    /// Whether the buffer holds nothing but what was loaded, or what reads of nothing give.
    pub fn has_read_nothing(&self) -> bool {
        let held = self.buffer();
        held == mem::pattern(SENT, 0) || held == 0 || held == u64::MAX
    }

    /// Whether the device, writing at `iova`, changes what is at `ipa`.
    pub fn writes(&mut self, iova: u64, ipa: u64) -> bool {
        self.seed += 1;
        mem::fill(ipa, Self::BYTES, self.seed);
        self.load();
        self.write(iova);
        if mem::find_changed(ipa, Self::BYTES, self.seed).is_none() {
            return false;
        }
        assert!(mem::find_changed(ipa, Self::BYTES, SENT).is_none(), "what changed is what was sent, all of it");
        true
    }

    /// Whether the device, reading at `iova`, gets what is at `ipa`.
    pub fn reads(&mut self, iova: u64, ipa: u64) -> bool {
        self.seed += 1;
        mem::fill(ipa, Self::BYTES, self.seed);
        self.read(iova);
        self.buffer() == mem::pattern(self.seed, 0)
    }

    /// Whether the device reads and writes `ipa` at `iova`.
    pub fn reaches(&mut self, iova: u64, ipa: u64) -> bool {
        self.writes(iova, ipa) && self.reads(iova, ipa)
    }
}
