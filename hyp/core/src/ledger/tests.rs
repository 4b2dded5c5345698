//! Tests of the ledger: every bad input of the manifest, and that the other VMs still start.

use std::{boxed::Box, format, vec, vec::Vec};

use dtoolkit::model::DeviceTree;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{Inventory, Kept, Ledger, PlaceError, PlanError, SmmuAbility};
use crate::{
    addr::{AddrRange, BLOCK_1G, BLOCK_2M, PhysAddr},
    bundle::{
        Bundle, DeviceRecord, DmamapRecord, VmRecord, dma_mode,
        sample::{pack, record},
    },
    ids::{CpuId, IntId, PciFunction, SmmuId, StreamId, StreamKey, VmId},
    machine::{
        Machine,
        sample::{Is, node, set, virt},
    },
    pci::{
        PciDevices, enumerate,
        sample::{FakeBus, Function, e1000e, virtio},
    },
};

const MIB: u64 = 1 << 20;
const DRAM: u64 = 0x4000_0000;

/// QEMU's machine with these functions, and what the hypervisor keeps of it.
struct World {
    machine: Box<Machine>,
    devices: PciDevices,
    smmus: Vec<Option<SmmuAbility>>,
    kept: Vec<Kept>,
}

const ABILITY: SmmuAbility =
    SmmuAbility { has_stage2: true, has_stage1: true, is_coherent: true, output_bits: 44, stream_bits: 16 };

impl World {
    fn new(root: Vec<Function>, change: impl FnOnce(&mut DeviceTree)) -> Self {
        let mut tree = virt();
        change(&mut tree);
        let machine = Box::new(Machine::from_dtb(&tree.to_dtb()).expect("a machine"));
        let mut devices = PciDevices::new();
        enumerate(&mut FakeBus { root }, &machine.pci_hosts[0], &mut devices).expect("devices");
        let kept = vec![
            Kept { what: "the hypervisor", range: range(DRAM + 2 * MIB, 6 * MIB) },
            Kept { what: "the bundle", range: range(DRAM + 128 * MIB, 100 * MIB) },
        ];
        Self { machine, devices, smmus: vec![Some(ABILITY)], kept }
    }

    fn nics() -> Self {
        Self::new(vec![e1000e(1), virtio(2), e1000e(3)], |_| {})
    }

    fn plan(&self, records: &[VmRecord]) -> Ledger {
        let bytes = pack(records);
        let bundle = Bundle::parse(&bytes).expect("a bundle");
        let inventory = Inventory {
            machine: &self.machine,
            devices: &self.devices,
            smmus: &self.smmus,
            kept: &self.kept,
            ipa_bits: 39,
        };
        Ledger::plan(&bundle, &inventory)
    }

    /// The first VM's error; the second one, which asks for nothing special, starts.
    fn error(&self, change: impl FnOnce(&mut VmRecord)) -> PlanError {
        let mut first = vm("first", [0, 1], &[0x08]);
        change(&mut first);
        let ledger = self.plan(&[first, vm("second", [2, 3], &[])]);
        assert_eq!(ledger.plans().len(), 1, "the other VM starts");
        assert_eq!(ledger.plans()[0].name.as_str(), "second");
        assert!(ledger.plan_of(VmId(0)).is_none());
        ledger.refused()[0].2
    }
}

fn range(start: u64, size_bytes: u64) -> AddrRange<PhysAddr> {
    AddrRange::new(PhysAddr::new(start), size_bytes).expect("a range")
}

fn vm(name: &str, cpus: [u8; 2], devices: &[u16]) -> VmRecord {
    let mut record = record(name);
    record.cpus[..2].copy_from_slice(&cpus);
    record.ram_bytes = 256 * MIB;
    set_devices(&mut record, devices);
    record
}

fn set_devices(record: &mut VmRecord, devices: &[u16]) {
    record.device_count = u32::try_from(devices.len()).expect("few");
    for (slot, routing_id) in record.devices.iter_mut().zip(devices) {
        *slot = DeviceRecord { segment: 0, routing_id: *routing_id, dma_mode: 0 };
    }
}

