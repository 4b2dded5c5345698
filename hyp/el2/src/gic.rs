//! The physical GICv3: hypervisor's interrupts, guests' lines, kicks between CPUs.
//!
//! EOImode is 1 (IHI 0069 3.7): EL2 drops the priority of every interrupt at once; what belongs to a guest stays active until
//! the guest's own end-of-interrupt deactivates it through the hardware link of its list register.

use core::ptr::NonNull;

use arm_gic::{
    IntId as GicIntId, InterruptGroup, Trigger, UniqueMmioPointer,
    gicv3::{
        GicCpuInterface, GicV3,
        registers::{Gicd, GicrSgi},
    },
};
use bulkhead_core::{
    addr::PhysAddr,
    ids::{IntId, Mpidr},
};

use crate::{lock::Mutex, sysreg};

/// The SGI that makes a CPU leave its guest.
pub const KICK: IntId = IntId(0);

static GIC: Mutex<Option<GicV3<'static>>> = Mutex::new(None);

/// What went wrong with the GIC.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[repr(u64)]
pub enum GicError {
    /// The driver refused the registers.
    #[error("the GIC at {0} does not answer as a GICv3")]
    NotGicV3(PhysAddr),
    /// No redistributor carries the CPU's affinity.
    #[error("no GIC redistributor has affinity {0:#x}")]
    NoRedistributor(u64),
    /// SGIs cannot reach the CPU.
    #[error("affinity {0:#x}: this GIC sends no SGI to Aff0 of 16 and above")]
    NoRangeSelector(u64),
    /// An interrupt that the GIC does not have.
    #[error("interrupt {0} is past what the GIC implements")]
    NoInterrupt(u32),
}

fn pointer<T>(address: PhysAddr) -> Option<NonNull<T>> {
    NonNull::new(core::ptr::with_exposed_provenance_mut(usize::try_from(address.as_u64()).ok()?))
}

/// An interrupt in the driver's terms; `None` above the SPIs.
fn gic_id(interrupt: IntId) -> Option<GicIntId> {
    match interrupt.0 {
        0..16 => Some(GicIntId::sgi(interrupt.0)),
        16..32 => Some(GicIntId::ppi(interrupt.0 - 16)),
        32..1020 => Some(GicIntId::spi(interrupt.0 - 32)),
        _ => None,
    }
}

/// Sets the distributor up: every interrupt off, group 1, level, one priority.
///
/// # Safety
/// The ranges are a GICv3's, mapped as device memory; nobody else uses them.
///
/// # Errors
/// Not a GICv3.
pub unsafe fn init(distributor: PhysAddr, redistributors: PhysAddr, cpus: usize) -> Result<(), GicError> {
    let error = GicError::NotGicV3(distributor);
    let gicd = pointer::<Gicd>(distributor).ok_or(error)?;
    let gicr = pointer::<GicrSgi>(redistributors).ok_or(error)?;
    GicCpuInterface::enable_system_register_el2(true);
    sysreg::isb();
    // SAFETY: the caller's promise.
    let gicd = unsafe { UniqueMmioPointer::new(gicd) };
    // SAFETY: the caller's promise.
    let mut gic = unsafe { GicV3::new(gicd, gicr, cpus) }.map_err(|_| error)?;
    gic.init_cpu(0);
    for cpu in 0..cpus {
        let mut redistributor = gic.redistributor(cpu).map_err(|_| error)?;
        redistributor.enable_all_interrupts(false);
        redistributor.configure_default_settings();
    }
    gic.distributor().enable_all_interrupts(false);
    gic.distributor().configure_default_settings();
    GicCpuInterface::enable_group1(true);
    *GIC.lock() = Some(gic);
    Ok(())
}

/// Sets this CPU's interface up and finds its redistributor.
///
/// # Errors
/// No redistributor carries `mpidr`.
pub fn init_cpu(mpidr: Mpidr, cpus: usize) -> Result<usize, GicError> {
    GicCpuInterface::enable_system_register_el2(true);
    sysreg::isb();
    let missing = GicError::NoRedistributor(mpidr.as_u64());
    let mut guard = GIC.lock();
    let gic = guard.as_mut().ok_or(missing)?;
    let index = (0..cpus)
        .find(|&index| gic.gicr_typer(index).is_ok_and(|typer| Mpidr::new(typer.core_mpidr()) == mpidr))
        .ok_or(missing)?;
    gic.init_cpu(index);
    drop(guard);
    // ICC_CTLR_EL1.RSS: kicks reach Aff0 of 16 and above.
    if mpidr.as_u64() & 0xf0 != 0 && sysreg::read!("icc_ctlr_el1") >> 18 & 1 == 0 {
        return Err(GicError::NoRangeSelector(mpidr.as_u64()));
    }
    GicCpuInterface::enable_group1(true);
    GicCpuInterface::set_priority_mask(0xff);
    sysreg::write!("icc_bpr1_el1", 0);
    // EOImode: end-of-interrupt drops the priority, ICC_DIR_EL1 deactivates.
    sysreg::write!("icc_ctlr_el1", 1 << 1);
    sysreg::isb();
    enable_private(index, KICK, true)?;
    prefer(index, KICK)?;
    Ok(index)
}

