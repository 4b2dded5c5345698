//! The virtual PCI bus: own functions alone, filtered capabilities, virtual BARs.
#![no_std]
#![no_main]

use bulkhead_core::vplat::{ECAM_BASE, GICD_BASE, PCI_MEM_BASE, UART_BASE};
use bulkhead_guest_tests::{
    check, edu, mem, params,
    pci::{self, Function},
    println, program,
};

program!(main);

const NVME: u32 = 0x0010_1b36;
const CLASS: u64 = 0x08;
const HOST_BRIDGE: u32 = 0x0600;
/// Capabilities that a guest must not see: MSI, MSI-X.
const HIDDEN: [u8; 2] = [0x05, 0x11];
/// Where both edu and nvme have the capability that is hidden.
const HIDDEN_AT: u64 = 0x40;
/// Extended capabilities that it must not see: ATS, SR-IOV, PRI, PASID.
const HIDDEN_EXTENDED: [u32; 4] = [0x0f, 0x10, 0x13, 0x1b];
/// NVMe: version register, which is 1.x.
const NVME_VERSION: u64 = 0x08;
const PLACE: u64 = PCI_MEM_BASE.as_u64() + 0x100_0000;
const OTHER_PLACE: u64 = PCI_MEM_BASE.as_u64() + 0x800_0000;

fn low(address: u64) -> u32 {
    u32::try_from(address).expect("below 4 GiB")
}

fn scan(expected: u64) {
    let first = Function::at(0).read32(pci::ID);
    let is_bridge = Function::at(0).read32(CLASS) >> 16 == HOST_BRIDGE;
    check!(first == u32::MAX || is_bridge, "device 0 is a host bridge or nothing"; first);
    let found = (1..32).filter(|device| Function::at(*device).read32(pci::ID) != u32::MAX).count() as u64;
    check!(found == expected, "{expected} devices on the bus"; found);
    let is_alone = (1..=expected)
        .flat_map(|device| (1..8).map(move |function| pci::config_address(device, function, 0)))
        .all(|address| mem::read32(address) == u32::MAX);
    check!(is_alone, "each has function 0 alone");
    let absent = pci::config_address(20, 3, 0);
    mem::write32(absent + 4, u32::MAX);
    mem::write32(absent + 0x10, u32::MAX);
    let is_nothing =
        mem::read8(absent) == u8::MAX && mem::read16(absent + 2) == u16::MAX && mem::read32(absent + 0x10) == u32::MAX;
    check!(is_nothing, "a function that is not there reads as ones in every width, writes vanish");
}

fn identity(function: Function) {
    let device = function.device();
    let id = function.read32(pci::ID);
    function.write32(pci::ID, 0);
    function.write32(CLASS, 0);
    check!(function.read32(pci::ID) == id, "device {device}: its id cannot be written");
    let bytes = [0, 1, 2, 3].map(|byte| mem::read8(function.address(byte)));
    let halves = [mem::read16(function.address(0)), mem::read16(function.address(2))];
    let is_same = u32::from_le_bytes(bytes) == id && u32::from(halves[1]) << 16 | u32::from(halves[0]) == id;
    check!(is_same, "device {device}: the same in every width");
    check!((1..=4).contains(&function.pin()), "device {device}: an interrupt pin"; function.pin());
    check!(function.size_mask((pci::ROM_BAR - pci::BAR0) / 4) & 0xffff_f800 == 0, "device {device}: no ROM");
    function.set_command(u16::MAX);
    let command = function.command();
    function.set_command(0);
    check!(command & 6 == 6, "device {device}: memory decode and bus mastering can be set"; command);
    check!(function.command() & 7 == 0, "device {device}: and cleared"; function.command());
}

fn capabilities(function: Function) {
    let device = function.device();
    let count = function.capabilities().count();
    check!(count < 48, "device {device}: the list of capabilities ends"; count);
    for (id, at) in function.capabilities() {
        println!("device {device}: capability {id:#x} at {at:#x}");
    }
    let is_clean = function.capabilities().all(|(id, _)| !HIDDEN.contains(&id));
    check!(is_clean, "device {device}: no MSI, no MSI-X");
    let hidden = function.address(HIDDEN_AT);
    let before = mem::read32(hidden);
    for offset in [0, 4, 8, 12] {
        mem::write32(hidden + offset, u32::MAX);
    }
    let is_dead = (0..4).all(|word| mem::read32(hidden + word * 4) == 0);
    check!(before == 0 && is_dead, "device {device}: the registers of a hidden capability are zero and stay so"; before);
    let mut at = 0x100;
    let mut is_clean = true;
    for _ in 0..64 {
        let header = function.read32(at);
        is_clean &= !HIDDEN_EXTENDED.contains(&(header & 0xffff)) || header == u32::MAX;
        at = u64::from(header >> 20);
        if at < 0x100 || header == u32::MAX {
            break;
        }
    }
    check!(is_clean, "device {device}: no ATS, SR-IOV, PRI or PASID");
    // Writes over the whole of the capabilities' space: nothing hidden may come to life.
    let command = function.command();
    for register in (0x40..0x100).step_by(4) {
        function.write32(register, function.read32(register) | 0x8000_0000);
    }
    function.set_command(command);
}

fn bars(function: Function) {
    let device = function.device();
    let mut is_upper_half = false;
    for index in 0..6 {
        let mask = function.size_mask(index);
        println!("device {device}: BAR {index} sizes as {mask:#010x}");
        check!(is_upper_half || mask & 1 == 0, "device {device}: BAR {index} is no I/O BAR");
        is_upper_half = !is_upper_half && mask & 6 == 4;
    }
}