fn at(routing_id: u16) -> PciFunction {
    PciFunction::from_routing_id(0, routing_id)
}

/// The default bundle: two VMs, a NIC each.
#[test]
fn plans_two_vms_with_a_nic_each() {
    let world = World::nics();
    let ledger = world.plan(&[vm("one", [0, 1], &[0x08]), vm("two", [2, 3], &[0x10])]);
    assert!(ledger.refused().is_empty(), "{:?}", ledger.refused());
    let [one, two] = ledger.plans() else { panic!("two plans") };
    assert_eq!((one.vmid.as_u16(), two.vmid.as_u16()), (1, 2));
    assert!(!one.ram.overlaps(two.ram));
    assert_eq!(one.cpus, [CpuId(0), CpuId(1)]);
    let nic = &two.devices[0];
    assert_eq!((nic.function, nic.virtual_device), (at(0x10), 1));
    let stream = StreamKey { smmu: SmmuId(0), stream: StreamId(0x10) };
    assert_eq!((nic.grant.stream(), nic.grant.vm(), nic.grant.vmid().as_u16()), (stream, VmId(1), 2));
    let interrupt = nic.interrupt.expect("wired");
    assert_eq!((interrupt.physical.id, interrupt.virtual_pin), (IntId(37), 1));
    assert_eq!(ledger.owner_of_stream(stream).expect("owned").0.id, VmId(1));
    assert_eq!(ledger.vcpu_of(CpuId(3)).map(|(plan, vcpu)| (plan.id, vcpu)), Some((VmId(1), 1)));
    assert!(ledger.owner_of_function(at(0x18)).is_none());
}

/// Would miss: a VM that asked for maps and whose devices reach its RAM all the same.
#[test]
fn a_plan_says_what_its_devices_reach() {
    let world = World::nics();
    let mut two = vm("two", [2, 3], &[0x10]);
    two.devices[0].dma_mode = dma_mode::DMAMAP;
    two.dmamap = DmamapRecord { maps: 16, tables: 4, ..DmamapRecord::default() };
    let ledger = world.plan(&[vm("one", [0, 1], &[0x08]), two]);
    let maps: Vec<_> = ledger.plans().iter().map(|plan| plan.dmamap.map(|dmamap| dmamap.maps)).collect();
    assert_eq!(maps, [None, Some(16)]);
}

#[test]
fn refuses_cpus_that_are_absent_or_taken() {
    let world = World::nics();
    let absent = world.error(|vm| vm.cpus[1] = 4);
    assert_eq!(absent, PlanError::CpuAbsent { cpu: CpuId(4), count: 4 });
    assert_eq!(format!("{absent}"), "cpu4 does not exist: the machine has cpu0 to cpu3, choose one of them");
    let ledger = world.plan(&[vm("one", [0, 1], &[]), vm("two", [1, 2], &[]), vm("three", [2, 3], &[])]);
    assert_eq!(ledger.plans().len(), 2);
    assert_eq!(ledger.refused()[0].1.as_str(), "two");
    let message = format!("{}", ledger.refused()[0].2);
    assert_eq!(message, "cpu1 belongs to vm one: give each VM CPUs of its own");
}

/// A refused VM owns nothing: what it asked for is free for the next one.
#[test]
fn a_refused_vm_takes_nothing() {
    let world = World::nics();
    let ledger = world.plan(&[vm("one", [0, 9], &[0x08]), vm("two", [0, 1], &[0x08])]);
    assert_eq!(ledger.refused().len(), 1);
    assert_eq!(ledger.plans()[0].name.as_str(), "two");
}

