use bulkhead_core::addr::Ipa;
use dtoolkit::{Node, Property, fdt::Fdt};

use super::{GuestTree, Iommu};

fn tree(vcpus: usize, has_pci: bool) -> Vec<u8> {
    tree_with(vcpus, has_pci, None)
}

fn tree_with(vcpus: usize, has_pci: bool, iommu: Option<Iommu>) -> Vec<u8> {
    let initrd = Some((Ipa::new(0x4400_0000), Ipa::new(0x4400_1234)));
    GuestTree { vcpus, ram_bytes: 512 << 20, cmdline: "console=ttyAMA0", initrd, rng_seed: [7; 64], has_pci, iommu }
        .to_dtb()
}

fn words(dtb: &[u8], path: &str, property: &str) -> Vec<u32> {
    let fdt = Fdt::new(dtb).expect("a valid DTB");
    let node = fdt.find_node(path).expect("the node exists");
    let property = node.property(property).expect("the property exists");
    property.value().chunks(4).map(|cell| u32::from_be_bytes(cell.try_into().expect("whole cells"))).collect()
}

/// Would miss: a redistributor range that does not fit the number of vCPUs, on which Linux refuses the GIC.
#[test]
fn redistributors_cover_each_vcpu() {
    for vcpus in 1..=8 {
        let expected =
            vec![0, 0x0800_0000, 0, 0x1_0000, 0, 0x080a_0000, 0, 0x2_0000 * u32::try_from(vcpus).expect("small")];
        assert_eq!(words(&tree(vcpus, true), "/interrupt-controller@8000000", "reg"), expected);
    }
}

/// Would miss: timer interrupts in another order than the binding's (secure, physical, virtual, hypervisor).
#[test]
fn timer_interrupts_are_in_the_order_of_the_binding() {
    let expected = vec![1, 13, 8, 1, 14, 8, 1, 11, 8, 1, 10, 8];
    assert_eq!(words(&tree(2, true), "/timer", "interrupts"), expected);
}

/// Would miss: a pin that leads to another line than the one that EL2 injects.
#[test]
fn each_pin_has_its_line_in_every_slot() {
    let dtb = tree(2, true);
    assert_eq!(words(&dtb, "/pcie@10000000", "interrupt-map-mask"), [0, 0, 0, 7]);
    let map = words(&dtb, "/pcie@10000000", "interrupt-map");
    let lines: Vec<_> = map.chunks(8).map(|entry| (entry[3], entry[4], entry[6])).collect();
    assert_eq!(lines, [(1, 1, 4), (2, 1, 5), (3, 1, 6), (4, 1, 7)]);
}

/// Would miss: a memory window whose PCI addresses are not its IPAs, as EL2 takes them to be.
#[test]
fn pci_window_is_the_identity() {
    let expected = [0x0200_0000, 0, 0x2000_0000, 0, 0x2000_0000, 0, 0x2000_0000];
    assert_eq!(words(&tree(1, true), "/pcie@10000000", "ranges"), expected);
}

/// Would miss: streams that are not those that EL2 takes them for, or lines in another order than their names.
#[test]
fn the_virtual_smmu_is_in_front_of_every_function() {
    let dtb = tree_with(1, true, Some(Iommu::Smmu));
    assert_eq!(words(&dtb, "/pcie@10000000", "iommu-map"), [0, 3, 0, 0x100]);
    assert_eq!(words(&dtb, "/iommu@9050000", "phandle"), [3]);
    assert_eq!(words(&dtb, "/iommu@9050000", "interrupts"), [0, 8, 1, 0, 10, 1, 0, 9, 1]);
    let fdt = Fdt::new(&dtb).expect("a valid DTB");
    let names = fdt.find_node("/iommu@9050000").expect("it exists").property("interrupt-names").expect("it has");
    assert_eq!(names.value(), b"eventq\0gerror\0cmdq-sync\0");
}

/// Would miss: a transport or an interrupt elsewhere than where EL2 has them; functions that are in front of it.
#[test]
fn the_virtio_iommu_is_in_front_of_every_function() {
    let dtb = tree_with(1, true, Some(Iommu::Virtio));
    assert_eq!(words(&dtb, "/pcie@10000000", "iommu-map"), [0, 3, 0, 0x100]);
    let of = |property| words(&dtb, "/iommu@9070000", property);
    assert_eq!((of("phandle"), of("#iommu-cells"), of("interrupts")), (vec![3], vec![1], vec![0, 11, 4]));
    assert_eq!(of("reg"), [0, 0x0907_0000, 0, 0x1000]);
    let fdt = Fdt::new(&dtb).expect("a valid DTB");
    let kind = fdt.find_node("/iommu@9070000").expect("it exists").property("compatible").expect("it has one");
    assert_eq!(kind.value(), b"virtio,mmio\0");
    assert!(fdt.find_node("/iommu@9050000").is_none());
}

/// Would miss: initrd bounds swapped, or given as a size.
#[test]
fn initrd_and_memory_are_where_they_were_put() {
    let dtb = tree(1, true);
    assert_eq!(words(&dtb, "/chosen", "linux,initrd-start"), [0, 0x4400_0000]);
    assert_eq!(words(&dtb, "/chosen", "linux,initrd-end"), [0, 0x4400_1234]);
    assert_eq!(words(&dtb, "/memory@40000000", "reg"), [0, 0x4000_0000, 0, 512 << 20]);
}

/// Would miss: a host bridge that is described to a VM that has none, whose probe would be a stray access.
#[test]
fn a_vm_without_devices_has_no_host_bridge() {
    let dtb = tree(1, false);
    assert!(Fdt::new(&dtb).expect("a valid DTB").find_node("/pcie@10000000").is_none());
}
