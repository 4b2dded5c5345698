//! Device trees for tests: QEMU's `virt` in short, and a way to change it.

use std::{vec, vec::Vec};

use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

/// A value of a property.
pub enum Is<'a> {
    Cells(&'a [u32]),
    Text(&'a str),
    Flag,
}

pub fn property(name: &str, value: &Is<'_>) -> DeviceTreeProperty {
    match value {
        Is::Cells(cells) => DeviceTreeProperty::new(name, *cells),
        Is::Text(text) => DeviceTreeProperty::new(name, *text),
        Is::Flag => DeviceTreeProperty::new(name, [0_u8; 0]),
    }
    .expect("a good property")
}

pub fn node(name: &str, properties: &[(&str, Is<'_>)]) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new(name).expect("a good name");
    for (name, value) in properties {
        node.add_property(property(name, value));
    }
    node
}

/// Names joined as a list of texts.
pub const SMMU_NAMES: &str = "eventq\0priq\0cmdq-sync\0gerror";
const PCI_PINS: u32 = 4;

/// What `-M virt,gic-version=3,iommu=smmuv3,virtualization=on -smp 4 -m 2G` gives, with what Bulkhead does not read left out.
pub fn virt() -> DeviceTree {
    let mut tree = DeviceTree::new();
    let root = &mut tree.root;
    for (name, value) in [
        ("interrupt-parent", Is::Cells(&[0x8005])),
        ("dma-coherent", Is::Flag),
        ("model", Is::Text("linux,dummy-virt")),
        ("#size-cells", Is::Cells(&[2])),
        ("#address-cells", Is::Cells(&[2])),
        ("compatible", Is::Text("linux,dummy-virt")),
    ] {
        root.add_property(property(name, &value));
    }
    let psci = Is::Text("arm,psci-1.0\0arm,psci-0.2\0arm,psci");
    root.add_child(node("psci", &[("method", Is::Text("smc")), ("compatible", psci)]));
    root.add_child(node(
        "memory@40000000",
        &[("reg", Is::Cells(&[0, 0x4000_0000, 0, 0x8000_0000])), ("device_type", Is::Text("memory"))],
    ));
    root.add_child(node(
        "smmuv3@9050000",
        &[
            ("phandle", Is::Cells(&[0x8007])),
            ("dma-coherent", Is::Flag),
            ("interrupt-names", Is::Text(SMMU_NAMES)),
            ("interrupts", Is::Cells(&[0, 0x4a, 1, 0, 0x4b, 1, 0, 0x4c, 1, 0, 0x4d, 1])),
            ("reg", Is::Cells(&[0, 0x905_0000, 0, 0x2_0000])),
            ("compatible", Is::Text("arm,smmu-v3")),
        ],
    ));
    root.add_child(pcie());
    root.add_child(node(
        "pl011@9000000",
        &[
            ("interrupts", Is::Cells(&[0, 1, 4])),
            ("reg", Is::Cells(&[0, 0x900_0000, 0, 0x1000])),
            ("compatible", Is::Text("arm,pl011\0arm,primecell")),
        ],
    ));
    root.add_child(gic());
    root.add_child(cpus());
    root.add_child(node(
        "timer",
        &[
            ("interrupts", Is::Cells(&[1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4])),
            ("compatible", Is::Text("arm,armv8-timer\0arm,armv7-timer")),
        ],
    ));
    root.add_child(node("aliases", &[("serial0", Is::Text("/pl011@9000000"))]));
    root.add_child(node(
        "chosen",
        &[
            ("stdout-path", Is::Text("/pl011@9000000")),
            ("linux,initrd-start", Is::Cells(&[0x4800_0000])),
            ("linux,initrd-end", Is::Cells(&[0, 0x4900_1000])),
            ("bootargs", Is::Text("log=debug")),
        ],
    ));
    tree
}

fn pcie() -> DeviceTreeNode {
    let mut map: Vec<u32> = vec![];
    for device in 0..4 {
        for pin in 0..PCI_PINS {
            let spi = 3 + (pin + device) % PCI_PINS;
            map.extend([device << 11, 0, 0, pin + 1, 0x8005, 0, 0, 0, spi, 4]);
        }
    }
    let ranges = [
        [0x100_0000, 0, 0, 0, 0x3eff_0000, 0, 0x1_0000],
        [0x200_0000, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x2eff_0000],
        [0x300_0000, 0x80, 0, 0x80, 0, 0x80, 0],
    ];
    node(
        "pcie@10000000",
        &[
            ("iommu-map", Is::Cells(&[0, 0x8007, 0, 0x1_0000])),
            ("interrupt-map-mask", Is::Cells(&[0x1800, 0, 0, 7])),
            ("interrupt-map", Is::Cells(&map)),
            ("#interrupt-cells", Is::Cells(&[1])),
            ("ranges", Is::Cells(ranges.as_flattened())),
            ("reg", Is::Cells(&[0x40, 0x1000_0000, 0, 0x1000_0000])),
            ("dma-coherent", Is::Flag),
            ("bus-range", Is::Cells(&[0, 0xff])),
            ("linux,pci-domain", Is::Cells(&[0])),
            ("#size-cells", Is::Cells(&[2])),
            ("#address-cells", Is::Cells(&[3])),
            ("device_type", Is::Text("pci")),
            ("compatible", Is::Text("pci-host-ecam-generic")),
        ],
    )
}

fn gic() -> DeviceTreeNode {
    let mut gic = node(
        "intc@8000000",
        &[
            ("phandle", Is::Cells(&[0x8005])),
            ("interrupts", Is::Cells(&[1, 9, 4])),
            ("reg", Is::Cells(&[0, 0x800_0000, 0, 0x1_0000, 0, 0x80a_0000, 0, 0xf6_0000])),
            ("#redistributor-regions", Is::Cells(&[1])),
            ("compatible", Is::Text("arm,gic-v3")),
            ("ranges", Is::Flag),
            ("#size-cells", Is::Cells(&[2])),
            ("#address-cells", Is::Cells(&[2])),
            ("interrupt-controller", Is::Flag),
            ("#interrupt-cells", Is::Cells(&[3])),
        ],
    );
    gic.add_child(node(
        "its@8080000",
        &[
            ("phandle", Is::Cells(&[0x8006])),
            ("reg", Is::Cells(&[0, 0x808_0000, 0, 0x2_0000])),
            ("compatible", Is::Text("arm,gic-v3-its")),
        ],
    ));
    gic
}

fn cpus() -> DeviceTreeNode {
    let mut cpus = node("cpus", &[("#size-cells", Is::Cells(&[0])), ("#address-cells", Is::Cells(&[1]))]);
    for number in 0..4 {
        cpus.add_child(node(
            &std::format!("cpu@{number}"),
            &[
                ("reg", Is::Cells(&[number])),
                ("enable-method", Is::Text("psci")),
                ("compatible", Is::Text("arm,cortex-a72")),
                ("device_type", Is::Text("cpu")),
            ],
        ));
    }
    cpus
}

/// Sets a property of the node at `path`.
pub fn set(tree: &mut DeviceTree, path: &str, name: &str, value: &Is<'_>) {
    let node = tree.find_node_mut(path).expect("a node");
    node.remove_property(name);
    node.add_property(property(name, value));
}

/// Adds a node below `path`.
pub fn add(tree: &mut DeviceTree, path: &str, child: DeviceTreeNode) {
    tree.find_node_mut(path).expect("a node").add_child(child);
}
