//! Tests of enumeration on a fake segment: order, addresses, buses, groups, resets.

use std::{vec, vec::Vec};

use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{
    BarKind, ConfigSpace, DeviceFault, FunctionReset, MsixTable, PciDevices, PciError, Reset, ResetStep, bridge_above,
    enumerate, find, find_capability, find_extended_capability, open_path, registers as reg, restore, root_pin,
    sample::{FakeBus, Function, e1000e, virtio},
    swizzle,
};
use crate::{
    addr::{AddrRange, PAGE_SIZE, PhysAddr},
    ids::PciFunction,
    machine::{PciHost, Window},
};

fn window(pci_base: u64, cpu: u64, size_bytes: u64) -> Option<Window> {
    let cpu = AddrRange::new(PhysAddr::new(cpu), size_bytes)?;
    Some(Window { pci_base, cpu, is_prefetchable: false })
}

/// As QEMU's, but with CPU addresses unlike PCI addresses.
fn host() -> PciHost {
    PciHost {
        segment: 0,
        ecam: AddrRange::new(PhysAddr::new(0x40_1000_0000), 0x1000_0000).expect("a range"),
        first_bus: 0,
        last_bus: 255,
        mem32: window(0x1000_0000, 0x5_1000_0000, 0x2eff_0000),
        mem64: window(0x80_0000_0000, 0x90_0000_0000, 0x80_0000_0000),
        stream_mask: u16::MAX,
        streams: heapless::Vec::new(),
        intx_mask: (0, 0),
        intx: heapless::Vec::new(),
        is_coherent: true,
    }
}

fn at(bus: u8, device: u8, function: u8) -> PciFunction {
    PciFunction::new(0, bus, device, function).expect("a function")
}

fn found(root: Vec<Function>) -> (FakeBus, PciDevices) {
    let mut bus = FakeBus { root };
    let mut devices = PciDevices::new();
    enumerate(&mut bus, &host(), &mut devices).expect("enumerated");
    (bus, devices)
}

/// Every BAR in its window, on its size, in pages of its own, and in the registers.
fn check_addresses(bus: &FakeBus, devices: &PciDevices) -> Vec<AddrRange<PhysAddr>> {
    let mut pages: Vec<AddrRange<PhysAddr>> = vec![];
    for device in devices {
        for (number, bar) in device.memory_bars() {
            let Some(range) = bar.pages() else { continue };
            let window = if bar.pci_address >> 32 == 0 { host().mem32 } else { host().mem64 }.expect("a window");
            assert!(window.cpu.contains_range(range), "{bar:?} outside of its window");
            assert_eq!(bar.cpu.as_u64() - window.cpu.start().as_u64(), bar.pci_address - window.pci_base);
            assert!(bar.pci_address % bar.size_bytes.max(PAGE_SIZE) == 0, "{bar:?} misaligned");
            assert!(!pages.iter().any(|other| other.overlaps(range)), "{bar:?} shares a page");
            pages.push(range);
            let offset = reg::BAR0 + u16::try_from(number).expect("small") * 4;
            let low = u64::from(bus.read32(device.function, offset) & !0xf);
            let is_64bit = matches!(bar.kind, BarKind::Memory64 { .. });
            let high = if is_64bit { u64::from(bus.read32(device.function, offset + 4)) } else { 0 };
            assert_eq!(high << 32 | low, bar.pci_address, "register of {bar:?}");
        }
    }
    pages
}

