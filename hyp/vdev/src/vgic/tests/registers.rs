//! Registers as guests read and write them.

use crate::{
    mmio::Width,
    vgic::{Deactivation, Read, SgiRegister, Vgic},
};

const SGI: u64 = 0x1_0000;

/// Group 1 on, every interrupt in it and enabled, every redistributor awake, as Linux does at boot.
pub(super) fn enable_all(vgic: &mut Vgic) {
    let _ = vgic.dist_write(0, 0, Width::Word, 0x12);
    let _ = vgic.dist_write(0, 0x84, Width::Word, 0xffff_ffff);
    let _ = vgic.dist_write(0, 0x104, Width::Word, 0xffff_ffff);
    for target in 0..vgic.vcpu_count() {
        let _ = vgic.redist_write(0, target, 0x14, Width::Word, 0);
        let _ = vgic.redist_write(0, target, SGI + 0x80, Width::Word, 0xffff_ffff);
        let _ = vgic.redist_write(0, target, SGI + 0x100, Width::Word, 0xffff_ffff);
    }
}

fn word(vgic: &mut Vgic, offset: u64) -> u64 {
    value(vgic.dist_read(0, offset, Width::Word))
}

pub(super) fn value(read: Read) -> u64 {
    match read {
        Read::Value(value) => value,
        Read::Retry(kick) => panic!("nothing is in a list register, yet {kick:#b} is to be kicked"),
    }
}

#[test]
fn identification_is_a_gicv3_with_64_interrupts_and_one_security_state() {
    let mut vgic = Vgic::new(2);
    assert_eq!(word(&mut vgic, 0x0), 0x50);
    assert_eq!(word(&mut vgic, 0x4) & 0x1f, 1);
    assert_eq!(word(&mut vgic, 0x4) >> 10 & 1, 0, "SecurityExtn");
    assert_eq!(word(&mut vgic, 0x4) >> 17 & 1, 0, "LPIS");
    assert_eq!(word(&mut vgic, 0xffe8) >> 4 & 15, 3);
    assert_eq!(value(vgic.redist_read(0, 1, 0xffe8, Width::Word)) >> 4 & 15, 3);
    assert_eq!(value(vgic.redist_read(0, 0, 0x8, Width::Double)), 0);
    assert_eq!(value(vgic.redist_read(0, 1, 0x8, Width::Double)), 1 << 32 | 1 << 8 | 1 << 4);
    assert_eq!(value(vgic.redist_read(0, 1, 0x8, Width::Word)), 1 << 8 | 1 << 4);
    assert_eq!(value(vgic.redist_read(0, 1, 0xc, Width::Word)), 1);
}

#[test]
fn control_keeps_the_group_enables_alone() {
    let mut vgic = Vgic::new(1);
    let _ = vgic.dist_write(0, 0, Width::Word, u64::MAX);
    assert_eq!(word(&mut vgic, 0), 0x53);
    let _ = vgic.dist_write(0, 0, Width::Word, 0);
    assert_eq!(word(&mut vgic, 0), 0x50);
}

#[test]
fn waker_sleeps_and_wakes() {
    let mut vgic = Vgic::new(1);
    assert_eq!(value(vgic.redist_read(0, 0, 0x14, Width::Word)), 6);
    let _ = vgic.redist_write(0, 0, 0x14, Width::Word, 0);
    assert_eq!(value(vgic.redist_read(0, 0, 0x14, Width::Word)), 0);
}

/// The set/clear pairs, and that SPIs and private interrupts do not mix. Would miss nothing of bits 0 and 31.
#[test]
fn set_and_clear_registers_hold_their_own_bits() {
    let mut vgic = Vgic::new(2);
    for (set, clear) in [(0x100, 0x180), (0x200, 0x280), (0x300, 0x380)] {
        let _ = vgic.dist_write(0, set + 4, Width::Word, 0x8000_0001);
        let _ = vgic.redist_write(0, 1, SGI + set, Width::Word, 0x4000_0002);
        for register in [set, clear] {
            assert_eq!(word(&mut vgic, register + 4), 0x8000_0001);
            assert_eq!(word(&mut vgic, register), 0, "the first word is banked in the redistributors");
            assert_eq!(word(&mut vgic, register + 8), 0);
            assert_eq!(value(vgic.redist_read(0, 1, SGI + register, Width::Word)), 0x4000_0002);
            assert_eq!(value(vgic.redist_read(0, 0, SGI + register, Width::Word)), 0);
        }
        let _ = vgic.dist_write(0, clear + 4, Width::Word, 0x8000_0000);
        let _ = vgic.redist_write(0, 1, SGI + clear, Width::Word, 0xffff_ffff);
        assert_eq!(word(&mut vgic, set + 4), 1);
        assert_eq!(value(vgic.redist_read(0, 1, SGI + set, Width::Word)), 0);
    }
}

