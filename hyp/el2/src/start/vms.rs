//! VMs: planned by the ledger, made with their tables, or refused with the reason.

use bulkhead_core::{
    addr::{AddrRange, Ipa, PhysAddr},
    bundle::NestedFlush,
    ledger::{Inventory, Kept, Ledger, SmmuAbility, VmPlan},
    machine::{Machine, SMMUS_MAX},
    pci::PciDevice,
    stage2::{Leaves, tables_for_leaves},
    vplat::{self, INTX_INTID_BASE},
};
use bulkhead_dma::DmaSpace;
use bulkhead_vdev::{
    psci::{HostFacts, Psci},
    vgic::{LinkError, Vgic},
    vsmmu::Ability,
};
use log::{error, info, warn};
use smccc::arch::{SMCCC_ARCH_WORKAROUND_1, SMCCC_ARCH_WORKAROUND_2, SMCCC_ARCH_WORKAROUND_3};

use crate::{
    boot,
    bridge::{self, Bridge, BridgeError},
    dmamap::{self, Maps, MapsError},
    firmware,
    guest_memory::GuestRam,
    image, percpu,
    reach::Reach,
    smmu, sysreg,
    tables::{GuestTables, Spares, TablesError},
    viommu::{IommuError, VirtualIommu},
    vm::{self, Device, Parts},
    vsmmu::VirtualSmmu,
};

