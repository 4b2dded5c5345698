//! A device that goes on while the driver works.

use core::cell::Cell;
use std::rc::Rc;

use bulkhead_core::{
    addr::PhysAddr,
    ids::{SmmuId, StreamId},
};

use super::{HOLE, IOVA, config, take_over, vm};
use crate::{
    model::{DmaAccess, Failure, Model, ModelConfig, Outcome},
    platform::Platform,
    registers::offset,
    smmu::{Smmu, StreamState},
};

const NIC: StreamId = StreamId(0x8);

/// When the device does one transaction more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Never,
    /// At each of the driver's barriers.
    Barriers,
    /// Once, just before the driver gives slots of the event queue back.
    Release,
}

#[derive(Clone)]
struct Busy(Model, Rc<Cell<When>>);

impl Busy {
    fn transact(&self) {
        let _ = self.0.dma(NIC, HOLE, DmaAccess::Write);
    }
}

impl Platform for Busy {
    fn read32(&mut self, offset: u32) -> u32 {
        self.0.read32(offset)
    }
    fn write32(&mut self, offset: u32, value: u32) {
        if self.1.get() == When::Release && offset == offset::EVENTQ_CONS {
            self.1.set(When::Never);
            self.transact();
        }
        self.0.write32(offset, value);
    }
    fn read64(&mut self, offset: u32) -> u64 {
        self.0.read64(offset)
    }
    fn write64(&mut self, offset: u32, value: u64) {
        self.0.write64(offset, value);
    }
    fn read_memory(&mut self, at: PhysAddr) -> u64 {
        self.0.read_memory(at)
    }
    fn write_memory(&mut self, at: PhysAddr, value: u64) {
        self.0.write_memory(at, value);
    }
    fn clean(&mut self, at: PhysAddr, bytes: u64) {
        self.0.clean(at, bytes);
    }
    fn invalidate(&mut self, at: PhysAddr, bytes: u64) {
        self.0.invalidate(at, bytes);
    }
    fn barrier(&mut self) {
        self.0.barrier();
        if self.1.get() == When::Barriers {
            self.transact();
        }
    }
    fn alloc(&mut self, pages: u64, alignment: u64) -> Option<PhysAddr> {
        Platform::alloc(&mut self.0, pages, alignment)
    }
    fn now_us(&mut self) -> u64 {
        self.0.now_us()
    }
    fn relax(&mut self) {
        self.0.relax();
    }
}

fn busy() -> (Model, Smmu<Busy>, Rc<Cell<When>>) {
    let (model, when) = (Model::new(ModelConfig::new(ModelConfig::QEMU)), Rc::new(Cell::new(When::Never)));
    let mut smmu = Smmu::take_over(Busy(model.clone(), when.clone()), SmmuId(0), config()).expect("take-over");
    assert_eq!(smmu.stand_by(NIC), Ok(()));
    (model, smmu, when)
}

/// Would miss: an event that came while slots were given back. The queue was not empty, so that no interrupt follows, for
/// ever (IHI 0070 3.18.2).
#[test]
fn an_event_in_between_is_not_left_behind() {
    let (model, mut smmu, when) = busy();
    smmu.attach(NIC, &vm(&model, 1).s2).expect("attach");
    let _ = model.dma(NIC, HOLE, DmaAccess::Write);
    when.set(When::Release);
    let polled = smmu.poll_events(64, |_, _| {});
    assert_eq!((polled.seen, polled.has_more), (1, true));
    let polled = smmu.poll_events(64, |_, _| {});
    assert_eq!((polled.seen, polled.has_more), (1, false));
    model.assert_clean();
}

/// Would miss: a stream that is heard again and again by being taken out and attached: as long as its entry is invalid, and
/// by a budget that is not its own.
#[test]
fn who_is_taken_out_again_and_again_is_silent_at_last() {
    let (model, mut smmu, when) = busy();
    let vm = vm(&model, 1);
    // Silenced in the first second, aborted in the next.
    let mut seen = [0; 4];
    for round in 0..200 {
        when.set(When::Barriers);
        smmu.attach_again(NIC, &vm.s2).expect("attach");
        let _ = smmu.take_out(NIC).expect("taken out");
        when.set(When::Never);
        seen[round / 50] += smmu.poll_events(1000, |_, _| {}).seen;
        model.sleep(20_000);
    }
    assert!(seen[0] > 32 && seen[2..] == [0, 0], "{seen:?}");
    smmu.attach_again(NIC, &vm.s2).expect("attach");
    assert_eq!(smmu.find_stream(NIC).map(|info| info.state), Some(StreamState::Aborted));
    model.assert_clean();
}

/// Would miss: a stream that is stopped for its VM's whole life because the SMMU did not answer once.
#[test]
fn a_quarantine_ends_when_the_stream_is_taken_out() {
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let mut smmu = take_over(&model);
    let vm = vm(&model, 1);
    model.grant(NIC, vm.frame, 4096);
    assert_eq!(smmu.stand_by(NIC), Ok(()));
    smmu.attach_again(NIC, &vm.s2).expect("attach");
    model.fail(Failure::StuckQueue);
    assert!(smmu.take_out(NIC).is_err());
    model.repair();
    let _ = smmu.take_out(NIC).expect("taken out");
    smmu.attach_again(NIC, &vm.s2).expect("attach");
    assert_eq!(smmu.find_stream(NIC).map(|info| info.state), Some(StreamState::Attached));
    assert_eq!(model.dma(NIC, IOVA, DmaAccess::Write), Outcome::Translated(vm.frame));
}

/// Would miss: a stream that is silenced for another's flood, or is heard again once it has a domain.
#[test]
fn who_stands_by_has_a_budget_of_its_own() {
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let mut smmu = take_over(&model);
    let (vm, other) = (vm(&model, 1), StreamId(0x10));
    let flood = |smmu: &mut Smmu<_>, stream, count| {
        for _ in 0..count {
            let _ = model.dma(stream, HOLE, DmaAccess::Write);
        }
        smmu.poll_events(64, |_, _| {})
    };
    assert_eq!((smmu.stand_by(NIC), smmu.stand_by(other)), (Ok(()), Ok(())));
    assert_eq!(flood(&mut smmu, NIC, 32).reported, 32);
    assert_eq!(flood(&mut smmu, other, 1).silenced.as_slice(), []);
    assert_eq!(flood(&mut smmu, NIC, 1).silenced.as_slice(), [NIC]);
    assert_eq!(flood(&mut smmu, NIC, 40).seen, 0);
    smmu.attach_again(NIC, &vm.s2).expect("attach");
    assert_eq!(smmu.find_stream(NIC).map(|info| info.state), Some(StreamState::Silenced));
    assert_eq!(flood(&mut smmu, NIC, 40).seen, 0);
    model.assert_clean();
}
