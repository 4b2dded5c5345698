//! Tests of reading device trees: QEMU's facts, variants of boards, what is wrong in them.

use std::{boxed::Box, vec, vec::Vec};

use dtoolkit::{memreserve::MemoryReservation, model::DeviceTree};

use super::{
    CpuEnable, DeviceReservation, Gic, Interrupt, Machine, MachineError, PsciConduit, SmmuKind, Trigger, UartKind,
    sample::{Is, add, node, set, virt},
};
use crate::{
    addr::{AddrRange, PhysAddr},
    ids::{IntId, Mpidr, PciFunction, SmmuId, StreamId, StreamKey},
};

fn range(start: u64, size_bytes: u64) -> AddrRange<PhysAddr> {
    AddrRange::new(PhysAddr::new(start), size_bytes).expect("a range")
}

fn read(tree: &DeviceTree) -> Result<Box<Machine>, MachineError> {
    Machine::from_dtb(&tree.to_dtb()).map(Box::new)
}

fn changed(change: impl FnOnce(&mut DeviceTree)) -> Result<Box<Machine>, MachineError> {
    let mut tree = virt();
    change(&mut tree);
    read(&tree)
}

fn level(id: u32) -> Option<Interrupt> {
    Some(Interrupt { id: IntId(id), trigger: Trigger::Level })
}

fn edge(id: u32) -> Option<Interrupt> {
    Some(Interrupt { id: IntId(id), trigger: Trigger::Edge })
}

/// What EL2 starts from on QEMU, fact by fact.
#[test]
fn reads_qemus_virt() {
    let machine = read(&virt()).expect("virt");
    assert_eq!(machine.model, "linux,dummy-virt");
    assert_eq!(machine.compatible[0], "linux,dummy-virt");
    assert_eq!(machine.memory, [range(0x4000_0000, 2 << 30)]);
    assert_eq!(machine.cpus.len(), 4);
    assert_eq!(machine.cpus[3].mpidr, Mpidr::new(3));
    assert_eq!(machine.cpus[3].enable, CpuEnable::Psci);
    assert_eq!(machine.psci, Some(PsciConduit::Smc));
    assert_eq!(machine.initrd, Some(range(0x4800_0000, 0x100_1000)));
    assert_eq!(machine.bootargs, "log=debug");
    assert_eq!(machine.timers.physical, level(30));
    assert_eq!(machine.timers.virtual_, level(27));
    assert_eq!(machine.timers.hypervisor, level(26));
    let Some(Gic::V3(gic)) = &machine.gic else { panic!("no GICv3: {:?}", machine.gic) };
    assert_eq!(gic.distributor, range(0x800_0000, 0x1_0000));
    assert_eq!(gic.redistributors, [range(0x80a_0000, 0xf6_0000)]);
    assert_eq!(gic.its, [range(0x808_0000, 0x2_0000)]);
    assert_eq!(gic.maintenance, level(25));
    let uart = machine.console.expect("a console");
    assert_eq!((uart.kind, uart.registers), (UartKind::Pl011, range(0x900_0000, 0x1000)));
    assert_eq!(uart.interrupt, level(33));
    let smmu = &machine.smmus[0];
    assert_eq!((smmu.kind, smmu.registers), (SmmuKind::V3, range(0x905_0000, 0x2_0000)));
    assert!(smmu.is_coherent);
    assert_eq!(smmu.interrupts.event_queue, edge(106));
    assert_eq!(smmu.interrupts.page_requests, edge(107));
    assert_eq!(smmu.interrupts.command_sync, edge(108));
    assert_eq!(smmu.interrupts.global_error, edge(109));
    assert_eq!(smmu.interrupts.combined, None);
    assert!(size_of::<Machine>() < 16 << 10, "{} bytes", size_of::<Machine>());
}