#[test]
fn refuses_memory_that_is_not_free() {
    let world = World::new(vec![e1000e(1)], |tree| {
        let mut reserved = node(
            "reserved-memory",
            &[("#address-cells", Is::Cells(&[2])), ("#size-cells", Is::Cells(&[2])), ("ranges", Is::Flag)],
        );
        reserved.add_child(node("atf@a0000000", &[("reg", Is::Cells(&[0, 0xa000_0000, 0, 0x1000]))]));
        tree.root.add_child(reserved);
    });
    let place = |phys: u64| match world.error(|vm| vm.ram_phys = phys) {
        PlanError::Memory(error) => error,
        error => panic!("{error}"),
    };
    let wanted = |phys| range(phys, 256 * MIB);
    assert_eq!(place(DRAM + MIB), PlaceError::Unaligned(PhysAddr::new(DRAM + MIB)));
    assert_eq!(place(DRAM), PlaceError::OverHypervisor { wanted: wanted(DRAM), kept: world.kept[0] });
    let over_bundle = place(DRAM + 8 * MIB);
    assert_eq!(over_bundle, PlaceError::OverHypervisor { wanted: wanted(DRAM + 8 * MIB), kept: world.kept[1] });
    assert!(format!("{over_bundle}").contains("lies over the bundle at 0x48000000..0x4e400000: move it"));
    let past = DRAM + 2048 * MIB - 254 * MIB;
    assert_eq!(place(past), PlaceError::OutsideDram(wanted(past)));
    assert_eq!(place(0), PlaceError::OutsideDram(wanted(0)));
    let end = u64::MAX << 21;
    assert_eq!(place(end), PlaceError::PastEnd { start: PhysAddr::new(end), size_bytes: 256 * MIB });
    let reserved = PlaceError::OverReserved { wanted: wanted(0xa000_0000), reserved: range(0xa000_0000, 0x1000) };
    assert_eq!(place(0xa000_0000), reserved);
    let large = world.error(|vm| vm.ram_bytes = 4 << 30);
    // From the bundle's end to the reserved page, on 2 MiB boundaries: 0x4e40_0000 to 0xa000_0000.
    assert_eq!(large, PlaceError::NoRoom { wanted: 4 << 30, largest: 0x51c0_0000 }.into());
    assert_eq!(
        world.error(|vm| vm.ram_bytes = 511 << 30),
        PlaceError::NoRoom { wanted: 511 << 30, largest: 0x51c0_0000 }.into()
    );
}

/// Would miss: a VM that is given a counter group, or an SMMU, as RAM, where the memory node covers their registers.
#[test]
fn refuses_memory_that_is_registers() {
    let world = World::new(vec![], |tree| {
        let group = [
            ("compatible", Is::Text("arm,smmu-v3-pmcg")),
            ("reg", Is::Cells(&[0, 0x9000_0000, 0, 0x1000, 0, 0x9020_0000, 0, 0x1000])),
        ];
        tree.root.add_child(node("pmu@90000000", &group));
        let smmu = [("compatible", Is::Text("arm,smmu-v3")), ("reg", Is::Cells(&[0, 0x9060_0000, 0, 0x2_0000]))];
        tree.root.add_child(node("iommu@90600000", &smmu));
    });
    let place = |start| {
        world.error(|record| {
            set_devices(record, &[]);
            (record.ram_phys, record.ram_bytes) = (start, 2 * MIB);
        })
    };
    for (start, registers) in [(0x9000_0000, 0x1000), (0x9020_0000, 0x1000), (0x9060_0000, 0x2_0000)]
        .map(|(start, bytes)| (start, range(start, bytes)))
    {
        let PlanError::Memory(error) = place(start) else { panic!("{start:#x}") };
        assert!(matches!(error, PlaceError::OverRegisters { registers: found, .. } if found == registers), "{error}");
    }
}

#[test]
fn refuses_memory_of_another_vm() {
    let world = World::nics();
    let mut one = vm("one", [0, 1], &[]);
    one.ram_phys = 0x6000_0000;
    let mut two = vm("two", [2, 3], &[]);
    two.ram_phys = 0x6000_0000 + 256 * MIB - BLOCK_2M;
    let ledger = world.plan(&[one, two]);
    assert_eq!(ledger.plans().len(), 1);
    let message = format!("{}", ledger.refused()[0].2);
    assert_eq!(
        message,
        "memory 0x6fe00000..0x7fe00000 lies over that of vm one at 0x60000000..0x70000000: move one, or leave its address out"
    );
}

