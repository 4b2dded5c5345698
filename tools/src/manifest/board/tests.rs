use dtoolkit::{
    ToPropertyValue,
    model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty},
};

use super::check;
use crate::manifest::{Problem, schema::Manifest};

fn node(name: &str) -> DeviceTreeNode {
    DeviceTreeNode::new(name).expect("a valid name")
}

fn set(node: &mut DeviceTreeNode, name: &str, value: impl ToPropertyValue) {
    node.add_property(DeviceTreeProperty::new(name, value).expect("a valid name"));
}

/// Two CPUs, 1 GiB from 0x4000_0000, an SMMU before functions 0 to 0xff of bus 0, all functions of a device sharing one stream.
fn board(has_smmu: bool) -> Vec<u8> {
    let mut tree = DeviceTree::new();
    let root = &mut tree.root;
    set(root, "#address-cells", 2u32);
    set(root, "#size-cells", 2u32);
    let mut cpus = node("cpus");
    set(&mut cpus, "#address-cells", 1u32);
    set(&mut cpus, "#size-cells", 0u32);
    for number in 0..2u32 {
        let mut cpu = node(&format!("cpu@{number}"));
        set(&mut cpu, "device_type", "cpu");
        set(&mut cpu, "reg", number);
        set(&mut cpu, "enable-method", "psci");
        cpus.add_child(cpu);
    }
    root.add_child(cpus);
    let mut memory = node("memory@40000000");
    set(&mut memory, "device_type", "memory");
    set(&mut memory, "reg", [0u32, 0x4000_0000, 0, 0x4000_0000]);
    root.add_child(memory);
    let mut reserved = node("reserved-memory");
    set(&mut reserved, "#address-cells", 2u32);
    set(&mut reserved, "#size-cells", 2u32);
    set(&mut reserved, "ranges", [0u8; 0]);
    let mut firmware = node("firmware@50000000");
    set(&mut firmware, "reg", [0u32, 0x5000_0000, 0, 0x10_0000]);
    reserved.add_child(firmware);
    root.add_child(reserved);
    if has_smmu {
        let mut smmu = node("smmuv3@9050000");
        set(&mut smmu, "compatible", "arm,smmu-v3");
        set(&mut smmu, "reg", [0u32, 0x905_0000, 0, 0x2_0000]);
        set(&mut smmu, "#iommu-cells", 1u32);
        set(&mut smmu, "phandle", 7u32);
        root.add_child(smmu);
    }
    let mut pci = node("pcie@10000000");
    set(&mut pci, "compatible", "pci-host-ecam-generic");
    set(&mut pci, "device_type", "pci");
    set(&mut pci, "#address-cells", 3u32);
    set(&mut pci, "#size-cells", 2u32);
    set(&mut pci, "#interrupt-cells", 1u32);
    set(&mut pci, "bus-range", [0u32, 1]);
    set(&mut pci, "linux,pci-domain", 0u32);
    set(&mut pci, "reg", [0u32, 0x7000_0000, 0, 0x20_0000]);
    set(&mut pci, "ranges", [0x0200_0000u32, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x1000_0000]);
    if has_smmu {
        set(&mut pci, "iommu-map", [0u32, 7, 0, 0x100]);
        set(&mut pci, "iommu-map-mask", 0xfff8u32);
    }
    root.add_child(pci);
    tree.to_dtb()
}

fn vm(name: &str, cpu: u32, more: &str) -> String {
    let memory = if more.contains("memory") { "" } else { "memory = \"16 MiB\"\n" };
    format!("[[vm]]\nname = \"{name}\"\ncpus = [{cpu}]\nkernel = \"Image\"\n{memory}{more}\n")
}

fn device(pci: &str) -> String {
    format!("[[vm.device]]\npci = \"{pci}\"\n")
}

fn problems(text: &str) -> Vec<Problem> {
    let manifest: Manifest = toml::from_str(text).expect("valid TOML");
    check(&manifest, &board(true))
}

fn the_problem(text: &str) -> Problem {
    let mut problems = problems(text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

#[test]
fn a_manifest_that_fits_has_no_problem() {
    let text = vm("a", 0, &device("0000:00:02.0")) + &vm("b", 1, &device("0000:00:03.0"));
    assert_eq!(problems(&text), []);
}

#[test]
fn a_cpu_must_exist() {
    assert_eq!(the_problem(&vm("a", 2, "")), Problem::CpuAbsent { vm: "a".to_owned(), cpu: 2, last: 1 });
}

#[test]
fn memory_must_lie_in_free_dram() {
    assert!(matches!(the_problem(&vm("a", 0, "ram_at = 0x8000_0000\n")), Problem::RamOutside { .. }));
    assert!(matches!(the_problem(&vm("a", 0, "ram_at = 0x7f80_0000\n")), Problem::RamOutside { .. }));
    assert!(matches!(the_problem(&vm("a", 0, "ram_at = 0x4f80_0000\n")), Problem::RamReserved { .. }));
    assert_eq!(problems(&vm("a", 0, "ram_at = 0x4e00_0000\n")), []);
    let asked = the_problem(&vm("a", 0, "memory = \"1 GiB\"\n"));
    assert_eq!(asked, Problem::MemoryMissing { asked: 1024, present: 1024 });
}

#[test]
fn devices_must_be_there_with_streams_of_their_own() {
    assert!(matches!(the_problem(&vm("a", 0, &device("0001:00:02.0"))), Problem::DeviceAbsent { .. }));
    assert!(matches!(the_problem(&vm("a", 0, &device("0000:02:00.0"))), Problem::DeviceAbsent { .. }));
    assert!(matches!(the_problem(&vm("a", 0, &device("0000:01:00.0"))), Problem::DeviceWithoutStream { .. }));
    let alias = vm("a", 0, &device("0000:00:02.0")) + &vm("b", 1, &device("0000:00:02.1"));
    assert!(matches!(the_problem(&alias), Problem::StreamShared { vm, owner, .. } if vm == "b" && owner == "a"));
    let group = vm("a", 0, &(device("0000:00:02.0") + &device("0000:00:02.1")));
    assert_eq!(problems(&group), [], "a VM may have all of a group");
}

#[test]
fn a_board_without_smmu_takes_no_devices() {
    let manifest: Manifest = toml::from_str(&vm("a", 0, &device("0000:00:02.0"))).expect("valid TOML");
    let problems = check(&manifest, &board(false));
    assert!(matches!(problems[0], Problem::Board(_)), "{problems:?}");
    let none: Manifest = toml::from_str(&vm("a", 0, "")).expect("valid TOML");
    assert_eq!(check(&none, &board(false)), []);
}

/// Would miss: a panic on bytes that are no device tree.
#[test]
fn a_broken_tree_is_a_problem_too() {
    let manifest: Manifest = toml::from_str(&vm("a", 0, "")).expect("valid TOML");
    for bytes in [&b""[..], b"junk", &board(true)[..100]] {
        assert!(matches!(check(&manifest, bytes)[..], [Problem::Board(_)]));
    }
}