/// The default machine: what EL2 tells VMs about their NICs.
#[test]
fn describes_qemus_nics() {
    let (bus, devices) = found(vec![e1000e(1), virtio(2)]);
    assert_eq!(devices.len(), 2);
    let nic = find(&devices, at(0, 1, 0)).expect("found");
    assert_eq!((nic.vendor, nic.device, nic.class, nic.interrupt_pin), (0x8086, 0x10d3, 0x02_0000, Some(1)));
    let sizes: Vec<_> = nic.bars.iter().map(|bar| bar.map(|bar| bar.size_bytes)).collect();
    assert_eq!(sizes, [Some(0x2_0000), Some(0x2_0000), Some(32), Some(0x4000), None, None]);
    let io = nic.bars[2].expect("I/O");
    assert_eq!((io.kind, io.pci_address, io.pages()), (BarKind::Io, 0, None));
    let caps = nic.capabilities;
    assert_eq!((caps.express, caps.msi, caps.msix, caps.reset), (Some(0xe0), Some(0xd0), Some(0xa0), None));
    let tables = MsixTable { vectors: 5, table_bar: 3, table_offset: 0, pending_bar: 3, pending_offset: 0x2000 };
    assert_eq!(caps.msix_tables, Some(tables));
    let net = find(&devices, at(0, 2, 0)).expect("found");
    assert_eq!(net.bars[4].expect("BAR 4").kind, BarKind::Memory64 { is_prefetchable: true });
    assert!(net.bars[4].expect("BAR 4").pci_address >= 0x80_0000_0000);
    assert_ne!(nic.group, net.group);
    assert!(nic.is_assignable() && net.is_assignable());
    assert_eq!(check_addresses(&bus, &devices).len(), 5);
}

/// The fake panics where something is programmed while a device of the root bus masters; here: nothing is left on.
#[test]
fn leaves_nothing_mastering_or_decoding() {
    let port = Function::root_port(3, true, vec![e1000e(0)]);
    let (mut bus, devices) = found(vec![e1000e(1), port, virtio(2)]);
    for device in &devices {
        let command = bus.read16(device.function, reg::COMMAND);
        assert_eq!(command & 7, 0, "{}", device.function);
        let rom = if device.bridge.is_some() { reg::BRIDGE_ROM } else { reg::ROM };
        assert_eq!(bus.read32(device.function, rom) & 1, 0, "ROM of {}", device.function);
    }
    // Phantom functions, which firmware may have turned on, are off: they would send under ids that nobody owns.
    let phantom = Function::endpoint(1, 0, 0x1_1234).flr(0xa0, 0x0002).with(0xa8, 0x2a10, 0xffff);
    let (quiet, _) = found(vec![phantom]);
    assert_eq!(quiet.read32(at(0, 1, 0), 0xa8), 0x2810);
    let nic = at(1, 0, 0);
    open_path(&mut bus, &devices, nic);
    assert_eq!(bus.read16(at(0, 3, 0), reg::COMMAND) & 7, 6);
    assert_eq!(bus.read16(nic, reg::COMMAND) & 7, 0);
}

#[test]
fn numbers_buses_and_programs_windows() {
    let switch =
        Function::bridge(0, 0, vec![Function::bridge(0, 0, vec![virtio(0)]), Function::bridge(1, 0, vec![e1000e(0)])]);
    let (bus, devices) =
        found(vec![Function::root_port(1, true, vec![switch]), Function::root_port(2, true, vec![]), e1000e(3)]);
    let buses = |function| {
        let device = find(&devices, function).expect("found");
        let buses = device.bridge.expect("a bridge");
        assert_eq!(
            bus.read32(function, reg::BUSES).to_le_bytes()[..3],
            [function.bus(), buses.secondary, buses.subordinate]
        );
        (buses.secondary, buses.subordinate)
    };
    assert_eq!(buses(at(0, 1, 0)), (1, 4));
    assert_eq!(buses(at(1, 0, 0)), (2, 4));
    assert_eq!(buses(at(2, 0, 0)), (3, 3));
    assert_eq!(buses(at(2, 1, 0)), (4, 4));
    assert_eq!(buses(at(0, 2, 0)), (5, 5));
    assert!(find(&devices, at(4, 0, 0)).is_some());
    assert_eq!(bridge_above(&devices, at(4, 0, 0)).expect("a bridge").function, at(2, 1, 0));
    check_addresses(&bus, &devices);
    // Each bridge's windows hold what is behind it, and windows of bridges side by side do not meet.
    let memory = |function| {
        let word = bus.read32(function, reg::MEMORY_WINDOW);
        (u64::from(word & 0xfff0) << 16, u64::from(word >> 16 & 0xfff0) << 16 | 0xf_ffff)
    };
    for device in devices.iter().filter(|device| device.function.bus() != 0) {
        for (_, bar) in device.memory_bars() {
            let mut below = device.function;
            while let Some(bridge) = bridge_above(&devices, below) {
                let (mut base, mut limit) = memory(bridge.function);
                if bar.pci_address >> 32 != 0 {
                    let word = bus.read32(bridge.function, reg::PREFETCH_WINDOW);
                    let high = |offset| u64::from(bus.read32(bridge.function, offset)) << 32;
                    base = high(reg::PREFETCH_BASE_HIGH) | u64::from(word & 0xfff0) << 16;
                    limit = high(reg::PREFETCH_LIMIT_HIGH) | u64::from(word >> 16 & 0xfff0) << 16 | 0xf_ffff;
                }
                assert!(
                    base <= bar.pci_address && bar.pci_address + bar.size_bytes - 1 <= limit,
                    "{bar:?} behind {}",
                    bridge.function
                );
                below = bridge.function;
            }
        }
    }
    assert!(memory(at(2, 0, 0)).1 < memory(at(2, 1, 0)).0);
    let (base, limit) = memory(at(0, 2, 0));
    assert!(base > limit, "an empty bridge forwards nothing");
}

