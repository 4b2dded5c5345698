//! Configuration space as a guest's kernel walks it.

use std::vec::Vec;

use crate::{
    mmio::Width,
    vpci::{Bar, BarError, BarWidth, Effect, FunctionConfig, VirtualFunction, Vpci},
};
use bulkhead_core::addr::{Ipa, PhysAddr};

/// A physical function's configuration space, by hand.
pub(super) struct Physical(pub(super) [u32; 1024]);

impl FunctionConfig for Physical {
    fn read32(&self, _: usize, offset: u16) -> u32 {
        assert_eq!(offset % 4, 0);
        self.0[usize::from(offset) / 4]
    }
}

/// An e1000e: power management at 0xc8, MSI at 0xd0, PCI Express (v2 here, so that all of it is tried) at 0x70 before
/// MSI-X at 0xb8, and extended capabilities.
pub(super) fn nic() -> Physical {
    let mut config = [0; 1024];
    for (offset, value) in [
        (0x00, 0x10d3_8086),
        (0x04, 0x0018_0007),
        (0x08, 0x0200_0000),
        (0x0c, 0x0080_4010),
        (0x10, 0xfea0_0000),
        (0x18, 0xc001),
        (0x2c, 0xa01f_8086),
        (0x30, 0xfeb0_0000),
        (0x34, 0xc8),
        (0x3c, 0x010b),
        (0xc8, 0xc823_d001),
        (0xd0, 0x0080_7005),
        (0x70, 0x0002_b810),
        (0x74, 0x1000_8cc1),
        (0x78, 0x0010_2810),
        (0x7c, 0x0004_6411),
        (0x80, 0x1011_0000),
        (0x94, 0x0000_0012),
        (0x98, 0x0000_0005),
        (0xb8, 0x8004_0011),
        (0x100, 0x1401_0001),
    ] {
        config[offset / 4] = value;
    }
    Physical(config)
}

/// A virtio function: common, notify, ISR, device and pci-cfg windows, MSI-X first.
fn virtio() -> Physical {
    let mut config = [0; 1024];
    for (offset, value) in [
        (0x00, 0x1041_1af4),
        (0x04, 0x0010_0000),
        (0x34, 0x98),
        (0x98, 0x0004_8411),
        (0x84, 0x0514_7009),
        (0x94, 0x1234_5678),
        (0x70, 0x0214_6009),
        (0x74, 0x0000_0004),
        (0x60, 0x0110_0009),
        (0x6c, 0x0000_1000),
    ] {
        config[offset / 4] = value;
    }
    Physical(config)
}

pub(super) fn bar(base: u64, size: u64, width: BarWidth) -> Option<Bar> {
    Some(Bar::new(PhysAddr::new(base), size, width, width == BarWidth::Bits64).expect("well-formed"))
}

/// A bridge with the NIC as device 1: BAR0 128 KiB of 32 bits, BAR2/3 a 64-bit one of 1 KiB.
fn bridge() -> (Vpci, Physical) {
    let config = nic();
    let mut bars = [None; 6];
    bars[0] = bar(0x1_fea0_0000, 0x2_0000, BarWidth::Bits32);
    bars[2] = bar(0x80_0000_1000, 0x400, BarWidth::Bits64);
    let mut vpci = Vpci::new();
    assert_eq!(vpci.add(VirtualFunction::probe(&config, 0, bars, 2)), Ok(0));
    (vpci, config)
}

const NIC: u64 = 1 << 15;

fn read(vpci: &Vpci, config: &Physical, offset: u64) -> u64 {
    vpci.read(NIC + offset, Width::Word, config)
}

fn write(vpci: &mut Vpci, config: &Physical, offset: u64, width: Width, value: u64) -> Vec<Effect> {
    let mut effects = Vec::new();
    vpci.write(NIC + offset, width, value, config, |effect| effects.push(effect));
    effects
}

