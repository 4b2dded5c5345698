//! A map that is loaded again in the batch that unloads it, before the batch's SYNC: what the device reaches.
#![no_std]
#![no_main]

use bulkhead_bus_dma::{
    Direction, Map, MapState, Span, Tag,
    abi::{
        Error, Function,
        ring::{ENTRY_BYTES, HEADER_BYTES, LAYOUT, MAGIC, Op, PENDING, PRODUCER_OFFSET, SEGMENTS_OFFSET},
    },
};
use bulkhead_guest_tests::{
    check,
    dmamap::{self, Probe},
    edu::Edu,
    hypercall, mem, params, program,
};

program!(main);

const PAGE: u64 = 4096;
const CHANNEL: u8 = 1;
const LOG2_ENTRIES: u64 = 3;

/// A ring that the program fills by hand: the driver's crate would not.
struct Ring {
    at: u64,
    producer: u64,
}

impl Ring {
    fn setup(at: u64) -> Self {
        (0..HEADER_BYTES).step_by(8).for_each(|offset| mem::write64(at + offset, 0));
        mem::write64(at, MAGIC);
        mem::write64(at + 8, LAYOUT.into());
        let status = hypercall::hvc(Function::RingSetup.id(), &[CHANNEL.into(), at, LOG2_ENTRIES])[0];
        assert_eq!(status, 0, "a ring");
        Self { at, producer: 0 }
    }

    fn entry(&self, index: u64) -> u64 {
        self.at + HEADER_BYTES + ENTRY_BYTES * (index % (1 << LOG2_ENTRIES))
    }

    fn put(&mut self, op: Op, handle: u64, load: Option<(u64, u64)>) {
        let at = self.entry(self.producer);
        (0..ENTRY_BYTES).step_by(8).for_each(|offset| mem::write64(at + offset, 0));
        let pending = u64::from(PENDING.cast_unsigned()) << 32;
        let head = u64::from(op.number()) | pending;
        mem::write64(at + 8, handle);
        match load {
            None => mem::write64(at, head),
            Some((ipa, bytes)) => {
                mem::write64(at, head | u64::from(Direction::Both.number()) << 16 | 1 << 24);
                mem::write64(at + SEGMENTS_OFFSET, ipa);
                mem::write64(at + SEGMENTS_OFFSET + 8, bytes);
            }
        }
        self.producer += 1;
        mem::write64(self.at + PRODUCER_OFFSET, self.producer);
    }

    /// Runs what is there; x1 to x3, and the status of the last entries.
    fn run<const N: usize>(&self) -> ([u64; 3], [i64; N]) {
        let [status, done @ ..] = hypercall::hvc(Function::RingRun.id(), &[CHANNEL.into()]);
        assert_eq!(status, 0, "a run");
        let first = self.producer - N as u64;
        let status = core::array::from_fn(|place| mem::read64(self.entry(first + place as u64)).cast_signed() >> 32);
        (done, status)
    }
}

fn main() {
    let at = params::scratch();
    let bus = dmamap::attach(at);
    let mut probe = Probe::new(&bus, Edu::first(), 0, at + 0x1000);
    let mut ring = Ring::setup(at + 0x1_0000);
    let (old, new) = (at + 0x10_0000, at + 0x20_0000);
    let map = Map::create(&bus, CHANNEL, &Tag::single(PAGE)).expect("a map");
    let loaded = map.load(&bus, Direction::Both, Span { ipa: old, bytes: PAGE }).expect("loaded");
    let (iova, handle) = (loaded.iova(), loaded.map().handle().register());
    check!(probe.reaches(iova, old, PAGE), "the old page, and the SMMU knows it");

    let unflushed = i64::from(Error::Unflushed.number());
    ring.put(Op::Unload, handle, None);
    ring.put(Op::Load, handle, Some((new, PAGE)));
    ring.put(Op::Unload, handle, None);
    let (done, status) = ring.run();
    check!(done == [3, 0, 1], "three entries, one refused"; done);
    check!(status == [0, unflushed, 0], "loaded again before its SYNC: no"; status);
    check!(loaded.map().state(&bus) == Ok(Some(MapState::Created)), "it is empty, and flushed");
    check!(probe.is_refused(iova, old), "the old page is out of reach");
    check!(probe.is_refused(iova, new), "the new page never was in it");

    ring.put(Op::Load, handle, Some((new, PAGE)));
    let (_, status) = ring.run();
    check!(status == [0], "loaded in the next run: yes"; status);
    mem::fill(old, PAGE, 3);
    check!(probe.reaches(iova, new, PAGE) && mem::find_changed(old, PAGE, 3).is_none(), "the new page, not the old");
    loaded.destroy(&bus).expect("destroyed");
    check!(probe.is_refused(iova, new), "and then nothing");
}