#[test]
fn groups_what_cannot_be_kept_apart() {
    let two = || vec![Function::endpoint(0, 0, 0x1_1234).multi(), Function::endpoint(0, 1, 0x1_1234)];
    let conventional = Function::bridge(4, 0, vec![virtio(1), virtio(2)]);
    let isolated = Function::root_port(2, true, vec![e1000e(0)]);
    let shared = Function::root_port(3, false, vec![e1000e(0)]);
    let apart = vec![Function::endpoint(6, 0, 0x1_1234), Function::endpoint(7, 0, 0x1_1234)];
    let root = two().into_iter().chain([isolated, shared, conventional]).chain(apart).collect();
    let (bus, devices) = found(root);
    let group = |function| find(&devices, function).expect("found").group;
    assert_eq!(group(at(0, 0, 0)), group(at(0, 0, 1)), "functions of one device without ACS");
    assert_eq!(group(at(1, 0, 0)), at(1, 0, 0).routing_id(), "behind ACS");
    assert_ne!(group(at(1, 0, 0)), group(at(0, 2, 0)));
    assert_eq!(group(at(2, 0, 0)), group(at(0, 3, 0)), "behind a port without ACS: one with it");
    assert_eq!(group(at(3, 1, 0)), group(at(3, 2, 0)), "behind a conventional bridge");
    assert_ne!(group(at(0, 6, 0)), group(at(0, 7, 0)));
    // Source validation, redirects, upstream forwarding and translation blocking are on.
    assert_eq!(bus.read16(at(0, 2, 0), 0x106), 0x1f);
}

#[test]
fn swizzles_pins_up_to_the_root_bus() {
    let nic = |device, pin| Function::endpoint(device, 0, 0x1_1234).pin(pin);
    let inner = Function::bridge(2, 0, vec![nic(1, 1), nic(3, 4), nic(4, 0)]);
    let (_, devices) = found(vec![Function::bridge(5, 0, vec![inner]), nic(1, 3), nic(2, 9)]);
    assert_eq!(root_pin(&devices, at(0, 1, 0)), Some((at(0, 1, 0), 3)));
    assert_eq!(root_pin(&devices, at(0, 2, 0)), None, "a pin that does not exist");
    // INTA of device 1 -> INTB behind device 2 -> INTD at device 5.
    assert_eq!(root_pin(&devices, at(2, 1, 0)), Some((at(0, 5, 0), 4)));
    assert_eq!(root_pin(&devices, at(2, 3, 0)), Some((at(0, 5, 0), 1)));
    assert_eq!(root_pin(&devices, at(2, 4, 0)), None);
    assert_eq!((swizzle(0, 1), swizzle(31, 4)), (1, 3));
}