#[test]
fn header_is_the_functions_own_without_what_is_hidden() {
    let (vpci, config) = bridge();
    assert_eq!(read(&vpci, &config, 0x00), 0x10d3_8086);
    assert_eq!(read(&vpci, &config, 0x04), 0x0018_0000, "no command bit, a list, INTx status");
    assert_eq!(read(&vpci, &config, 0x08), 0x0200_0000);
    assert_eq!(read(&vpci, &config, 0x0c), 0, "type 0, one function");
    assert_eq!(read(&vpci, &config, 0x10), 0, "32 bits, not prefetchable");
    assert_eq!(read(&vpci, &config, 0x18), 0b1100, "64 bits, prefetchable");
    assert_eq!(read(&vpci, &config, 0x20), 0);
    assert_eq!(read(&vpci, &config, 0x2c), 0xa01f_8086);
    assert_eq!(read(&vpci, &config, 0x30), 0, "no ROM");
    assert_eq!(read(&vpci, &config, 0x3c), 0x0200, "the virtual pin");
    assert_eq!(vpci.read(NIC + 2, Width::Half, &config), 0x10d3);
    assert_eq!(vpci.read(NIC + 0xb, Width::Byte, &config), 2);
}

#[test]
fn everything_else_is_absent() {
    let (mut vpci, config) = bridge();
    for offset in [0, NIC + 0x1000, NIC + 0x7000, 2 << 15, 31 << 15, 0x10_0000, !3] {
        assert_eq!(vpci.read(offset, Width::Word, &config), 0xffff_ffff);
        vpci.write(offset, Width::Word, 0xffff_ffff, &config, |effect| panic!("{effect:?}"));
    }
    assert_eq!(vpci.read(NIC + 1, Width::Half, &config), 0xffff);
    assert_eq!(vpci.read(NIC, Width::Double, &config), u64::MAX);
}

#[test]
fn of_the_capabilities_pci_express_is_left_as_an_integrated_endpoint() {
    let (vpci, config) = bridge();
    assert_eq!(read(&vpci, &config, 0x34), 0x70);
    assert_eq!(read(&vpci, &config, 0x70), 0x0092_0010, "type 9, the end of the list");
    assert_eq!(read(&vpci, &config, 0x74), 0x1000_8cc1);
    assert_eq!(read(&vpci, &config, 0x78), 0x0010_2810);
    assert_eq!((read(&vpci, &config, 0x7c), read(&vpci, &config, 0x80)), (0, 0), "no link");
    assert_eq!((read(&vpci, &config, 0x94), read(&vpci, &config, 0x98)), (0x12, 5));
    for hidden in [0xb8, 0xc8, 0xd0, 0x40, 0xfc, 0x100, 0xffc] {
        assert_eq!(read(&vpci, &config, hidden), 0, "{hidden:#x}");
    }
}

#[test]
fn virtio_windows_are_shown_but_the_one_into_the_bars() {
    let config = virtio();
    let mut vpci = Vpci::new();
    let function = VirtualFunction::probe(&config, 0, [None; 6], 1);
    assert_eq!(vpci.add(function), Ok(0));
    assert_eq!(read(&vpci, &config, 0x34), 0x70);
    assert_eq!(read(&vpci, &config, 0x70), 0x0214_6009);
    assert_eq!(read(&vpci, &config, 0x74), 4);
    assert_eq!(read(&vpci, &config, 0x60), 0x0110_0009);
    assert_eq!(read(&vpci, &config, 0x6c), 0x1000);
    assert_eq!((read(&vpci, &config, 0x84), read(&vpci, &config, 0x94), read(&vpci, &config, 0x98)), (0, 0, 0));
}

#[test]
fn a_capability_list_that_loops_ends() {
    let mut config = nic();
    config.0[0x70 / 4] = 0x0002_7010;
    config.0[0x34 / 4] = 0x70;
    let function = VirtualFunction::probe(&config, 0, [None; 6], 0);
    assert_eq!(function.capabilities.len(), 1);
    config.0[0x70 / 4] = u32::MAX;
    assert!(VirtualFunction::probe(&config, 0, [None; 6], 0).capabilities.is_empty());
}

