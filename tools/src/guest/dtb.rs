//! The device tree that a guest gets, written from the virtual platform's constants.

use bulkhead_core::{
    addr::Ipa,
    ids::IntId,
    vplat::{
        ECAM_BASE, ECAM_SIZE, GICD_BASE, GICD_SIZE, GICR_BASE, GICR_STRIDE, INTX_INTID_BASE, INTX_PINS, PCI_MEM_BASE,
        PCI_MEM_SIZE, PTIMER_INTID, RAM_BASE, UART_BASE, UART_INTID, UART_SIZE, VIOMMU_BASE, VIOMMU_INTID, VIOMMU_SIZE,
        VSMMU_BASE, VSMMU_EVENTQ_INTID, VSMMU_GERROR_INTID, VSMMU_SIZE, VSMMU_SYNC_INTID, VTIMER_INTID, vcpu_mpidr,
    },
};
use dtoolkit::{
    ToPropertyValue,
    model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty},
};

const PHANDLE_GIC: u32 = 1;
const PHANDLE_CLOCK: u32 = 2;
const PHANDLE_IOMMU: u32 = 3;
const SPI: u32 = 0;
const PPI: u32 = 1;
const EDGE_RISING: u32 = 1;
const LEVEL_HIGH: u32 = 4;
const LEVEL_LOW: u32 = 8;
/// The PL011's reference clock in Hz.
const UART_CLOCK_HZ: u32 = 24_000_000;
/// `ranges` space code of 32-bit memory, not prefetchable (IEEE 1275 PCI binding 2.2.1.1).
const PCI_SPACE_MEM32: u32 = 0x0200_0000;

/// Random bytes for one guest.
pub type Seed = [u8; 64];

/// What differs from one guest's tree to another's.
#[derive(Clone, Copy, Debug)]
pub struct GuestTree<'a> {
    /// vCPUs, at least 1.
    pub vcpus: usize,
    /// Bytes of RAM from [`RAM_BASE`].
    pub ram_bytes: u64,
    /// Kernel command line.
    pub cmdline: &'a str,
    /// First and one-past-last address of the initrd.
    pub initrd: Option<(Ipa, Ipa)>,
    /// Entropy for the guest's random number generator: without it Linux asks the CPU for some, in vain, 50,000 times.
    pub rng_seed: Seed,
    /// Whether the VM has any PCI function: without one it gets no host bridge.
    pub has_pci: bool,
    /// What is in front of those.
    pub iommu: Option<Iommu>,
}

/// An IOMMU of a guest's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Iommu {
    /// A virtual SMMUv3.
    Smmu,
    /// A virtio IOMMU.
    Virtio,
}