#[test]
fn priorities_have_five_bits_and_byte_access() {
    let mut vgic = Vgic::new(2);
    let _ = vgic.dist_write(0, 0x424, Width::Word, 0xffa0_0708);
    assert_eq!(word(&mut vgic, 0x424), 0xf8a0_0008);
    let _ = vgic.dist_write(0, 0x43f, Width::Byte, 0x55);
    assert_eq!(value(vgic.dist_read(0, 0x43f, Width::Byte)), 0x50);
    assert_eq!(word(&mut vgic, 0x43c), 0x5000_0000);
    assert_eq!(word(&mut vgic, 0x400), 0, "private ones are in the redistributors");
    let _ = vgic.redist_write(0, 1, SGI + 0x41b, Width::Byte, 0xa0);
    assert_eq!(value(vgic.redist_read(0, 1, SGI + 0x418, Width::Word)), 0xa000_0000);
    assert_eq!(value(vgic.redist_read(0, 0, SGI + 0x418, Width::Word)), 0);
    let _ = vgic.dist_write(0, 0x424, Width::Half, 0xffff);
    assert_eq!(word(&mut vgic, 0x424), 0xf8a0_0008, "half-words are not allowed");
}

#[test]
fn configuration_is_edge_or_level() {
    let mut vgic = Vgic::new(1);
    assert_eq!(value(vgic.redist_read(0, 0, SGI + 0xc00, Width::Word)), 0xaaaa_aaaa, "SGIs are edges");
    let _ = vgic.redist_write(0, 0, SGI + 0xc00, Width::Word, 0);
    assert_eq!(value(vgic.redist_read(0, 0, SGI + 0xc00, Width::Word)), 0xaaaa_aaaa);
    let _ = vgic.redist_write(0, 0, SGI + 0xc04, Width::Word, 0xffff_0000);
    assert_eq!(value(vgic.redist_read(0, 0, SGI + 0xc04, Width::Word)), 0xaaaa_0000);
    let _ = vgic.dist_write(0, 0xc0c, Width::Word, 0x8000_0002);
    assert_eq!(word(&mut vgic, 0xc0c), 0x8000_0002);
    assert_eq!(word(&mut vgic, 0xc08), 0);
}

#[test]
fn routes_are_written_whole_and_by_halves() {
    let mut vgic = Vgic::new(2);
    enable_all(&mut vgic);
    let _ = vgic.dist_write(0, 0x6100, Width::Double, u64::MAX);
    assert_eq!(value(vgic.dist_read(0, 0x6100, Width::Double)), 0xff_80ff_ffff);
    let _ = vgic.dist_write(0, 0x6100, Width::Word, 1);
    let _ = vgic.dist_write(0, 0x6104, Width::Word, 0);
    assert_eq!(value(vgic.dist_read(0, 0x6100, Width::Double)), 1);
    assert_eq!(vgic.inject_spi(32), 0b10);
    let _ = vgic.dist_write(0, 0x6108, Width::Double, 7);
    assert_eq!(vgic.inject_spi(33), 0, "no such vCPU");
    let effects = vgic.dist_write(0, 0x6108, Width::Double, 0);
    assert_eq!(effects.kick, 0b01, "it waited, and goes where it is sent now");
}

#[test]
fn route_to_any_goes_to_the_first_that_is_awake() {
    let mut vgic = Vgic::new(3);
    enable_all(&mut vgic);
    let _ = vgic.redist_write(0, 0, 0x14, Width::Word, 2);
    let _ = vgic.dist_write(0, 0x6100, Width::Double, 1 << 31);
    assert_eq!(vgic.inject_spi(32), 0b010);
}

#[test]
fn disabled_interrupts_and_groups_wait() {
    let mut vgic = Vgic::new(1);
    assert_eq!(vgic.inject(0, 27), 0);
    assert_eq!(vgic.inject_spi(40), 0);
    let _ = vgic.redist_write(0, 0, SGI + 0x80, Width::Word, 1 << 27);
    assert_eq!(vgic.redist_write(0, 0, SGI + 0x100, Width::Word, 1 << 27).kick, 0);
    assert_eq!(vgic.dist_write(0, 0, Width::Word, 1).kick, 0, "the other group");
    assert!(!vgic.needs_flush(0));
    assert_eq!(vgic.dist_write(0, 0, Width::Word, 2).kick, 1);
    assert!(vgic.needs_flush(0));
}