fn edu_bar(function: Function) {
    let read = |place: u64| mem::read32(place);
    check!(function.size_mask(0) == 0xfff0_0000, "edu: 1 MiB, 32 bits"; function.size_mask(0));
    check!((1..6).all(|index| function.size_mask(index) == 0), "edu: one BAR");
    function.set_bar(0, low(PLACE));
    function.set_command(pci::MEMORY_ENABLE);
    check!(read(PLACE) == edu::IDENTIFICATION, "edu: registers where the BAR says");
    function.set_bar(0, low(OTHER_PLACE) | 0xf_ffff);
    check!(function.bar(0) & !0xf == low(OTHER_PLACE), "edu: low bits of the address read as zero"; function.bar(0));
    check!(read(OTHER_PLACE) == edu::IDENTIFICATION, "edu: moved while decoding");
    function.set_bar(0, u32::MAX);
    function.set_bar(0, low(PLACE));
    check!(read(PLACE) == edu::IDENTIFICATION, "edu: sized while decoding");
    function.set_command(0);
    function.set_bar(0, low(OTHER_PLACE));
    function.set_command(pci::MEMORY_ENABLE);
    check!(read(OTHER_PLACE) == edu::IDENTIFICATION, "edu: moved with decoding off");
    check!(read(OTHER_PLACE + 0xf_fffc) != 0x1234_5678, "edu: its last page is there");
}

/// Over everything else of the VM: what was there stays, or shows the device's own registers; never anything foreign.
fn overlaps(function: Function) {
    let scratch = params::scratch();
    mem::write32(scratch, 0xcafe_f00d);
    let distributor = mem::read32(GICD_BASE.as_u64() + 4);
    function.set_bar(0, low(scratch));
    let seen = mem::read32(scratch);
    check!(seen == 0xcafe_f00d || seen == edu::IDENTIFICATION, "BAR over RAM"; seen);
    function.set_bar(0, low(GICD_BASE.as_u64()));
    let seen = mem::read32(GICD_BASE.as_u64() + 4);
    check!(seen == distributor || seen == edu::IDENTIFICATION, "BAR over the GIC"; seen);
    function.set_bar(0, low(UART_BASE.as_u64()));
    println!("printed with a BAR over the UART");
    function.set_bar(0, low(ECAM_BASE.as_u64()));
    check!(function.read32(pci::ID) == edu::ID, "BAR over the configuration space");
    for place in [0, 0x3ff0_0000, 0xfff0_0000, 0x8000_0000, 0x4800_0000] {
        function.set_bar(0, place);
    }
    function.set_bar(0, low(PLACE));
    check!(mem::read32(PLACE) == edu::IDENTIFICATION, "back at its place");
    check!(mem::read32(scratch) == 0xcafe_f00d, "RAM has kept its value");
    check!(mem::read32(GICD_BASE.as_u64() + 4) == distributor, "the GIC as before");
}

fn wide_bar(function: Function) {
    check!(function.bar(0) & 0xf == 4, "nvme: BAR 0 has 64 bits"; function.bar(0));
    function.set_command(0);
    function.set_bar(0, u32::MAX);
    function.set_bar(1, u32::MAX);
    let size = u64::from(function.bar(1)) << 32 | u64::from(function.bar(0) & !0xf);
    check!(size.leading_ones() > 32 && size.trailing_zeros() < 20, "nvme: both halves size it"; size);
    function.set_bar(0, low(OTHER_PLACE));
    function.set_bar(1, 0);
    function.set_command(pci::MEMORY_ENABLE);
    let version = mem::read32(OTHER_PLACE + NVME_VERSION);
    check!(version >> 16 == 1, "nvme: registers there"; version);
    // The halves one after the other, decoding: half-way it points far outside of everything.
    for high in [1, 0x80, 0xffff_ffff] {
        function.set_bar(1, high);
        function.set_bar(0, low(PLACE) + 0x400_0000);
        check!(function.bar(1) == high, "nvme: upper half {high:#x} kept");
    }
    function.set_bar(1, 0);
    let version = mem::read32(PLACE + 0x400_0000 + NVME_VERSION);
    check!(version >> 16 == 1, "nvme: whole again, registers there"; version);
}

fn two_at_one_place(first: Function, second: Function) {
    first.set_bar(0, low(OTHER_PLACE));
    second.set_bar(0, low(OTHER_PLACE));
    let seen = mem::read32(OTHER_PLACE);
    println!("two BARs at one place: {seen:#x}");
    second.set_bar(0, low(PLACE) + 0x400_0000);
    first.set_bar(0, low(PLACE) + 0x600_0000);
    second.set_bar(0, low(PLACE));
    let is_new = mem::read32(PLACE + NVME_VERSION) >> 16 == 1;
    check!(is_new, "a place that one left and another took shows the other");
    second.set_bar(0, low(PLACE) + 0x400_0000);
    first.set_bar(0, low(PLACE));
    let is_right =
        mem::read32(PLACE) == edu::IDENTIFICATION && mem::read32(PLACE + 0x400_0000 + NVME_VERSION) >> 16 == 1;
    check!(is_right, "two BARs at one place, then apart: each has its own again");
}

fn main() {
    let expected = params::number("devices", 1);
    scan(expected);
    for device in 1..=expected {
        let function = Function::at(device);
        identity(function);
        capabilities(function);
        bars(function);
    }
    let first = Function::find(edu::ID, 0).expect("this VM has an edu");
    edu_bar(first);
    overlaps(first);
    if let Some(nvme) = Function::find(NVME, 0) {
        wide_bar(nvme);
        two_at_one_place(first, nvme);
    }
}