impl GuestTree<'_> {
    /// The tree as a DTB.
    pub fn to_dtb(self) -> Vec<u8> {
        let mut tree = DeviceTree::new();
        let root = &mut tree.root;
        set(root, "compatible", "bulkhead,vm");
        set(root, "model", "Bulkhead virtual machine");
        set(root, "#address-cells", 2u32);
        set(root, "#size-cells", 2u32);
        set(root, "interrupt-parent", PHANDLE_GIC);
        for child in [self.chosen(), self.memory(), self.cpus(), psci(), timer(), self.gic(), clock(), uart()] {
            root.add_child(child);
        }
        match self.iommu {
            Some(Iommu::Smmu) => root.add_child(smmu()),
            Some(Iommu::Virtio) => root.add_child(virtio_iommu()),
            None => {}
        }
        if self.has_pci {
            root.add_child(pci(self.iommu.is_some()));
        }
        tree.to_dtb()
    }

    fn chosen(&self) -> DeviceTreeNode {
        let mut chosen = node("chosen");
        set(&mut chosen, "bootargs", self.cmdline);
        set(&mut chosen, "stdout-path", uart_path().as_str());
        set(&mut chosen, "rng-seed", self.rng_seed);
        if let Some((start, end)) = self.initrd {
            set(&mut chosen, "linux,initrd-start", start.as_u64());
            set(&mut chosen, "linux,initrd-end", end.as_u64());
        }
        chosen
    }

    fn memory(&self) -> DeviceTreeNode {
        let mut memory = node(&format!("memory@{:x}", RAM_BASE.as_u64()));
        set(&mut memory, "device_type", "memory");
        set(&mut memory, "reg", cells64([RAM_BASE.as_u64(), self.ram_bytes]));
        memory
    }

    fn cpus(&self) -> DeviceTreeNode {
        let mut cpus = node("cpus");
        set(&mut cpus, "#address-cells", 2u32);
        set(&mut cpus, "#size-cells", 0u32);
        for vcpu in 0..self.vcpus {
            let mpidr = vcpu_mpidr(vcpu);
            let mut cpu = node(&format!("cpu@{mpidr:x}"));
            set(&mut cpu, "device_type", "cpu");
            set(&mut cpu, "compatible", "arm,armv8");
            set(&mut cpu, "reg", mpidr);
            set(&mut cpu, "enable-method", "psci");
            cpus.add_child(cpu);
        }
        cpus
    }

    fn gic(&self) -> DeviceTreeNode {
        let redistributors = GICR_STRIDE * self.vcpus as u64;
        let mut gic = node(&format!("interrupt-controller@{:x}", GICD_BASE.as_u64()));
        set(&mut gic, "compatible", "arm,gic-v3");
        set(&mut gic, "#interrupt-cells", 3u32);
        flag(&mut gic, "interrupt-controller");
        set(&mut gic, "#address-cells", 0u32);
        let frames = [GICD_BASE.as_u64(), GICD_SIZE, GICR_BASE.as_u64(), redistributors];
        set(&mut gic, "reg", cells64(frames));
        set(&mut gic, "phandle", PHANDLE_GIC);
        gic
    }
}

fn psci() -> DeviceTreeNode {
    let mut psci = node("psci");
    set(&mut psci, "compatible", ["arm,psci-1.0", "arm,psci-0.2"].as_slice());
    set(&mut psci, "method", "hvc");
    psci
}

/// Secure physical, physical, virtual, hypervisor: the binding's order. The first and last exist on no guest's CPU
/// but the binding counts places.
fn timer() -> DeviceTreeNode {
    let mut timer = node("timer");
    set(&mut timer, "compatible", "arm,armv8-timer");
    let ppis = [IntId(29), PTIMER_INTID, VTIMER_INTID, IntId(26)];
    let interrupts: Vec<u32> = ppis.iter().flat_map(|ppi| [PPI, ppi.0 - 16, LEVEL_LOW]).collect();
    set(&mut timer, "interrupts", interrupts);
    flag(&mut timer, "always-on");
    timer
}

fn clock() -> DeviceTreeNode {
    let mut clock = node("apb-pclk");
    set(&mut clock, "compatible", "fixed-clock");
    set(&mut clock, "#clock-cells", 0u32);
    set(&mut clock, "clock-frequency", UART_CLOCK_HZ);
    set(&mut clock, "clock-output-names", "clk24mhz");
    set(&mut clock, "phandle", PHANDLE_CLOCK);
    clock
}

fn uart_path() -> String {
    format!("/pl011@{:x}", UART_BASE.as_u64())
}

fn uart() -> DeviceTreeNode {
    let mut uart = node(uart_path().trim_start_matches('/'));
    set(&mut uart, "compatible", ["arm,pl011", "arm,primecell"].as_slice());
    set(&mut uart, "reg", cells64([UART_BASE.as_u64(), UART_SIZE]));
    set(&mut uart, "interrupts", [SPI, spi(UART_INTID), LEVEL_HIGH]);
    set(&mut uart, "clocks", [PHANDLE_CLOCK, PHANDLE_CLOCK]);
    set(&mut uart, "clock-names", ["uartclk", "apb_pclk"].as_slice());
    uart
}