/// Every form of the SGI registers against the definition, for every sender and target list of four vCPUs.
#[test]
fn sgis_reach_those_they_name() {
    for sender in 0..4usize {
        for list in 0..16u64 {
            for (high, expected) in [
                (0, list),
                (1 << 40, 0xf & !(1 << sender)),
                (1 << 44, 0),
                (1 << 16, 0),
                (1 << 32, 0),
                (1 << 48, 0),
                (1 << 44 | 1 << 40, 0xf & !(1 << sender)),
            ] {
                let mut vgic = Vgic::new(4);
                enable_all(&mut vgic);
                let kick = vgic.sgi(sender, SgiRegister::Sgi1, high | 9 << 24 | list);
                assert_eq!(u64::from(kick), expected, "{high:#x}");
                for target in 0..4 {
                    let pending = value(vgic.redist_read(0, target, SGI + 0x200, Width::Word));
                    assert_eq!(pending, (expected >> target & 1) << 9);
                }
            }
        }
    }
}

#[test]
fn group_0_sgi_registers_reach_group_0_alone() {
    for register in [SgiRegister::Sgi0, SgiRegister::Asgi1] {
        let mut vgic = Vgic::new(1);
        enable_all(&mut vgic);
        assert_eq!(vgic.sgi(0, register, 1), 0);
        let _ = vgic.dist_write(0, 0, Width::Word, 3);
        let _ = vgic.redist_write(0, 0, SGI + 0x80, Width::Word, 0xffff_fffe);
        assert_eq!(vgic.sgi(0, register, 1), 1);
        assert_eq!(vgic.sgi(0, SgiRegister::Sgi1, 1), 1);
    }
}

/// A linked interrupt that the guest forgets about must not stay active in hardware.
#[test]
fn clearing_a_linked_interrupt_deactivates_its_twin() {
    let mut vgic = super::lr::one_spi(true);
    vgic.inject_spi(40);
    let effects = vgic.dist_write(0, 0x284, Width::Word, 1 << 8);
    let twins: std::vec::Vec<_> = vgic.deactivations(effects).collect();
    assert_eq!(twins, [Deactivation { vcpu: 0, physical: 77 }]);
    assert!(!vgic.has_pending(0));

    vgic.inject(1, 27);
    let effects = vgic.redist_write(0, 1, SGI + 0x280, Width::Word, 1 << 27);
    let twins: std::vec::Vec<_> = vgic.deactivations(effects).collect();
    assert_eq!(twins, [Deactivation { vcpu: 1, physical: 27 }]);
}

#[test]
fn reset_names_what_is_still_active_and_keeps_the_links() {
    let mut vgic = super::lr::one_spi(true);
    vgic.inject_spi(40);
    vgic.inject(1, 30);
    vgic.inject(1, 27);
    let mut lrs = crate::vgic::ListRegisters::new(4);
    let _ = vgic.flush(1, &mut lrs);
    let effects = vgic.reset();
    let of = |vcpu| vgic.reset_deactivations(&effects, vcpu).map(|d| d.physical).collect::<std::vec::Vec<_>>();
    assert_eq!((of(0), of(1)), (std::vec![77], std::vec![27, 30]));
    assert!(!vgic.needs_flush(0) && !vgic.needs_flush(1));
    enable_all(&mut vgic);
    vgic.inject_spi(40);
    let _ = vgic.flush(0, &mut lrs);
    assert_eq!(crate::vgic::Entry::from_raw(lrs.lr[0]).physical, Some(77));
}

#[test]
fn links_are_checked() {
    let mut vgic = Vgic::new(1);
    assert!(vgic.link(15, 40).is_err() && vgic.link(64, 40).is_err());
    assert!(vgic.link(40, 15).is_err() && vgic.link(40, 1020).is_err() && vgic.link(40, 1 << 20).is_err());
    assert!(vgic.link(63, 1019).is_ok());
}

/// Any access at all: no panic, and nothing read past the width. Every offset where a register is, every width.
#[test]
fn no_access_panics() {
    let mut vgic = Vgic::new(8);
    for offset in (0..0x1000u64).chain(0x60f0..0x6210).chain(0xff00..0x1_1000).chain([!0, !7, 1 << 40]) {
        for width in Width::ALL {
            for vcpu in [0, 7, 8, usize::MAX] {
                let _ = vgic.dist_write(vcpu, offset, width, u64::MAX);
                let _ = vgic.redist_write(vcpu, vcpu, offset, width, u64::MAX);
                for read in [vgic.dist_read(vcpu, offset, width), vgic.redist_read(0, vcpu, offset, width)] {
                    assert!(matches!(read, Read::Value(value) if value <= width.mask()));
                }
            }
        }
    }
    for intid in [0, 31, 32, 63, 64, 1023, u32::MAX] {
        vgic.inject(9, intid);
        vgic.set_level(intid, true);
        let _ = vgic.deactivate(9, intid);
    }
}