#[test]
fn reads_qemus_host_bridge() {
    let machine = read(&virt()).expect("virt");
    let host = machine.pci_host(0).expect("segment 0");
    assert_eq!(host.ecam, range(0x40_1000_0000, 0x1000_0000));
    assert_eq!((host.first_bus, host.last_bus), (0, 255));
    let (mem32, mem64) = (host.mem32.expect("mem32"), host.mem64.expect("mem64"));
    assert_eq!((mem32.pci_base, mem32.cpu), (0x1000_0000, range(0x1000_0000, 0x2eff_0000)));
    assert_eq!((mem64.pci_base, mem64.cpu), (0x80_0000_0000, range(0x80_0000_0000, 0x80_0000_0000)));
    assert!(host.is_coherent);
    // 00:01.0 INTA -> SPI 4, 00:03.0 INTB -> SPI 3 (wraps), as in QEMU's swizzled table.
    let function = |device| PciFunction::new(0, 0, device, 0).expect("a function");
    assert_eq!(machine.intx_of(function(1), 1), Some(IntId(36)));
    assert_eq!(machine.intx_of(function(3), 2), Some(IntId(35)));
    // The mask ignores higher device bits: 00:05.0 is as 00:01.0.
    assert_eq!(machine.intx_of(function(5), 4), machine.intx_of(function(1), 4));
    assert_eq!(machine.intx_of(function(1), 0), None);
    let stream = StreamKey { smmu: SmmuId(0), stream: StreamId(0x108) };
    assert_eq!(machine.stream_of(PciFunction::from_routing_id(0, 0x108)), Some(stream));
    assert_eq!(machine.stream_of(PciFunction::from_routing_id(1, 8)), None);
    let config = host.config_space(PciFunction::from_routing_id(0, 0x108)).expect("inside");
    assert_eq!(config.start(), PhysAddr::new(0x40_1010_8000));
}

/// A window is for 32-bit BARs when its last byte is below 4 GiB; of two, the larger one counts.
#[test]
fn sorts_windows_by_their_end() {
    let machine = changed(|tree| {
        let ranges = [
            [0x200_0000, 0, 0xf000_0000, 1, 0xf000_0000, 0, 0x1000_0000],
            [0x200_0000, 0, 0x1000_0000, 1, 0x1000_0000, 0, 0x10_0000],
            [0x4300_0000, 0, 0xf000_0000, 2, 0, 0, 0x1000_1000],
        ];
        set(tree, "/pcie@10000000", "ranges", &Is::Cells(ranges.as_flattened()));
    })
    .expect("a machine");
    let (mem32, mem64) = (machine.pci_hosts[0].mem32.expect("mem32"), machine.pci_hosts[0].mem64.expect("mem64"));
    assert_eq!((mem32.pci_base, mem32.pci_end()), (0xf000_0000, 1 << 32));
    assert_eq!((mem64.cpu, mem64.is_prefetchable), (range(2 << 32, 0x1000_1000), true));
}

#[test]
fn streams_follow_map_and_mask() {
    let machine = changed(|tree| {
        let map = [0x100, 0x8007, 0x4000, 0x10, 0x200, 0x9999, 0, 0x100];
        set(tree, "/pcie@10000000", "iommu-map", &Is::Cells(&map));
        set(tree, "/pcie@10000000", "iommu-map-mask", &Is::Cells(&[0xfff8]));
    })
    .expect("a machine");
    let stream = |id| machine.stream_of(PciFunction::from_routing_id(0, id)).map(|key| key.stream.0);
    assert_eq!(stream(0xff), None);
    assert_eq!(stream(0x10b), Some(0x4008));
    assert_eq!(stream(0x110), None);
    // An entry for something that is no SMMU of the machine gives no stream.
    assert_eq!(stream(0x200), None);
}

#[test]
fn disabled_nodes_are_absent() {
    let machine = changed(|tree| {
        set(tree, "/smmuv3@9050000", "status", &Is::Text("disabled"));
        set(tree, "/cpus/cpu@1", "status", &Is::Text("disabled"));
        set(tree, "/intc@8000000/its@8080000", "status", &Is::Text("disabled"));
    })
    .expect("a machine");
    assert!(machine.smmus.is_empty());
    assert_eq!(machine.stream_of(PciFunction::from_routing_id(0, 8)), None);
    assert_eq!(machine.cpus.iter().map(|cpu| cpu.mpidr.as_u64()).collect::<Vec<_>>(), [0, 2, 3]);
    assert!(matches!(&machine.gic, Some(Gic::V3(gic)) if gic.its.is_empty()));
}

