//! Takes the machine over, in the order that keeps devices out: PCI silent, SMMUs in abort, then CPUs and VMs.
//!
//! Each phase has a frame of its own and gives it back: inlined, they would all lie in one of 180 KiB on the boot CPU's stack.

mod cpus;
mod pmcgs;
mod smmus;
mod vms;

use bulkhead_core::{
    addr::{AddrRange, PhysAddr},
    bundle::Bundle,
    machine::{CpuEnable, Gic, GicV3, Machine, PsciConduit},
    pci::{self, PciDevices},
    stage2::Leaves,
};
use log::{error, info, warn};
use spin::Once;

pub use cpus::{StartError, cpu};
pub use pmcgs::NEITHER;

use crate::{
    boot, bridge, faults, firmware, gic, idle, irq, keyboard, lifecycle, memory, mmu::Access, pci::Ecam, text::Bytes,
    vm,
};

static BUNDLE: Once<Bundle<'static>> = Once::new();

/// The bundle that this machine was started with.
pub fn bundle() -> &'static Bundle<'static> {
    BUNDLE.get().expect("the bundle is read before any VM exists")
}

/// Everything after the device tree has been read, on the boot CPU. Ends in this CPU's own work.
pub fn machine(dtb: AddrRange<PhysAddr>) -> ! {
    let machine = boot::machine();
    banner(machine);
    if let Some(conduit) = machine.psci {
        match conduit {
            PsciConduit::Smc => firmware::announce(),
            // At EL2 an HVC comes back to EL2.
            PsciConduit::Hvc => warn!("the device tree's PSCI is called by hvc, which nobody above answers: no PSCI"),
        }
    }
    let gic = interrupt_controller(machine);
    cpus::boot_cpu(machine);
    silence_pci(machine);
    smmus::take_over(machine);
    irq::set_sources(cpus::sources(machine, &gic));
    cpus::enable_sources(machine);
    // What came before its interrupt was configured may have raised none, and a queue that is not empty raises no other.
    faults::look();
    open_bundle(machine);
    cpus::start_others(machine);
    pmcgs::start(machine);
    vms::create(machine, dtb);
    keyboard::init();
    cpus::listen();
    info!("keyboard: {} moves it between VMs and the hypervisor's shell", keyboard::SWITCH_KEY_NAME);
    let mut is_any_started = false;
    for vm in vm::all().filter(|vm| vm.image.is_autostart()) {
        is_any_started |= lifecycle::start(vm).is_ok();
    }
    if !is_any_started {
        warn!("no vm starts by itself");
        lifecycle::after_stop();
    }
    idle::after_boot()
}

fn banner(machine: &Machine) {
    info!("Bulkhead {} on {}, {} CPUs", env!("CARGO_PKG_VERSION"), machine.model, machine.cpus.len());
    for range in &machine.memory {
        info!("memory {range}, {}; hypervisor at {}", Bytes(range.size_bytes()), crate::image::range());
    }
}

#[inline(never)]
fn interrupt_controller(machine: &Machine) -> GicV3 {
    let gic = match &machine.gic {
        Some(Gic::V3(gic)) => gic.clone(),
        Some(Gic::V2(_)) => {
            boot::fail(format_args!("the interrupt controller is a GICv2: this version drives GICv3 alone"))
        }
        None => boot::fail(format_args!("the device tree has no interrupt controller that is known (GICv3)")),
    };
    let [redistributors, ..] = gic.redistributors.as_slice() else {
        boot::fail(format_args!("the GICv3 node has no redistributor region"))
    };
    if gic.maintenance.is_none() {
        boot::fail(format_args!("the GICv3 node has no `interrupts`, the maintenance interrupt: guests need it"))
    }
    for range in gic.redistributors.iter().chain([&gic.distributor]) {
        if let Err(problem) = memory::map(*range, Access::Device) {
            boot::fail(format_args!("{problem}"));
        }
    }
    // SAFETY: the ranges are the device tree's GICv3, mapped above, and this is the only driver.
    if let Err(problem) = unsafe { gic::init(gic.distributor.start(), redistributors.start(), machine.cpus.len()) } {
        boot::fail(format_args!("{problem}"));
    }
    gic
}

/// Rule 2's first half: no function masters the bus when this returns, then each gets its addresses.
#[inline(never)]
fn silence_pci(machine: &'static Machine) {
    for host in &machine.pci_hosts {
        if let Err(problem) = memory::map(host.ecam, Access::Configuration) {
            boot::fail(format_args!("{problem}"));
        }
    }
    // SAFETY: every ECAM range is mapped above; `bridge` serialises all later accesses.
    let mut ecam = unsafe { Ecam::new(machine) };
    let mut devices = PciDevices::new();
    for host in &machine.pci_hosts {
        if let Err(problem) = pci::enumerate(&mut ecam, host, &mut devices) {
            error!("PCI segment {:04x}: {problem}", host.segment);
        }
    }
    bridge::install(ecam, devices);
}

#[inline(never)]
fn open_bundle(machine: &Machine) {
    let Some(range) = machine.initrd else {
        boot::fail(format_args!(
            "there is no bundle: pass one as the initrd (QEMU: -initrd bundle.img; `./justw pack` makes it)"
        ))
    };
    if let Err(problem) = memory::map(range, Access::Read) {
        boot::fail(format_args!("{problem}"));
    }
    // SAFETY: the range is mapped read-only and reserved in the ledger, so that no VM's memory lies over it.
    let bytes = unsafe { boot::bytes_of(range) };
    match Bundle::parse(bytes) {
        Ok(bundle) => {
            let leaves = if bundle.leaves() == Leaves::Pages { ", their RAM mapped by pages of 4 KiB" } else { "" };
            info!("bundle at {range}, {} VMs{leaves}", bundle.vms().len());
            BUNDLE.call_once(|| bundle);
        }
        Err(problem) => boot::fail(format_args!("bundle at {range}: {problem}")),
    }
}

/// Whether a CPU can be started the way that its node says.
fn is_startable(enable: CpuEnable) -> bool {
    matches!(enable, CpuEnable::Psci)
}