/// The binding `arm,smmu-v3`.
fn smmu() -> DeviceTreeNode {
    let mut smmu = node(&format!("iommu@{:x}", VSMMU_BASE.as_u64()));
    set(&mut smmu, "compatible", "arm,smmu-v3");
    set(&mut smmu, "reg", cells64([VSMMU_BASE.as_u64(), VSMMU_SIZE]));
    let lines = [VSMMU_EVENTQ_INTID, VSMMU_GERROR_INTID, VSMMU_SYNC_INTID];
    set(&mut smmu, "interrupts", lines.iter().flat_map(|&line| [SPI, spi(line), EDGE_RISING]).collect::<Vec<u32>>());
    set(&mut smmu, "interrupt-names", ["eventq", "gerror", "cmdq-sync"].as_slice());
    set(&mut smmu, "#iommu-cells", 1u32);
    flag(&mut smmu, "dma-coherent");
    set(&mut smmu, "phandle", PHANDLE_IOMMU);
    smmu
}

/// The binding `virtio,mmio`, of an IOMMU.
fn virtio_iommu() -> DeviceTreeNode {
    let mut iommu = node(&format!("iommu@{:x}", VIOMMU_BASE.as_u64()));
    set(&mut iommu, "compatible", "virtio,mmio");
    set(&mut iommu, "reg", cells64([VIOMMU_BASE.as_u64(), VIOMMU_SIZE]));
    set(&mut iommu, "interrupts", [SPI, spi(VIOMMU_INTID), LEVEL_HIGH]);
    set(&mut iommu, "#iommu-cells", 1u32);
    flag(&mut iommu, "dma-coherent");
    set(&mut iommu, "phandle", PHANDLE_IOMMU);
    iommu
}

fn pci(has_iommu: bool) -> DeviceTreeNode {
    let mut pci = node(&format!("pcie@{:x}", ECAM_BASE.as_u64()));
    set(&mut pci, "compatible", "pci-host-ecam-generic");
    set(&mut pci, "device_type", "pci");
    set(&mut pci, "#address-cells", 3u32);
    set(&mut pci, "#size-cells", 2u32);
    set(&mut pci, "#interrupt-cells", 1u32);
    set(&mut pci, "bus-range", [0u32, 0]);
    set(&mut pci, "linux,pci-domain", 0u32);
    set(&mut pci, "reg", cells64([ECAM_BASE.as_u64(), ECAM_SIZE]));
    let window = cells64([PCI_MEM_BASE.as_u64(), PCI_MEM_BASE.as_u64(), PCI_MEM_SIZE]);
    set(&mut pci, "ranges", [vec![PCI_SPACE_MEM32], window].concat());
    flag(&mut pci, "dma-coherent");
    if has_iommu {
        // StreamIDs and endpoints are requester IDs: those of bus 0.
        set(&mut pci, "iommu-map", [0, PHANDLE_IOMMU, 0, 0x100]);
    }
    // The virtual bridge does not swizzle: the pin alone chooses the line, whatever the slot.
    set(&mut pci, "interrupt-map-mask", [0u32, 0, 0, 7]);
    let lines = (0..INTX_PINS).flat_map(|pin| {
        let line = spi(INTX_INTID_BASE) + pin;
        [0, 0, 0, pin + 1, PHANDLE_GIC, SPI, line, LEVEL_HIGH]
    });
    set(&mut pci, "interrupt-map", lines.collect::<Vec<u32>>());
    pci
}

fn spi(interrupt: IntId) -> u32 {
    interrupt.0 - IntId::SPI_BASE
}

fn node(name: &str) -> DeviceTreeNode {
    DeviceTreeNode::new(name).expect("node names here are constants within the specification")
}

fn set(node: &mut DeviceTreeNode, name: &str, value: impl ToPropertyValue) {
    let property = DeviceTreeProperty::new(name, value);
    node.add_property(property.expect("property names here are constants within the specification"));
}

fn flag(node: &mut DeviceTreeNode, name: &str) {
    set(node, name, [0u8; 0]);
}

/// Each value as two cells, the high one first.
fn cells64<const N: usize>(values: [u64; N]) -> Vec<u32> {
    let word = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
    values.iter().flat_map(|value| value.to_be_bytes().chunks(4).map(word).collect::<Vec<u32>>()).collect()
}

#[cfg(test)]
mod tests;