/// A VM without a place never takes the place of one that has one, in whatever order they come.
#[test]
fn fixed_places_come_first_and_large_vms_get_whole_gigabytes() {
    let world = World::nics();
    let anywhere = vm("any", [0, 1], &[]);
    let mut fixed = vm("fixed", [2, 3], &[]);
    let first_free = world.plan(&[anywhere]).plans()[0].ram;
    fixed.ram_phys = first_free.start().as_u64();
    let ledger = world.plan(&[anywhere, fixed]);
    assert!(ledger.refused().is_empty());
    assert_eq!(ledger.plans()[1].ram, first_free);
    let mut large = vm("large", [0, 1], &[]);
    large.ram_bytes = BLOCK_1G;
    let ledger = world.plan(&[vm("small", [2, 3], &[]), large]);
    assert_eq!(ledger.plans()[1].ram, range(0x8000_0000, BLOCK_1G));
    large.ram_bytes = BLOCK_1G + 512 * MIB;
    assert_eq!(
        world.plan(&[large]).plans()[0].ram,
        range(0x4e40_0000, BLOCK_1G + 512 * MIB),
        "2 MiB where 1 GiB is not possible"
    );
}

#[test]
fn refuses_devices_that_cannot_be_contained() {
    let world = World::new(vec![Function::root_port(4, true, vec![]), e1000e(1)], |_| {});
    assert_eq!(world.error(|vm| set_devices(vm, &[0x18])), PlanError::DeviceAbsent(at(0x18)));
    assert_eq!(world.error(|vm| set_devices(vm, &[0x20])), PlanError::DeviceIsBridge(at(0x20)));
    let mut no_smmu = World::nics();
    no_smmu.smmus = vec![None];
    assert_eq!(no_smmu.error(|_| {}), PlanError::SmmuUnusable { function: at(8), smmu: 0 });
    no_smmu.smmus = vec![];
    assert_eq!(no_smmu.error(|_| {}), PlanError::SmmuUnusable { function: at(8), smmu: 0 });
    no_smmu.smmus = vec![Some(SmmuAbility { has_stage2: false, ..ABILITY })];
    assert_eq!(no_smmu.error(|_| {}), PlanError::NoStage2 { function: at(8), smmu: 0 });
    no_smmu.smmus = vec![Some(SmmuAbility { has_stage1: false, ..ABILITY })];
    let nested = |vm: &mut VmRecord| vm.devices[0].dma_mode = dma_mode::NESTED;
    assert_eq!(no_smmu.error(nested), PlanError::NoStage1 { function: at(8), smmu: 0 });
    no_smmu.smmus = vec![Some(SmmuAbility { is_coherent: false, ..ABILITY })];
    assert_eq!(no_smmu.error(nested), PlanError::NotCoherent { function: at(8), smmu: 0 });
    let virtio = |vm: &mut VmRecord| vm.devices[0].dma_mode = dma_mode::VIRTIO_IOMMU;
    assert_eq!(no_smmu.error(virtio), PlanError::NotCoherent { function: at(8), smmu: 0 });
    no_smmu.smmus = vec![Some(SmmuAbility { stream_bits: 3, ..ABILITY })];
    assert!(matches!(no_smmu.error(|_| {}), PlanError::StreamTooLarge { bits: 3, .. }));
    no_smmu.smmus = vec![Some(SmmuAbility { output_bits: 30, ..ABILITY })];
    assert!(matches!(no_smmu.error(|_| {}), PlanError::RamPastSmmu { bits: 30, .. }));
    let no_map = World::new(vec![e1000e(1)], |tree| {
        set(tree, "/pcie@10000000", "iommu-map", &Is::Cells(&[0x100, 0x8007, 0x100, 0xff00]));
    });
    assert_eq!(no_map.error(|_| {}), PlanError::NoStream(at(8)));
    let disabled = World::new(vec![e1000e(1)], |tree| set(tree, "/smmuv3@9050000", "status", &Is::Text("disabled")));
    assert_eq!(disabled.error(|_| {}), PlanError::NoStream(at(8)));
    let broken = World::new(vec![e1000e(1).bar32(4, 1 << 30)], |_| {});
    assert!(matches!(broken.error(|_| {}), PlanError::DeviceFault { .. }));
    let reserved = World::new(vec![e1000e(1)], |tree| {
        let mut memory =
            node("reserved-memory", &[("#address-cells", Is::Cells(&[2])), ("#size-cells", Is::Cells(&[2]))]);
        memory.add_child(node("fb", &[("iommu-addresses", Is::Cells(&[0x77, 0, 0, 0, 0, 1 << 20]))]));
        tree.root.add_child(memory);
        let nic = node("nic@1,0", &[("reg", Is::Cells(&[0x800, 0, 0, 0, 0])), ("phandle", Is::Cells(&[0x77]))]);
        tree.find_node_mut("/pcie@10000000").expect("a host").add_child(nic);
    });
    assert_eq!(reserved.error(|_| {}), PlanError::ReservedRegion(at(8)));
}

