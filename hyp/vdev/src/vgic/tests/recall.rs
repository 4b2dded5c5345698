//! What one vCPU does to an interrupt that sits in another's list register.

use super::{lr::one_spi, registers::value};
use crate::{
    mmio::Width,
    vgic::{Entry, ListRegisters, Read, Vgic},
};

const BIT: u64 = 1 << 8;

/// SPI 40 pending in a list register of vCPU 1, which runs.
fn in_flight(is_linked: bool) -> (Vgic, ListRegisters) {
    let mut vgic = one_spi(is_linked);
    let _ = vgic.dist_write(0, 0x6000 + 8 * 40, Width::Double, 1);
    assert_eq!(vgic.inject_spi(40), 0b10);
    let mut lrs = ListRegisters::new(4);
    let _ = vgic.flush(1, &mut lrs);
    assert_eq!(Entry::from_raw(lrs.lr[0]).intid, 40);
    (vgic, lrs)
}

#[test]
fn disabling_it_holds_rwp_until_it_is_back() {
    let (mut vgic, mut lrs) = in_flight(false);
    assert_eq!(vgic.dist_write(0, 0x184, Width::Word, BIT).kick, 0b10);
    assert_eq!(value(vgic.dist_read(0, 0, Width::Word)) >> 31, 1);
    assert!(vgic.needs_flush(1));
    let _ = vgic.flush(1, &mut lrs);
    assert_eq!(lrs.used, 0);
    assert_eq!(value(vgic.dist_read(0, 0, Width::Word)) >> 31, 0);
    assert_eq!(value(vgic.dist_read(0, 0x204, Width::Word)), BIT, "still pending");
}

#[test]
fn the_same_for_a_private_one() {
    let mut vgic = one_spi(false);
    vgic.inject(1, 20);
    let mut lrs = ListRegisters::new(4);
    let _ = vgic.flush(1, &mut lrs);
    assert_eq!(vgic.redist_write(0, 1, 0x1_0180, Width::Word, 1 << 20).kick, 0b10);
    assert_eq!(value(vgic.redist_read(0, 1, 0, Width::Word)), 8);
    assert_eq!(value(vgic.redist_read(0, 0, 0, Width::Word)), 0);
    let _ = vgic.flush(1, &mut lrs);
    assert_eq!((lrs.used, value(vgic.redist_read(0, 1, 0, Width::Word))), (0, 0));
}

#[test]
fn clearing_its_pending_state_arrives_unless_the_guest_was_faster() {
    for is_linked in [false, true] {
        for is_taken in [false, true] {
            let (mut vgic, mut lrs) = in_flight(is_linked);
            let effects = vgic.dist_write(0, 0x284, Width::Word, BIT);
            assert_eq!((effects.kick, effects.deactivate), (0b10, 0));
            if is_taken {
                lrs.lr[0] ^= 3 << 62;
            }
            let flush = vgic.flush(1, &mut lrs);
            assert_eq!(lrs.used, u16::from(is_taken));
            assert_eq!(flush.effects.deactivate != 0, is_linked && !is_taken);
        }
    }
}

#[test]
fn clearing_its_active_state_deactivates_the_twin() {
    for is_linked in [false, true] {
        let (mut vgic, mut lrs) = in_flight(is_linked);
        lrs.lr[0] ^= 3 << 62;
        let effects = vgic.dist_write(0, 0x384, Width::Word, BIT);
        assert_eq!((effects.kick, effects.deactivate), (0b10, 0));
        let flush = vgic.flush(1, &mut lrs);
        assert_eq!(lrs.used, 0);
        assert_eq!(flush.effects.deactivate, if is_linked { 1 << 40 } else { 0 });
    }
}

/// A read waits for exactly one round, and then tells what the guest has made of the interrupt meanwhile.
#[test]
fn reading_its_state_asks_first() {
    let (mut vgic, mut lrs) = in_flight(false);
    lrs.lr[0] ^= 3 << 62;
    assert_eq!(vgic.dist_read(0, 0x304, Width::Word), Read::Retry(0b10));
    assert_eq!(vgic.dist_read(0, 0x304, Width::Word), Read::Retry(0b10), "not yet");
    let _ = vgic.flush(1, &mut lrs);
    assert_eq!(vgic.dist_read(0, 0x304, Width::Word), Read::Value(BIT));
    assert_eq!(vgic.dist_read(0, 0x304, Width::Word), Read::Retry(0b10), "a new read asks anew");
    let _ = vgic.flush(1, &mut lrs);
    assert_eq!(vgic.dist_read(0, 0x204, Width::Word), Read::Retry(0b10), "another register is another question");
    assert_eq!(value(vgic.dist_read(0, 0x104, Width::Word)), 0xffff_ffff, "enables are no question at all");
}

