//! The edu: writes and reads of one word of 4 bytes, one access each, and whether they went where they should.

use core::fmt;

use bulkhead_bus_dma::{Direction, Loaded, Map, Span, Tag};
use bulkhead_guest_tests::{
    cpu,
    dmamap::HvcBus,
    edu::Edu,
    gic::{self, Bank},
    irq, mem,
    random::Random,
    timer::{self, Timer},
};

use super::maps::Place;

const PAGE: u64 = 4096;
/// The virtual timer's interrupt.
const TIMER: u32 = 27;
/// Longer than a transfer.
const REST_US: u64 = 101_000;
/// What is sent where nothing may arrive, and what stands there.
const BAD: u32 = 0xbad0_bad0;
const SAFE: u32 = 0x5afe_5afe;
/// What is sent to loaded memory, and what stands there before.
const GOOD: u32 = 0x600d_600d;
const BEFORE: u32 = 0xbef0_bef0;
/// Bytes of a word.
pub const WORD: u64 = 4;
/// Where in the edu's buffer words are: the two to be sent, and what was read.
const BAD_AT: u64 = 0;
const GOOD_AT: u64 = WORD;
const READ_AT: u64 = 2 * WORD;

/// Stops the timer that ended a sleep.
pub fn on_interrupt(intid: u32) {
    if intid == TIMER {
        Timer::Virtual.stop();
    }
}

/// Whether nothing that was sent to retired addresses is anywhere.
pub fn is_clean(at: u64, bytes: u64) -> bool {
    (at..at + bytes).step_by(4).all(|at| mem::read32(at) != BAD)
}

/// The device with maps of its own.
pub struct Device {
    edu: Edu,
    words: Loaded<Span>,
    result: Loaded<Span>,
    result_at: u64,
    loaded: u64,
    retired: u64,
    reads: u64,
    /// Accesses to loaded addresses that did not do what their direction says.
    pub wrong_loaded: u64,
    /// Accesses to retired addresses that reached memory.
    pub wrong_retired: u64,
}

impl Device {
    /// Two pages at `at` and two maps of channel 0 are its own.
    pub fn new(bus: &HvcBus, at: u64) -> Self {
        gic::set(TIMER, Bank::Enable);
        mem::write32(at + BAD_AT, BAD);
        mem::write32(at + GOOD_AT, GOOD);
        let load = |ipa, direction| {
            let map = Map::create(bus, 0, &Tag::single(PAGE)).unwrap_or_else(|error| panic!("create: {error}"));
            map.load(bus, direction, Span { ipa, bytes: PAGE }).unwrap_or_else(|refused| panic!("load: {refused}"))
        };
        let device = Self {
            edu: Edu::first(),
            words: load(at, Direction::DeviceReads),
            result: load(at + PAGE, Direction::DeviceWrites),
            result_at: at + PAGE,
            loaded: 0,
            retired: 0,
            reads: 0,
            wrong_loaded: 0,
            wrong_retired: 0,
        };
        device.edu.start_read(device.words.iova(), 0, 2 * WORD);
        device.rest();
        device
    }

    /// Gives its maps back.
    pub fn destroy(self, bus: &HvcBus) {
        for loaded in [self.words, self.result] {
            loaded.destroy(bus).unwrap_or_else(|refused| panic!("destroy: {refused}"));
        }
    }

    /// Sleeps until the transfer is over.
    fn rest(&self) {
        loop {
            let before = irq::count(0, TIMER);
            Timer::Virtual.set(timer::ticks(REST_US));
            while irq::count(0, TIMER) == before {
                // Masked, so that the interrupt cannot come between the look and the sleep.
                cpu::mask();
                if irq::count(0, TIMER) == before {
                    cpu::wfi();
                }
                cpu::unmask();
            }
            if !self.edu.is_busy() {
                return;
            }
        }
    }

    fn writes(&self, iova: u64, offset: u64) {
        self.edu.start_write(iova, offset, WORD);
        self.rest();
    }

    /// What the device gets at an address.
    fn reads(&mut self, iova: u64) -> u32 {
        self.reads += 1;
        self.edu.start_read(iova, READ_AT, WORD);
        self.rest();
        mem::write32(self.result_at, !SAFE);
        self.writes(self.result.iova(), READ_AT);
        mem::read32(self.result_at)
    }

    /// A loaded address: the device does what the direction says, and nothing else.
    pub fn try_loaded(&mut self, place: &Place, random: &mut Random) {
        self.loaded += 1;
        mem::write32(place.ipa, BEFORE);
        let (may, did) = if random.below(4) == 0 {
            (place.direction != Direction::DeviceWrites, self.reads(place.iova) == BEFORE)
        } else {
            self.writes(place.iova, GOOD_AT);
            (place.direction != Direction::DeviceReads, mem::read32(place.ipa) == GOOD)
        };
        self.wrong_loaded += u64::from(may != did);
    }

    /// A retired address: the device reaches nothing.
    pub fn try_retired(&mut self, place: &Place, random: &mut Random) {
        self.retired += 1;
        mem::write32(place.ipa, SAFE);
        if random.below(4) == 0 {
            self.wrong_retired += u64::from(self.reads(place.iova) == SAFE);
        } else {
            self.writes(place.iova, BAD_AT);
        }
        self.wrong_retired += u64::from(mem::read32(place.ipa) != SAFE);
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "loaded={} retired={} reads={}", self.loaded, self.retired, self.reads)
    }
}