#[test]
fn refuses_devices_of_another_vm_and_their_aliases() {
    let world = World::nics();
    let ledger = world.plan(&[vm("one", [0, 1], &[0x08]), vm("two", [2, 3], &[0x10, 0x08])]);
    assert_eq!(format!("{}", ledger.refused()[0].2), "device 0000:00:01.0 belongs to vm one: give it to one VM");
    let two_functions = vec![Function::endpoint(1, 0, 0x1_1234).multi(), Function::endpoint(1, 1, 0x1_1234)];
    let world = World::new(two_functions, |_| {});
    assert_eq!(world.error(|_| {}), PlanError::GroupNotWhole { function: at(8), missing: at(9) });
    let split = world.plan(&[vm("one", [0, 1], &[0x08]), vm("two", [2, 3], &[0x09])]);
    assert!(split.plans().is_empty(), "neither has a part of a group");
    let whole = world.plan(&[vm("one", [0, 1], &[0x08, 0x09])]);
    assert!(whole.refused().is_empty(), "a whole group is given");
    let world = World::new(vec![Function::root_port(1, false, vec![e1000e(0), virtio(0).moved_to(0)])], |_| {});
    assert!(
        world.plan(&[vm("one", [0, 1], &[0x100])]).refused().is_empty(),
        "the bridge of a group stays with the hypervisor"
    );
    // Routing IDs that iommu-map-mask makes one stream: also with a function that nobody has.
    let world = World::new(vec![e1000e(1), e1000e(2)], |tree| {
        set(tree, "/pcie@10000000", "iommu-map-mask", &Is::Cells(&[0xff00]));
    });
    assert!(matches!(world.error(|_| {}), PlanError::StreamTaken { .. }));
    assert!(matches!(world.error(|vm| set_devices(vm, &[0x08, 0x10])), PlanError::StreamTaken { .. }));
}

/// 00:01.0 and 00:05.0 are on one line of QEMU's four.
#[test]
fn a_shared_line_stays_in_one_vm() {
    let world = World::new(vec![e1000e(1), e1000e(5), e1000e(2)], |_| {});
    let ledger = world.plan(&[vm("one", [0, 1], &[0x08]), vm("two", [2, 3], &[0x28])]);
    assert_eq!(ledger.plans().len(), 1);
    let taken =
        PlanError::InterruptTaken { function: at(0x28), line: IntId(36), with: at(8), other: ledger.plans()[0].name };
    assert_eq!(ledger.refused()[0].2, taken);
    let ledger = world.plan(&[vm("one", [0, 1], &[0x08, 0x10, 0x28])]);
    let pins: Vec<_> =
        ledger.plans()[0].devices.iter().map(|device| device.interrupt.expect("wired").virtual_pin).collect();
    assert_eq!(pins, [1, 2, 1]);
    let console = World::new(vec![e1000e(1)], |tree| set(tree, "/pl011@9000000", "interrupts", &Is::Cells(&[0, 4, 4])));
    assert_eq!(console.error(|_| {}), PlanError::InterruptKept { function: at(8), line: IntId(36) });
    let many = World::new((1..=5).map(e1000e).collect(), |tree| {
        let map: Vec<u32> =
            (1..=5).flat_map(|device| [device << 11, 0, 0, 1, 0x8005, 0, 0, 0, 40 + device, 4]).collect();
        set(tree, "/pcie@10000000", "interrupt-map", &Is::Cells(&map));
        set(tree, "/pcie@10000000", "interrupt-map-mask", &Is::Cells(&[0xf800, 0, 0, 7]));
    });
    assert_eq!(many.error(|vm| set_devices(vm, &[0x08, 0x10, 0x18, 0x20, 0x28])), PlanError::NoPinLeft(at(0x28)));
    let unwired = World::new(vec![e1000e(1)], |tree| set(tree, "/pcie@10000000", "interrupt-map", &Is::Cells(&[])));
    assert_eq!(unwired.plan(&[vm("one", [0, 1], &[8])]).plans()[0].devices[0].interrupt, None);
}