/// As on RK3399 and RK3588: four cells a specifier, affinities in the last, and devices behind nested buses.
#[test]
fn reads_four_cell_specifiers_and_nested_buses() {
    let machine = changed(|tree| {
        set(tree, "/intc@8000000", "#interrupt-cells", &Is::Cells(&[4]));
        set(tree, "/intc@8000000", "interrupts", &Is::Cells(&[1, 9, 4, 0]));
        let timer = [1, 13, 4, 0, 1, 14, 4, 0, 1, 11, 4, 0, 1, 10, 4, 0];
        set(tree, "/timer", "interrupts", &Is::Cells(&timer));
        set(tree, "/pcie@10000000", "interrupt-map", &Is::Cells(&[0, 0, 0, 2, 0x8005, 0, 0, 0, 9, 4, 0]));
        let soc = [
            ("#address-cells", Is::Cells(&[1])),
            ("#size-cells", Is::Cells(&[1])),
            ("ranges", Is::Cells(&[0, 0xff, 0x1000_0000, 0x100_0000])),
        ];
        let mut soc = node("soc", &soc);
        let bus = [
            ("#address-cells", Is::Cells(&[1])),
            ("#size-cells", Is::Cells(&[1])),
            ("ranges", Is::Cells(&[0x7000, 0x2_0000, 0x1000])),
        ];
        let mut bus = node("bus@20000", &bus);
        bus.add_child(node(
            "serial@7100",
            &[
                ("compatible", Is::Text("snps,dw-apb-uart")),
                ("reg", Is::Cells(&[0x7100, 0x100])),
                ("reg-shift", Is::Cells(&[2])),
                ("reg-io-width", Is::Cells(&[4])),
                ("interrupts", Is::Cells(&[0, 333, 4, 0])),
            ],
        ));
        soc.add_child(bus);
        tree.root.add_child(soc);
        set(tree, "/aliases", "serial2", &Is::Text("/soc/bus@20000/serial@7100"));
        set(tree, "/chosen", "stdout-path", &Is::Text("serial2:1500000n8"));
    })
    .expect("a machine");
    let uart = machine.console.expect("a console");
    assert_eq!(uart.kind, UartKind::Dw8250 { reg_shift: 2, io_width: 4 });
    assert_eq!(uart.registers, range(0xff_1002_0100, 0x100));
    assert_eq!(uart.interrupt, level(365));
    assert_eq!(machine.timers.hypervisor, level(26));
    assert_eq!(machine.intx_of(PciFunction::from_routing_id(0, 0), 2), Some(IntId(41)));
}

#[test]
fn reads_a_spin_table_and_a_gicv2() {
    let machine = changed(|tree| {
        set(tree, "/cpus", "#address-cells", &Is::Cells(&[2]));
        for number in 0..4 {
            let path = std::format!("/cpus/cpu@{number}");
            set(tree, &path, "reg", &Is::Cells(&[1, number << 8]));
            set(tree, &path, "enable-method", &Is::Text("spin-table"));
            set(tree, &path, "cpu-release-addr", &Is::Cells(&[0, 0xd8 + number * 8]));
        }
        tree.root.remove_child("psci");
        set(tree, "/intc@8000000", "compatible", &Is::Text("arm,gic-400"));
        let reg = [
            0,
            0xff84_1000,
            0,
            0x1000,
            0,
            0xff84_2000,
            0,
            0x2000,
            0,
            0xff84_4000,
            0,
            0x2000,
            0,
            0xff84_6000,
            0,
            0x2000,
        ];
        set(tree, "/intc@8000000", "reg", &Is::Cells(&reg));
    })
    .expect("a machine");
    assert_eq!(machine.psci, None);
    assert_eq!(machine.cpus[2].mpidr.as_u64(), 0x1_0000_0200);
    assert_eq!(machine.cpus[2].enable, CpuEnable::SpinTable { release: PhysAddr::new(0xe8) });
    let Some(Gic::V2(gic)) = &machine.gic else { panic!("no GICv2") };
    assert_eq!(gic.virtual_control, Some(range(0xff84_4000, 0x2000)));
}

