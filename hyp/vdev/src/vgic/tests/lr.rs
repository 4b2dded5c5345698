//! Golden words of ICH_LR<n>_EL2, and every state of it through sync.

use crate::vgic::{Entry, ListRegisters, Vgic};

const ENTRY: Entry =
    Entry { intid: 36, pending: true, active: false, physical: None, eoi: false, group1: true, priority: 0xa0 };

/// Words put together by hand from IHI 0069 12.4.9; would miss a field that is off by a bit in both directions.
#[test]
fn golden_words() {
    assert_eq!(ENTRY.to_raw(), 0x50a0_0000_0000_0024);
    assert_eq!(Entry { eoi: true, ..ENTRY }.to_raw(), 0x50a0_0200_0000_0024);
    assert_eq!(Entry { physical: Some(0x123), ..ENTRY }.to_raw(), 0x70a0_0123_0000_0024);
    assert_eq!(Entry { pending: false, active: true, group1: false, ..ENTRY }.to_raw(), 0x80a0_0000_0000_0024);
    assert_eq!(Entry { active: true, priority: 0, ..ENTRY }.to_raw(), 0xd000_0000_0000_0024);
}

#[test]
fn every_entry_survives_its_encoding() {
    for bits in 0..32u32 {
        let is = |n: u32| bits >> n & 1 == 1;
        let physical = is(0).then_some(1019);
        let entry = Entry {
            intid: 63,
            pending: is(1),
            active: is(2),
            physical,
            eoi: is(3) && physical.is_none(),
            group1: is(4),
            priority: 0xf8,
        };
        assert_eq!(Entry::from_raw(entry.to_raw()), entry);
    }
}

/// A GIC with one vCPU, group 1 on, and INTID 40 enabled, in group 1, linked when asked.
pub(super) fn one_spi(is_linked: bool) -> Vgic {
    let mut vgic = Vgic::new(2);
    if is_linked {
        vgic.link(40, 77).expect("in range");
    }
    super::registers::enable_all(&mut vgic);
    vgic
}

/// What the guest may have made of a pending interrupt between flush and sync, for a linked one and for another; what
/// must be left of it; and that a second sync changes nothing.
#[test]
fn sync_takes_each_state_back_once() {
    for is_linked in [false, true] {
        for state in 0..4u64 {
            let mut vgic = one_spi(is_linked);
            assert_eq!(vgic.inject_spi(40), 1);
            let mut lrs = ListRegisters::new(4);
            let flush = vgic.flush(0, &mut lrs);
            assert_eq!((flush.write, flush.hcr, lrs.used), (1, 1, 1));
            let entry = Entry::from_raw(lrs.lr[0]);
            assert_eq!((entry.intid, entry.pending, entry.active), (40, true, false));
            assert_eq!(entry.physical, is_linked.then_some(77));
            lrs.lr[0] = (lrs.lr[0] & !(3 << 62)) | state << 62;
            for _ in 0..2 {
                let effects = vgic.sync(0, &lrs);
                assert!(effects.is_empty(), "the hardware deactivates a linked one by itself");
                assert_eq!(vgic.has_pending(0), state & 1 == 1);
            }
            let mut lrs = ListRegisters::new(4);
            let _ = vgic.flush(0, &mut lrs);
            let again = Entry::from_raw(lrs.lr[0]);
            match state {
                0 => assert_eq!(lrs.used, 0),
                1 => assert!(again.pending && !again.active && again.physical == is_linked.then_some(77)),
                2 => assert!(!again.pending && again.active && again.physical == is_linked.then_some(77)),
                // Both at once is not allowed for a linked one; a level-sensitive one waits for its end, too.
                _ => assert!(!again.pending && again.active && again.physical.is_none() && again.eoi),
            }
        }
    }
}

#[test]
fn an_edge_interrupt_is_pending_and_active_in_one_register() {
    let mut vgic = one_spi(false);
    let _ = vgic.dist_write(0, 0xc08, crate::mmio::Width::Word, 0xaaaa_aaaa);
    let mut lrs = ListRegisters::new(4);
    vgic.inject_spi(40);
    assert_eq!(vgic.flush(0, &mut lrs).write, 1);
    lrs.lr[0] ^= 3 << 62;
    assert_eq!(vgic.inject_spi(40), 1, "it runs: it must learn of the second one");
    assert_eq!(vgic.flush(0, &mut lrs).write, 1);
    let entry = Entry::from_raw(lrs.lr[0]);
    assert!(entry.pending && entry.active && !entry.eoi);
}

/// With one interrupt more than list registers, the least urgent waits and the guest's taking all others calls back.
#[test]
fn the_most_urgent_come_first_and_the_rest_later() {
    let mut vgic = one_spi(false);
    for spi in 0..8u64 {
        let _ = vgic.dist_write(0, 0x420 + spi, crate::mmio::Width::Byte, 0xf8 - spi * 8);
        vgic.inject_spi(32 + u32::try_from(spi).expect("small"));
    }
    let mut lrs = ListRegisters::new(3);
    let flush = vgic.flush(0, &mut lrs);
    assert_eq!(flush.hcr, super::super::hcr::EN | super::super::hcr::NPIE);
    let shown: std::vec::Vec<_> = lrs.lr[..3].iter().map(|&raw| Entry::from_raw(raw).intid).collect();
    assert_eq!(shown, [37, 38, 39]);
}

#[test]
fn a_list_register_that_is_no_longer_used_is_cleared() {
    let mut vgic = one_spi(false);
    vgic.inject_spi(40);
    vgic.inject_spi(41);
    let mut lrs = ListRegisters::new(4);
    assert_eq!(vgic.flush(0, &mut lrs).write, 0b11);
    lrs.lr[0] = 0;
    lrs.lr[1] &= !(3 << 62);
    let _ = vgic.sync(0, &lrs);
    assert!(vgic.needs_flush(0));
    assert_eq!(vgic.flush(0, &mut lrs).write, 0b11);
    assert_eq!((lrs.used, lrs.lr), (0, [0; 16]));
    assert!(!vgic.needs_flush(0));
}

/// Active in hardware and made pending again by the guest: one register cannot hold both, and the end must be heard of,
/// as the twin then stays active for the second one.
#[test]
fn a_linked_edge_waits_for_its_end_before_it_is_pending_again() {
    let mut vgic = one_spi(true);
    let _ = vgic.dist_write(0, 0xc08, crate::mmio::Width::Word, 0xaaaa_aaaa);
    let mut lrs = ListRegisters::new(4);
    vgic.inject_spi(40);
    let _ = vgic.flush(0, &mut lrs);
    lrs.lr[0] ^= 3 << 62;
    let _ = vgic.sync(0, &lrs);
    let _ = vgic.dist_write(0, 0x204, crate::mmio::Width::Word, 1 << 8);
    let _ = vgic.flush(0, &mut lrs);
    let entry = Entry::from_raw(lrs.lr[0]);
    assert!(entry.active && !entry.pending && entry.eoi && entry.physical.is_none());
    lrs.lr[0] &= !(3 << 62);
    assert_eq!(vgic.flush(0, &mut lrs).effects.deactivate, 0);
    let entry = Entry::from_raw(lrs.lr[0]);
    assert!(entry.pending && entry.physical == Some(77));
}
