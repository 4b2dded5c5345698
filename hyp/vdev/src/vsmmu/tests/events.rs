//! The event queue: records, its end, overflow, memory that is none.

use super::{linux::Driver, *};

/// Takes everything that is there, as the driver's thread does: the indices of EVENTQ_CONS.
fn acknowledge(vm: &mut Vm) {
    let producer = vm.read(0x1_00a8);
    vm.write(0x1_00ac, producer);
}

/// Would miss: a record at the wrong place, an interrupt for each record, one that is not raised after the queue was empty.
#[test]
fn records_go_round() {
    let mut vm = Driver::probe().vm;
    for round in 0..300_u64 {
        let event = |part: u64| [0x10 | 8 << 32, round, round << 32, part];
        vm.record(event(0));
        assert_eq!(vm.smmu.take_interrupts(), Interrupts::EVENTQ);
        vm.record(event(1));
        assert_eq!(vm.smmu.take_interrupts(), Interrupts::empty());
        for part in 0..2 {
            let at = EVENTQ + (2 * round + part) % 128 * 32;
            assert_eq!([vm.get(at), vm.get(at + 8), vm.get(at + 16), vm.get(at + 24)], event(part));
        }
        acknowledge(&mut vm);
        assert_eq!(vm.read(0x1_00a8), 2 * (round + 1) % 256);
    }
}

/// Would miss: a record over one that was not read, an overflow that is told twice, or never again after it was seen.
#[test]
fn a_full_queue_overflows_once() {
    let mut vm = Driver::probe().vm;
    for round in 0..140 {
        vm.record([round, 0, 0, 0]);
    }
    assert_eq!(vm.get(EVENTQ), 0);
    assert_eq!(vm.get(EVENTQ + 127 * 32), 127);
    assert_eq!(vm.read(0x1_00a8), 1 << 31 | 128);
    acknowledge(&mut vm);
    vm.record([7, 0, 0, 0]);
    assert_eq!(vm.read(0x1_00a8), 1 << 31 | 129);
    assert_eq!(vm.get(EVENTQ), 7);
}

/// Would miss: events that were lost before they came to the queue, and that the guest is not told of, or is while its
/// queue is off.
#[test]
fn what_was_lost_on_the_way_is_an_overflow() {
    let mut off = Vm::new();
    off.smmu.lose();
    assert_eq!(off.read(0x1_00a8), 0);
    let mut vm = Driver::probe().vm;
    for expected in [1 << 31, 1 << 31] {
        vm.smmu.lose();
        assert_eq!(vm.read(0x1_00a8), expected);
    }
    acknowledge(&mut vm);
    vm.smmu.lose();
    assert_eq!(vm.read(0x1_00a8), 0);
}

/// Would miss: a queue outside of RAM that is written, or not told of; events of a queue that is off.
#[test]
fn a_queue_out_of_ram_is_a_global_error() {
    let mut vm = Vm::new();
    vm.record([1; 4]);
    vm.write(0x50, 0b101);
    vm.write_double(0xa0, 0x0900_0000 | 7);
    vm.write(0x20, 0b100);
    vm.record([1; 4]);
    assert_eq!((vm.read(0x60), vm.read(0x1_00a8)), (1 << 2, 0));
    assert_eq!(vm.smmu.take_interrupts(), Interrupts::GERROR);
    vm.record([1; 4]);
    assert_eq!(vm.smmu.take_interrupts(), Interrupts::empty());
    vm.write(0x64, 1 << 2);
    vm.record([1; 4]);
    assert_eq!((vm.read(0x60), vm.smmu.take_interrupts()), (0, Interrupts::GERROR));
}

/// Would miss: an event of a VM's last boot that is written into the RAM of its next.
#[test]
fn an_event_after_reset_is_lost() {
    let mut vm = Vm::new();
    vm.write_double(0xa0, EVENTQ | 3);
    vm.write(0x20, 0b100);
    vm.record([7, 0, 0, 0]);
    assert_eq!((vm.get(EVENTQ), vm.read(0x1_00a8)), (7, 1));
    vm.put(EVENTQ, &[0]);
    vm.smmu.reset();
    vm.record([7, 0, 0, 0]);
    assert_eq!((vm.get(EVENTQ), vm.read(0x1_00a8)), (0, 0));
}