#[test]
fn collects_memory_and_what_is_reserved() {
    let machine = changed(|tree| {
        let reg = [2, 0, 0, 0x1000, 0, 0x1000, 0, 0x1000, 0, 0x2000, 0, 0x1000, 0, 0, 0, 0];
        set(tree, "/memory@40000000", "reg", &Is::Cells(&reg));
        tree.memory_reservations = vec![MemoryReservation::new(0x1000, 0x800)];
        let cells = [("#address-cells", Is::Cells(&[2])), ("#size-cells", Is::Cells(&[2])), ("ranges", Is::Flag)];
        let mut reserved = node("reserved-memory", &cells);
        reserved.add_child(node("atf@2000", &[("reg", Is::Cells(&[0, 0x2000, 0, 0x100])), ("no-map", Is::Flag)]));
        reserved.add_child(node(
            "fb@2800",
            &[
                ("reg", Is::Cells(&[0, 0x2800, 0, 0x100])),
                ("iommu-addresses", Is::Cells(&[0x77, 0, 0, 0x2800, 0, 0x100])),
            ],
        ));
        reserved.add_child(node("pool", &[("size", Is::Cells(&[0, 0x100]))]));
        tree.root.add_child(reserved);
        let nic = [("reg", Is::Cells(&[0x1800, 0, 0, 0, 0])), ("phandle", Is::Cells(&[0x77]))];
        add(tree, "/pcie@10000000", node("nic@3,0", &nic));
    })
    .expect("a machine");
    assert_eq!(machine.memory, [range(0x1000, 0x2000), range(2 << 32, 0x1000)]);
    let found: Vec<_> = machine.reserved.iter().map(|r| (r.range.start().as_u64(), r.is_for_device)).collect();
    assert_eq!(found, [(0x2000, false), (0x2800, true), (0x1000, false)]);
    let function = PciFunction::new(0, 0, 3, 0);
    assert_eq!(machine.device_reservations, [DeviceReservation { segment: 0, function }]);
}

/// Without a `stdout-path`, or with one that leads nowhere, the hypervisor still has a voice.
#[test]
fn falls_back_to_the_first_uart() {
    for path in ["", "serial7", "/nowhere", "/timer", "/cpus/cpu@9:115200"] {
        let machine = changed(|tree| set(tree, "/chosen", "stdout-path", &Is::Text(path))).expect("a machine");
        assert_eq!(machine.console.expect("a console").registers, range(0x900_0000, 0x1000), "{path}");
    }
    let none = changed(|tree| set(tree, "/pl011@9000000", "status", &Is::Text("disabled"))).expect("a machine");
    assert!(none.console.is_some(), "named in stdout-path: used though disabled");
    let without = changed(|tree| {
        tree.root.remove_child("chosen");
        tree.root.remove_child("pl011@9000000");
    });
    assert_eq!(without.expect("a machine").console, None);
}

/// Firmware's memory is kept also where `/reserved-memory` forgets its `ranges`.
#[test]
fn keeps_reserved_memory_without_ranges() {
    let machine = changed(|tree| {
        let mut reserved =
            node("reserved-memory", &[("#address-cells", Is::Cells(&[2])), ("#size-cells", Is::Cells(&[2]))]);
        reserved.add_child(node("atf@1000", &[("reg", Is::Cells(&[0, 0x1000, 0, 0x100]))]));
        tree.root.add_child(reserved);
    })
    .expect("a machine");
    assert_eq!(machine.reserved[0].range, range(0x1000, 0x100));
}

#[test]
fn bounds_searches_of_the_tree() {
    let entry = |phandle| [0, 0, 0, 1, phandle, 0, 0, 0, 9, 4];
    let map: Vec<u32> = (0..200).flat_map(|_| [entry(0x8005), [0, 0, 0, 1, 0x77, 0, 0, 0, 0, 0]].concat()).collect();
    let error = changed(|tree| {
        let other = [
            ("phandle", Is::Cells(&[0x77])),
            ("#address-cells", Is::Cells(&[2])),
            ("#interrupt-cells", Is::Cells(&[3])),
        ];
        tree.root.add_child(node("other", &other));
        set(tree, "/pcie@10000000", "interrupt-map", &Is::Cells(&map));
    });
    let too_many = MachineError::TooMany { what: "interrupt controllers in a map", limit: 16 };
    assert_eq!(error.expect_err("many"), too_many);
}