/// Why a VM that the ledger allows could not be made.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[repr(u64)]
enum MakeError {
    #[error(transparent)]
    Tables(#[from] TablesError),
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("its memory is not free")]
    NotFree,
    #[error("cpu{0} is not online")]
    CpuOffline(u8),
    #[error(transparent)]
    Maps(#[from] MapsError),
    #[error(transparent)]
    Iommu(#[from] IommuError),
}

/// Sizes of addresses that every CPU and SMMU of the machine can do.
#[derive(Clone, Copy)]
struct Sizes {
    ipa_bits: u8,
    output_bits: u8,
    must_clean: bool,
}

/// Plans and makes every VM of the bundle.
#[inline(never)]
pub fn create(machine: &'static Machine, dtb: AddrRange<PhysAddr>) {
    let abilities = abilities(machine);
    let sizes = sizes(&abilities, machine);
    let mut kept = heapless::Vec::<Kept, 4>::new();
    let ranges =
        [("the hypervisor", Some(image::range())), ("the bundle", machine.initrd), ("the device tree", Some(dtb))];
    for (what, range) in ranges {
        if let Some(range) = range {
            // There is room for all three.
            let _ = kept.push(Kept { what, range });
        }
    }
    let inventory =
        Inventory { machine, devices: bridge::devices(), smmus: &abilities, kept: &kept, ipa_bits: sizes.ipa_bits };
    let ledger = Ledger::plan(super::bundle(), &inventory);
    for (_, name, problem) in ledger.refused() {
        error!("vm {name}: {problem}");
    }
    for plan in ledger.plans() {
        match make(plan, sizes) {
            Ok(parts) => announce(parts),
            Err(problem) => error!("vm {}: {problem}", plan.name),
        }
    }
    report_unassigned(&ledger);
}

fn abilities(machine: &Machine) -> heapless::Vec<Option<SmmuAbility>, SMMUS_MAX> {
    let smmus = machine.numbered_smmus();
    smmus
        .map(|(id, described)| {
            smmu::with(id, |driver| {
                let features = driver.features();
                SmmuAbility {
                    has_stage2: true,
                    has_stage1: features.has_stage1,
                    is_coherent: features.is_coherent && described.is_coherent,
                    output_bits: features.oas_bits,
                    stream_bits: features.sid_bits,
                }
            })
        })
        .collect()
}

fn sizes(abilities: &[Option<SmmuAbility>], machine: &Machine) -> Sizes {
    // ID_AA64MMFR0_EL1.PARange (DDI 0487); the smallest of a machine with unlike cores would have to be taken.
    let cpu_bits = match sysreg::read!("id_aa64mmfr0_el1") & 0xf {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        _ => 48,
    };
    let output_bits = abilities.iter().flatten().map(|ability| ability.output_bits).fold(cpu_bits, u8::min);
    Sizes { ipa_bits: output_bits.min(vplat::IPA_BITS_MAX), output_bits, must_clean: is_any_not_coherent(machine) }
}

/// Whether an SMMU reads its tables from memory alone: its IDR0.COHACC or the board's device tree says so.
fn is_any_not_coherent(machine: &Machine) -> bool {
    machine.numbered_smmus().any(|(id, described)| {
        !described.is_coherent || smmu::with(id, |driver| !driver.features().is_coherent).unwrap_or(false)
    })
}

#[inline(never)]
fn make(plan: &VmPlan, sizes: Sizes) -> Result<Parts, MakeError> {
    for cpu in &plan.cpus {
        if percpu::of(*cpu).is_none_or(|cpu| !cpu.is_online.load(core::sync::atomic::Ordering::Acquire)) {
            return Err(MakeError::CpuOffline(cpu.0));
        }
    }
    let image = super::bundle().vm(plan.id).copied().ok_or(MakeError::CpuOffline(0))?;
    let bits = (sizes.ipa_bits, sizes.output_bits);
    let tables = GuestTables::new(plan.id, image.ram(), plan.ram.start(), bits, super::bundle().leaves())?;
    let dma = reach(plan, image.ram(), bits, sizes.must_clean)?;
    // Nothing leads there before the first attach, so there is nothing to flush.
    let ram = GuestRam::fresh(plan.ram, plan.vmid).settle().map_err(|_| MakeError::NotFree)?;
    let mut vgic = Vgic::new(plan.cpus.len());
    let mut devices = heapless::Vec::new();
    for device in &plan.devices {
        let virtual_pin = device.interrupt.map_or(0, |interrupt| interrupt.virtual_pin);
        if let Some(interrupt) = device.interrupt {
            vgic.link(INTX_INTID_BASE.0 + u32::from(virtual_pin) - 1, interrupt.physical.id.0)?;
        }
        // As many as the plan's own, whose capacity is the same.
        let _ = devices.push(Device {
            function: device.function,
            stream: device.grant.stream(),
            interrupt: device.interrupt.map(|interrupt| interrupt.physical.id),
            virtual_pin,
        });
    }
    let host = HostFacts {
        workaround_1: answer(SMCCC_ARCH_WORKAROUND_1),
        workaround_2: answer(SMCCC_ARCH_WORKAROUND_2),
        workaround_3: answer(SMCCC_ARCH_WORKAROUND_3),
    };
    Ok(Parts {
        id: plan.id,
        image,
        ram_phys: plan.ram,
        bridge: Bridge::new(&devices)?,
        devices,
        dma,
        ram,
        tables,
        vsmmu: plan.nested.map(|flush| virtual_smmu(flush, plan)),
        viommu: if plan.has_virtio_iommu { Some(VirtualIommu::new(plan, image.ram(), bits)?) } else { None },
        vgic,
        psci: Psci::new(plan.cpus.len(), host),
    })
}

/// What the VM's devices reach: nothing until the first attach, then its RAM, or what its maps hold.
#[inline(never)]
fn reach(plan: &VmPlan, ram: AddrRange<Ipa>, bits: (u8, u8), must_clean: bool) -> Result<Reach, MakeError> {
    let (phys, vmid) = (plan.ram.start(), plan.vmid);
    let Some(settings) = plan.dmamap else {
        // All input bits, and so a root of one page: the SMMU of QEMU 10.0.2 takes every concatenated table for the first.
        let mut spares = Spares::new(plan.id, tables_for_leaves(ram, phys, Leaves::Blocks), must_clean)?;
        let space = DmaSpace::identity(&mut spares, ram, phys, bits.0, bits.1, vmid).map_err(TablesError::from)?;
        return Ok(Reach::Ram(space));
    };
    let mut smmus = heapless::Vec::new();
    for device in &plan.devices {
        let smmu = device.grant.stream().smmu;
        if !smmus.contains(&smmu) {
            // As many as the machine has at most.
            let _ = smmus.push(smmu);
        }
    }
    let parts = dmamap::Parts { id: plan.id, name: plan.name, vmid, settings, ram, phys, bits, smmus };
    Ok(Reach::Maps(Maps::new(parts)?))
}

/// A virtual SMMU in front of every SMMU of its devices.
fn virtual_smmu(flush: NestedFlush, plan: &VmPlan) -> VirtualSmmu {
    let most = Ability { has_asid16: true, is_terminate_only: false, has_range_invalidation: true, oas_bits: 48 };
    let each = plan.devices.iter().filter_map(|device| {
        smmu::with(device.grant.stream().smmu, |driver| {
            let features = driver.features();
            Ability {
                has_asid16: features.has_asid16,
                is_terminate_only: features.is_terminate_only,
                has_range_invalidation: features.has_range_invalidation,
                oas_bits: features.oas_bits,
            }
        })
    });
    let ability = each.fold(most, Ability::of_both);
    VirtualSmmu::new(flush, ability)
}

fn answer(function: u32) -> i32 {
    firmware::arch_feature(function).and_then(|answer| i32::try_from(answer).ok()).unwrap_or(-1)
}

#[inline(never)]
fn announce(parts: Parts) {
    let Some(vm) = vm::register(parts) else { return };
    if let Some(maps) = vm.dma.maps() {
        let settings = maps.settings();
        info!(
            "vm {}: dma maps by {}, flush {}, at most {} maps and {} leaf tables",
            vm.name(),
            settings.strategy.name(),
            settings.flush.name(),
            settings.maps,
            settings.tables
        );
        if !settings.flush.is_strict() {
            warn!(
                "vm {}: its devices reach a page for a while after it was unloaded (flush = \"deferred\")",
                vm.name()
            );
        }
    }
    for (vcpu, cpu) in vm.cpus().enumerate() {
        cpu.vcpu.call_once(|| (vm, vcpu));
    }
    for device in vm.devices() {
        let found = bridge::devices().iter().find(|found| found.function == device.function);
        if found.is_some_and(|found| !bridge::prepare_reset(found)) {
            warn!("device {}: it has no reset of its own: what it holds outlives a reset of its VM", device.function);
        }
        info!(
            "vm {}: device {} smmu {} stream {}, {}",
            vm.name(),
            device.function,
            device.stream.smmu.0,
            device.stream.stream,
            Pin(device)
        );
    }
}

/// The way of a device's interrupt, for the boot log.
struct Pin<'a>(&'a Device);

impl core::fmt::Display for Pin<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0.interrupt {
            Some(interrupt) => write!(f, "interrupt {}", interrupt.0),
            None => f.write_str("no interrupt"),
        }
    }
}

/// What is left in abort: every endpoint that belongs to nobody.
#[inline(never)]
fn report_unassigned(ledger: &Ledger) {
    let free = |device: &&PciDevice| device.bridge.is_none() && ledger.owner_of_function(device.function).is_none();
    for device in bridge::devices().iter().filter(free) {
        let stream = boot::machine().stream_of(device.function);
        let is_held = stream.is_some_and(|stream| smmu::with(stream.smmu, |_| ()).is_some());
        let held = if is_held { "in abort, bus mastering off" } else { "bus mastering off, no SMMU in front of it" };
        info!("device {} ({:04x}:{:04x}) belongs to no vm: {held}", device.function, device.vendor, device.device);
        if let Some(fault) = device.fault {
            warn!("device {}: {fault}", device.function);
        }
    }
}