/// Linux's way: write ones, read the mask, write the old value back; by whole registers and by bytes.
#[test]
fn sizing_shows_sizes_of_at_least_a_page() {
    let (mut vpci, config) = bridge();
    for (offset, seen) in
        [(0x10, 0xfffe_0000), (0x18, 0xffff_f00c), (0x1c, 0xffff_ffff), (0x14, 0), (0x20, 0), (0x30, 0)]
    {
        assert_eq!(write(&mut vpci, &config, offset, Width::Word, 0xffff_ffff), []);
        assert_eq!(read(&vpci, &config, offset), seen, "{offset:#x}");
        write(&mut vpci, &config, offset, Width::Word, 0);
        for byte in 0..4 {
            write(&mut vpci, &config, offset + byte, Width::Byte, 0xff);
        }
        assert_eq!(read(&vpci, &config, offset), seen, "{offset:#x}");
    }
}

#[test]
fn a_bar_is_mapped_while_decoded_and_moves_with_its_register() {
    let (mut vpci, config) = bridge();
    let map =
        |ipa, phys, size_bytes| Effect::Map { function: 0, ipa: Ipa::new(ipa), phys: PhysAddr::new(phys), size_bytes };
    let unmap = |ipa, size_bytes| Effect::Unmap { function: 0, ipa: Ipa::new(ipa), size_bytes };
    assert_eq!(write(&mut vpci, &config, 0x10, Width::Word, 0x2000_0000), []);
    assert_eq!(write(&mut vpci, &config, 0x18, Width::Word, 0x2004_0000), []);
    assert_eq!(
        write(&mut vpci, &config, 0x04, Width::Half, 0x6),
        [
            map(0x2000_0000, 0x1_fea0_0000, 0x2_0000),
            map(0x2004_0000, 0x80_0000_1000, 0x1000),
            Effect::BusMaster { function: 0, is_on: true }
        ]
    );
    assert!(vpci.is_bus_master(0));
    assert_eq!(
        write(&mut vpci, &config, 0x10, Width::Word, 0x3ffe_0000),
        [unmap(0x2000_0000, 0x2_0000), map(0x3ffe_0000, 0x1_fea0_0000, 0x2_0000)]
    );
    assert_eq!(write(&mut vpci, &config, 0x1c, Width::Word, 1), [unmap(0x2004_0000, 0x1000)], "above the window");
    assert_eq!(write(&mut vpci, &config, 0x10, Width::Word, 0x4000_0000), [unmap(0x3ffe_0000, 0x2_0000)], "onto RAM");
    assert_eq!(write(&mut vpci, &config, 0x1c, Width::Word, 0), [map(0x2004_0000, 0x80_0000_1000, 0x1000)]);
    assert_eq!(
        write(&mut vpci, &config, 0x04, Width::Word, 0x400),
        [
            Effect::BusMaster { function: 0, is_on: false },
            unmap(0x2004_0000, 0x1000),
            Effect::IntxDisable { function: 0, is_disabled: true }
        ]
    );
    assert_eq!(read(&vpci, &config, 0x04) & 0xffff, 0x400);
    assert_eq!(
        write(&mut vpci, &config, 0x04, Width::Half, 0xf9f9 & !0x400),
        [Effect::IntxDisable { function: 0, is_disabled: false }]
    );
    assert_eq!(read(&vpci, &config, 0x04) & 0xffff, 0, "other command bits do not stick");
}