#[test]
fn finds_several_smmus_and_segments() {
    let machine = changed(|tree| {
        let smmu = [
            ("compatible", Is::Text("arm,smmu-v3")),
            ("phandle", Is::Cells(&[0x20])),
            ("reg", Is::Cells(&[0, 0xfc90_0000, 0, 0x20_0000])),
            ("interrupts", Is::Cells(&[0, 0x60, 4])),
            ("dma-noncoherent", Is::Flag),
        ];
        tree.root.add_child(node("iommu@fc900000", &smmu));
        tree.root.add_child(node(
            "iommu@1",
            &[("compatible", Is::Text("arm,mmu-500")), ("reg", Is::Cells(&[0, 1 << 20, 0, 1 << 16]))],
        ));
        let host = [
            ("compatible", Is::Text("pci-host-ecam-generic")),
            ("reg", Is::Cells(&[9, 0, 0, 0x10_0000])),
            ("#address-cells", Is::Cells(&[3])),
            ("#size-cells", Is::Cells(&[2])),
            ("iommu-map", Is::Cells(&[0, 0x20, 0x100, 0x1000])),
        ];
        tree.root.add_child(node("pcie@9", &host));
    })
    .expect("a machine");
    assert_eq!(machine.smmus.len(), 3);
    assert_eq!(machine.smmus[1].interrupts.combined, level(128));
    assert!(!machine.smmus[1].is_coherent);
    assert_eq!(machine.smmus[2].kind, SmmuKind::V2);
    let stream = machine.stream_of(PciFunction::from_routing_id(1, 8));
    assert_eq!(stream, Some(StreamKey { smmu: SmmuId(1), stream: StreamId(0x108) }));
    assert_eq!(machine.pci_host(1).expect("segment 1").last_bus, 0);
}

#[test]
fn says_what_is_wrong() {
    let error = |path: &str, name: &str, value: Is<'_>| {
        std::format!("{}", changed(|tree| set(tree, path, name, &value)).expect_err("wrong"))
    };
    assert_eq!(
        error("/smmuv3@9050000", "reg", Is::Cells(&[0, 1, 0])),
        "device tree node smmuv3: reg is missing or wrong"
    );
    assert!(error("/psci", "method", Is::Text("smd")).contains("method"));
    assert!(error("/pcie@10000000", "bus-range", Is::Cells(&[3, 2])).contains("bus-range"));
    assert!(error("/pcie@10000000", "interrupt-map", Is::Cells(&[0, 0, 0, 1])).contains("interrupt-map"));
    assert!(error("/pcie@10000000", "iommu-map", Is::Cells(&[0, 0x8007])).contains("iommu-map"));
    assert!(error("/cpus/cpu@1", "reg", Is::Cells(&[2])).contains("cpu: reg"));
    assert!(error("/cpus/cpu@1", "reg", Is::Cells(&[0x8000_0000])).contains("cpu: reg"));
    assert!(error("/intc@8000000", "#interrupt-cells", Is::Cells(&[1])).contains("#interrupt-cells"));
    let many = changed(|tree| {
        for number in 0..9 {
            let reg = [0, 0x1000_0000 * number, 0, 0x1000];
            let name = std::format!("iommu@{number}");
            let smmu = [("compatible", Is::Text("arm,smmu-v3")), ("reg", Is::Cells(&reg))];
            tree.root.add_child(node(&name, &smmu));
        }
    });
    assert_eq!(many.expect_err("many"), MachineError::TooMany { what: "smmus", limit: 8 });
    let twice = changed(|tree| {
        let host = [
            ("compatible", Is::Text("pci-host-ecam-generic")),
            ("reg", Is::Cells(&[9, 0, 0, 0x10_0000])),
            ("linux,pci-domain", Is::Cells(&[0])),
        ];
        tree.root.add_child(node("pcie@9", &host));
    });
    assert_eq!(twice.expect_err("twice"), MachineError::DuplicateSegment(0));
}