fn with_gic<R>(
    interrupt: IntId,
    f: impl FnOnce(&mut GicV3<'static>, GicIntId) -> Result<R, arm_gic::gicv3::GicError>,
) -> Result<R, GicError> {
    let missing = GicError::NoInterrupt(interrupt.0);
    let id = gic_id(interrupt).ok_or(missing)?;
    let mut guard = GIC.lock();
    let gic = guard.as_mut().ok_or(missing)?;
    if id.is_spi() && interrupt.0 - 32 >= gic.typer().num_spis() {
        return Err(missing);
    }
    f(gic, id).map_err(|_| missing)
}

/// Turns an SGI or PPI of one redistributor on or off.
///
/// # Errors
/// The GIC has no such interrupt.
pub fn enable_private(redistributor: usize, interrupt: IntId, is_on: bool) -> Result<(), GicError> {
    with_gic(interrupt, |gic, id| gic.enable_interrupt(id, Some(redistributor), is_on))
}

/// Puts an interrupt of the hypervisor before all those of guests.
///
/// # Errors
/// The GIC has no such interrupt.
pub fn prefer(redistributor: usize, interrupt: IntId) -> Result<(), GicError> {
    const URGENT: u8 = 0x40;
    with_gic(interrupt, |gic, id| gic.set_interrupt_priority(id, Some(redistributor), URGENT))
}

/// Routes an SPI to one CPU and turns it on.
///
/// # Errors
/// The GIC has no such interrupt.
pub fn enable_shared(interrupt: IntId, is_edge: bool, target: Mpidr) -> Result<(), GicError> {
    with_gic(interrupt, |gic, id| {
        gic.set_trigger(id, None, if is_edge { Trigger::Edge } else { Trigger::Level })?;
        gic.distributor().set_routing(id, Some(target.as_u64()))?;
        gic.enable_interrupt(id, None, true)
    })
}

/// Turns an SPI off.
pub fn disable_shared(interrupt: IntId) {
    let _ = with_gic(interrupt, |gic, id| gic.enable_interrupt(id, None, false));
}

/// Takes the most urgent pending interrupt of this CPU and drops its priority at once; it stays active.
pub fn acknowledge() -> Option<IntId> {
    let id = GicCpuInterface::get_and_acknowledge_interrupt(InterruptGroup::Group1)?;
    let raw = u32::from(id);
    if raw >= 1020 {
        return None;
    }
    GicCpuInterface::end_interrupt(id, InterruptGroup::Group1);
    // What the interrupt announces is read after it was acknowledged.
    sysreg::dsb_sy();
    sysreg::isb();
    Some(IntId(raw))
}

/// Deactivates an interrupt; one that is not active is left as it is.
pub fn deactivate(interrupt: IntId) {
    sysreg::write!("icc_dir_el1", u64::from(interrupt.0));
    sysreg::isb();
}

/// Sends the kick to one CPU.
pub fn send_kick(target: Mpidr) {
    let affinity = target.as_u64();
    let field = |from: u32, to: u32| (affinity >> from & 0xff) << to;
    // ICC_SGI1R_EL1 (IHI 0069 12.2.21): a list of 16 values of Aff0, from 16 x RS on. `init_cpu` saw that RS is there.
    let list = 1u64 << (affinity & 15) | (affinity >> 4 & 15) << 44;
    let value = list | field(8, 16) | field(16, 32) | field(32, 48) | u64::from(KICK.0) << 24;
    // Stores that the kick announces are visible before it arrives.
    sysreg::instruction!("dsb ishst");
    sysreg::write!("icc_sgi1r_el1", value);
    sysreg::isb();
}

/// Turns off an interrupt that nobody knows, so that it cannot come again and again.
pub fn disable_stray(cpu: &crate::percpu::PerCpu, interrupt: IntId) {
    log::warn!("{}: interrupt {} belongs to nobody; it is turned off", cpu.id, interrupt.0);
    if interrupt.is_spi() {
        disable_shared(interrupt);
    } else {
        let redistributor = cpu.redistributor.load(core::sync::atomic::Ordering::Relaxed);
        let _ = enable_private(usize::try_from(redistributor).unwrap_or(0), interrupt, false);
    }
}