/// Rule 20's device model: one of two that overlap is mapped, and the other when the first is gone.
#[test]
fn of_two_that_overlap_one_is_mapped() {
    let (mut vpci, config) = bridge();
    write(&mut vpci, &config, 0x10, Width::Word, 0x2000_0000);
    write(&mut vpci, &config, 0x18, Width::Word, 0x2000_1000);
    let effects = write(&mut vpci, &config, 0x04, Width::Half, 2);
    assert_eq!(effects.len(), 1);
    assert!(matches!(effects[0], Effect::Map { size_bytes: 0x2_0000, .. }));
    let effects = write(&mut vpci, &config, 0x10, Width::Word, 0);
    assert!(matches!(
        effects[..],
        [Effect::Unmap { size_bytes: 0x2_0000, .. }, Effect::Map { size_bytes: 0x1000, .. }]
    ));
}

#[test]
fn function_level_reset_is_passed_on_by_those_that_have_it() {
    for is_capable in [true, false] {
        let (mut vpci, mut config) = bridge();
        if !is_capable {
            config.0[0x74 / 4] = 0;
        }
        write(&mut vpci, &config, 0x10, Width::Word, 0x2000_0000);
        write(&mut vpci, &config, 0x04, Width::Half, 6);
        assert_eq!(write(&mut vpci, &config, 0x78, Width::Half, 0x2810), [], "no reset without its bit");
        let effects = write(&mut vpci, &config, 0x79, Width::Byte, 0x80);
        if is_capable {
            let unmap = Effect::Unmap { function: 0, ipa: Ipa::new(0x2000_0000), size_bytes: 0x2_0000 };
            let off = Effect::BusMaster { function: 0, is_on: false };
            assert_eq!(effects, [off, unmap, Effect::FunctionReset { function: 0 }]);
            assert_eq!((read(&vpci, &config, 0x04) & 0xffff, read(&vpci, &config, 0x10)), (0, 0));
        } else {
            assert_eq!(effects, []);
        }
    }
}

#[test]
fn reset_takes_everything_away() {
    let (mut vpci, config) = bridge();
    write(&mut vpci, &config, 0x10, Width::Word, 0x2000_0000);
    write(&mut vpci, &config, 0x3c, Width::Byte, 0x55);
    write(&mut vpci, &config, 0x04, Width::Half, 6);
    assert_eq!(read(&vpci, &config, 0x3c), 0x0255);
    let mut effects = Vec::new();
    vpci.reset(|effect| effects.push(effect));
    assert_eq!(effects[0], Effect::BusMaster { function: 0, is_on: false });
    assert!(matches!(effects[1], Effect::Unmap { .. }));
    assert_eq!(
        (read(&vpci, &config, 0x04) & 0xffff, read(&vpci, &config, 0x10), read(&vpci, &config, 0x3c)),
        (0, 0, 0x0200)
    );
}

#[test]
fn bars_that_cannot_be_isolated_are_refused() {
    let new = |base, size| Bar::new(PhysAddr::new(base), size, BarWidth::Bits32, false);
    assert_eq!(new(0x1000, 0), Err(BarError::Size(0)));
    assert_eq!(new(0x1000, 8), Err(BarError::Size(8)));
    assert_eq!(new(0x1000, 0x3000), Err(BarError::Size(0x3000)));
    assert_eq!(new(0x1100, 0x100), Err(BarError::Base(0x1100)), "it would take its page's other half along");
    assert_eq!(new(0x1000, 0x2000), Err(BarError::Base(0x1000)));
    assert_eq!(new(0, 1 << 63).map(Bar::size_bytes), Ok(1 << 63));
    assert_eq!(new(0x1000, 0x100).map(Bar::size_bytes), Ok(0x1000));
}

#[test]
fn the_ninth_function_has_no_place() {
    let config = nic();
    let mut vpci = Vpci::new();
    for place in 0..8 {
        assert_eq!(vpci.add(VirtualFunction::probe(&config, place, [None; 6], 1)), Ok(place));
    }
    assert!(vpci.add(VirtualFunction::probe(&config, 8, [None; 6], 1)).is_err());
    assert_eq!(vpci.read(8 << 15, Width::Half, &config), 0x8086);
    assert_eq!(vpci.read(9 << 15, Width::Half, &config), 0xffff);
}