#[test]
fn says_what_does_not_fit() {
    let (_, devices) = found(vec![Function::endpoint(1, 0, 0x1_1234).bar32(0, 1 << 30).bar32(1, 0x1000), virtio(2)]);
    let full = DeviceFault::NoRoom { bar: 0, size_bytes: 1 << 30, window_bytes: 0x2eff_0000 };
    assert_eq!(devices[0].fault, Some(full));
    assert!(!devices[0].is_assignable());
    assert!(devices[1].is_assignable(), "the next one still fits");
    let (_, devices) = found(vec![Function::endpoint(1, 0, 0x1_1234).with(reg::BAR0, 0, 0xff0f_f000)]);
    assert!(matches!(devices[0].fault, Some(DeviceFault::BadBar { bar: 0, .. })));
    let (_, devices) = found(vec![Function::endpoint(1, 0, 0x1_1234).with(reg::BAR0 + 20, 0xc, !0xfff)]);
    assert!(matches!(devices[0].fault, Some(DeviceFault::BadBar { bar: 5, .. })), "the upper half of BAR 5");
    let (bus, devices) = found(vec![Function::endpoint(1, 0, 0x1_1234).bar64(0, 8 << 30).bar64(2, 16)]);
    assert_eq!(devices[0].bars[0].expect("a BAR").pci_address, 0x80_0000_0000);
    check_addresses(&bus, &devices);
}

#[test]
fn uses_the_low_window_where_there_is_no_other() {
    let mut bus = FakeBus { root: vec![virtio(1)] };
    let mut devices = PciDevices::new();
    enumerate(&mut bus, &PciHost { mem64: None, ..host() }, &mut devices).expect("enumerated");
    let bar = devices[0].bars[4].expect("BAR 4");
    assert!(bar.pci_address >> 32 == 0 && devices[0].is_assignable());
    let mut devices = PciDevices::new();
    enumerate(&mut bus, &PciHost { mem32: None, mem64: None, ..host() }, &mut devices).expect("enumerated");
    assert!(matches!(devices[0].fault, Some(DeviceFault::NoRoom { window_bytes: 0, .. })));
}

#[test]
fn bounds_what_it_follows() {
    let deep = (0..9).fold(vec![], |below, _| vec![Function::bridge(0, 0, below)]);
    let mut devices = PciDevices::new();
    let error = enumerate(&mut FakeBus { root: deep }, &host(), &mut devices).expect_err("too deep");
    assert_eq!(error, PciError::TooDeep(at(8, 0, 0)));
    let many =
        (0..=31).flat_map(|device| (0..3).map(move |function| Function::endpoint(device, function, 0x1_1234).multi()));
    let error =
        enumerate(&mut FakeBus { root: many.collect() }, &host(), &mut PciDevices::new()).expect_err("too many");
    assert_eq!(error, PciError::TooManyFunctions(at(0, 21, 1)));
    let ports = (0..3).map(|device| Function::root_port(device, true, vec![])).collect();
    let few = PciHost { last_bus: 2, ..host() };
    let error = enumerate(&mut FakeBus { root: ports }, &few, &mut PciDevices::new()).expect_err("no bus");
    assert_eq!(error, PciError::NoBusLeft { function: at(0, 2, 0), last: 2 });
    // A capability that is its own successor, and an extended one likewise.
    let own_tail = Function::endpoint(0, 0, 0x1_1234).capability(0x40, 0x09, &[]).with(0x40, 0x4009, 0).with(
        0x100,
        0x1001_0001,
        0,
    );
    let bus = FakeBus { root: vec![own_tail] };
    assert_eq!(find_capability(&bus, at(0, 0, 0), reg::CAP_MSI), None);
    assert_eq!(find_capability(&bus, at(0, 0, 0), 0x09), Some(0x40));
    assert_eq!(find_extended_capability(&bus, at(0, 0, 0), reg::EXT_ACS), None);
    assert_eq!(find_capability(&bus, at(0, 9, 0), reg::CAP_MSI), None, "an absent function");
}