#[test]
fn refuses_more_than_a_guest_can_address() {
    let world = World::nics();
    let bytes = pack(&[vm("one", [0, 1], &[])]);
    let bundle = Bundle::parse(&bytes).expect("a bundle");
    let inventory = Inventory { machine: &world.machine, devices: &[], smmus: &[], kept: &[], ipa_bits: 30 };
    let ledger = Ledger::plan(&bundle, &inventory);
    assert_eq!(ledger.refused()[0].2, PlaceError::PastGuest { wanted: 256 * MIB, bits: 30 }.into());
}

proptest! {
    /// Whatever VMs ask for: no CPU, byte, function, stream or line has two owners, and each VM is planned or refused.
    #[test]
    fn nothing_has_two_owners(
        wishes in proptest::collection::vec((
            proptest::collection::btree_set(0_u8..6, 1..4),
            1_u64..800,
            prop_oneof![Just(None), (0_u64..1100).prop_map(Some)],
            proptest::collection::btree_set(prop_oneof![Just(0x08_u16), Just(0x10), Just(0x18), Just(0x28), Just(0x30), Just(0x31)], 0..3),
            any::<bool>(),
        ), 1..8),
    ) {
        let functions = vec![e1000e(1), virtio(2), e1000e(3), e1000e(5), Function::endpoint(6, 0, 0x1_1234).multi(), Function::endpoint(6, 1, 0x1_1234)];
        let world = World::new(functions, |_| {});
        let records: Vec<VmRecord> = wishes.iter().enumerate().map(|(number, (cpus, blocks, place, devices, _))| {
            let mut record = vm(&format!("vm{number}"), [0, 0], &devices.iter().copied().collect::<Vec<_>>());
            record.cpu_count = u32::try_from(cpus.len()).expect("few");
            for (slot, cpu) in record.cpus.iter_mut().zip(cpus) {
                *slot = *cpu;
            }
            record.ram_bytes = blocks * BLOCK_2M;
            record.load_count = 0;
            record.dtb_ipa = 0;
            record.ram_phys = place.map_or(u64::MAX, |place| DRAM - 8 * BLOCK_2M + place * BLOCK_2M);
            record
        }).collect();
        let ledger = world.plan(&records);
        prop_assert_eq!(ledger.plans().len() + ledger.refused().len(), records.len());
        for (place, plan) in ledger.plans().iter().enumerate() {
            prop_assert!(plan.ram.is_aligned(BLOCK_2M) && world.machine.memory[0].contains_range(plan.ram));
            prop_assert!(!world.kept.iter().any(|kept| kept.range.overlaps(plan.ram)));
            for other in &ledger.plans()[..place] {
                prop_assert!(!plan.ram.overlaps(other.ram));
                prop_assert!(!plan.cpus.iter().any(|cpu| other.cpus.contains(cpu)));
                prop_assert!(plan.vmid != other.vmid);
                for (device, with) in plan.devices.iter().flat_map(|a| other.devices.iter().map(move |b| (a, b))) {
                    prop_assert!(device.grant.stream() != with.grant.stream() && device.function != with.function);
                    prop_assert!(device.interrupt.map(|i| i.physical.id) != with.interrupt.map(|i| i.physical.id) || device.interrupt.is_none());
                }
            }
        }
    }
}