#[test]
fn a_new_route_takes_it_along_and_never_doubles_it() {
    let (mut vgic, mut lrs) = in_flight(false);
    assert_eq!(vgic.dist_write(0, 0x6000 + 8 * 40, Width::Double, 0).kick, 0b10);
    let mut other = ListRegisters::new(4);
    let _ = vgic.flush(0, &mut other);
    assert_eq!(other.used, 0, "vCPU 1 has it still");
    let flush = vgic.flush(1, &mut lrs);
    assert_eq!((flush.effects.kick, lrs.used), (0b01, 0));
    let _ = vgic.flush(0, &mut other);
    assert_eq!(Entry::from_raw(other.lr[0]).intid, 40);
}

/// Active on vCPU 1 and pending again, but routed to vCPU 0 now: vCPU 1's end of interrupt must be heard of.
#[test]
fn what_is_active_elsewhere_is_handed_over_when_it_ends() {
    let (mut vgic, mut lrs) = in_flight(false);
    lrs.lr[0] ^= 3 << 62;
    let _ = vgic.dist_write(0, 0x6000 + 8 * 40, Width::Double, 0);
    let _ = vgic.flush(1, &mut lrs);
    assert_eq!(vgic.inject_spi(40), 0b10, "the holder, not the target");
    let _ = vgic.flush(1, &mut lrs);
    let entry = Entry::from_raw(lrs.lr[0]);
    assert!(entry.active && !entry.pending && entry.eoi);
    lrs.lr[0] &= !(3 << 62);
    assert_eq!(vgic.sync(1, &lrs).kick, 0b01);
    assert!(vgic.needs_flush(0));
}

#[test]
fn a_level_that_stays_high_comes_again_and_one_that_falls_does_not() {
    for stays in [false, true] {
        let mut vgic = one_spi(false);
        assert_eq!(vgic.set_level(33, true), 1);
        assert_eq!(vgic.set_level(33, true), 0, "no news");
        let mut lrs = ListRegisters::new(4);
        let _ = vgic.flush(0, &mut lrs);
        assert!(Entry::from_raw(lrs.lr[0]).eoi, "its end must be heard of");
        lrs.lr[0] ^= 3 << 62;
        let _ = vgic.sync(0, &lrs);
        if !stays {
            assert_eq!(vgic.set_level(33, false), 0);
        }
        let _ = vgic.flush(0, &mut lrs);
        assert_eq!(Entry::from_raw(lrs.lr[0]).eoi, stays);
        lrs.lr[0] &= !(3 << 62);
        let _ = vgic.flush(0, &mut lrs);
        assert_eq!(lrs.used, u16::from(stays));
    }
}

#[test]
fn a_level_that_falls_before_it_is_taken_is_withdrawn() {
    let mut vgic = one_spi(false);
    vgic.set_level(33, true);
    let mut lrs = ListRegisters::new(4);
    let _ = vgic.flush(0, &mut lrs);
    vgic.set_level(33, false);
    assert!(vgic.needs_flush(0));
    let _ = vgic.flush(0, &mut lrs);
    assert_eq!(lrs.used, 0);
}

/// Would miss: an edge that is lost while another is pending or active, a level that stays after it fell.
#[test]
fn a_pulse_is_a_rise_and_a_fall() {
    for trigger in [0, 0b10 << 2] {
        let seen = [false, true].map(|is_short| {
            let mut vgic = one_spi(false);
            let _ = vgic.dist_write(0, 0xc08, Width::Word, trigger);
            let mut lrs = ListRegisters::new(4);
            let pulse = |vgic: &mut Vgic, lrs: &mut ListRegisters| {
                if is_short {
                    vgic.pulse(33);
                } else {
                    vgic.set_level(33, true);
                    vgic.set_level(33, false);
                }
                let _ = vgic.flush(0, lrs);
                (lrs.used, lrs.lr[0] >> 62)
            };
            let pending = [pulse(&mut vgic, &mut lrs), pulse(&mut vgic, &mut lrs)];
            // Taken: active alone.
            lrs.lr[0] ^= if lrs.used == 0 { 0 } else { 3 << 62 };
            (pending, pulse(&mut vgic, &mut lrs))
        });
        assert_eq!(seen[0], seen[1]);
        assert_eq!(seen[0].0[1].0, u16::from(trigger != 0));
    }
    let mut vgic = one_spi(false);
    assert_eq!([7, 31, 64].map(|intid| vgic.pulse(intid)), [0; 3]);
}

/// A vCPU that is turned off without a sync and starts with empty list registers must not leave a twin active for ever.
#[test]
fn list_registers_that_were_never_read_count_as_flushed() {
    let (mut vgic, _) = in_flight(true);
    let mut empty = ListRegisters::new(4);
    assert!(vgic.sync(1, &empty).is_empty());
    assert!(vgic.has_pending(1));
    let _ = vgic.flush(1, &mut empty);
    assert_eq!(Entry::from_raw(empty.lr[0]).physical, Some(77));
}