/// Behind a port that shows its one device at every number, the device is found once.
#[test]
fn scans_a_link_once() {
    let ghosts = (0..32).map(|device| Function::endpoint(device, 0, 0x1_1234)).collect();
    let (_, devices) = found(vec![Function::root_port(1, true, ghosts)]);
    assert_eq!(devices.len(), 2);
}

#[test]
fn resets_a_function_and_restores_it() {
    let nic = Function::endpoint(1, 0, 0x10c9_8086).bar32(0, 0x2_0000).flr(0xa0, 0x0002);
    let (mut bus, devices) = found(vec![nic]);
    assert_eq!(devices[0].capabilities.reset, Some(FunctionReset::Express(0xa0)));
    let address = devices[0].bars[0].expect("BAR 0").pci_address;
    let mut reset = Reset::start(&mut bus, &devices[0]);
    assert_eq!(reset.step(&mut bus), ResetStep::Wait { us: 100_000 });
    assert_eq!(bus.root[0].resets, 1);
    assert_eq!(reset.step(&mut bus), ResetStep::Wait { us: 10_000 });
    assert_eq!(reset.step(&mut bus), ResetStep::Wait { us: 10_000 });
    assert_eq!(reset.step(&mut bus), ResetStep::Done);
    assert_eq!(bus.read32(devices[0].function, reg::BAR0), 0);
    restore(&mut bus, &devices[0]);
    assert_eq!(u64::from(bus.read32(devices[0].function, reg::BAR0)), address);
    assert_eq!(bus.read16(devices[0].function, reg::COMMAND), 0);
    // One that never answers again, and one without a reset: it is stopped all the same.
    let mut gone = Reset::start(&mut bus, &devices[0]);
    bus.root.clear();
    let last = (0..300).map(|_| gone.step(&mut bus)).find(|step| !matches!(step, ResetStep::Wait { .. }));
    assert_eq!(last, Some(ResetStep::Failed));
    let (mut bus, devices) = found(vec![e1000e(1)]);
    bus.write32(devices[0].function, reg::COMMAND, 6);
    assert_eq!(Reset::start(&mut bus, &devices[0]).step(&mut bus), ResetStep::Unsupported);
    assert_eq!(bus.read16(devices[0].function, reg::COMMAND), reg::COMMAND_INTX_DISABLE);
}

fn endpoint() -> impl Strategy<Value = Function> {
    let bar = prop_oneof![(4_u32..24).prop_map(|log2| (false, log2)), (4_u32..36).prop_map(|log2| (true, log2))];
    proptest::collection::vec(bar, 0..5).prop_map(|bars| {
        let (mut function, mut number) = (Function::endpoint(0, 0, 0x1_1234), 0);
        for (is_64bit, log2) in bars {
            if number + u16::from(is_64bit) > 5 {
                break;
            }
            function = if is_64bit { function.bar64(number, 1 << log2) } else { function.bar32(number, 1 << log2) };
            number += 1 + u16::from(is_64bit);
        }
        function
    })
}

proptest! {
    /// Any set of BARs, on the root bus and behind a bridge: in windows, aligned, never two functions in a page.
    #[test]
    fn addresses_never_meet(functions in proptest::collection::vec((endpoint(), any::<bool>()), 1..12)) {
        let (mut root, mut ports) = (vec![], vec![]);
        for (number, (function, is_behind)) in (0..).zip(functions) {
            if is_behind {
                ports.push(Function::root_port(number, true, vec![function]));
            } else {
                root.push(function.moved_to(number));
            }
        }
        let total = root.len() + ports.len() * 2;
        root.extend(ports);
        let (bus, devices) = found(root);
        prop_assert_eq!(devices.len(), total);
        let pages = check_addresses(&bus, &devices);
        let bars: usize = devices.iter().filter(|device| device.fault.is_none()).map(|device| device.memory_bars().count()).sum();
        prop_assert!(pages.len() >= bars);
    }
}
