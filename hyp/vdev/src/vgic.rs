//! Virtual GICv3 of one VM: distributor, redistributors, list registers.
//!
//! INTIDs are 0 to 63, so every set of interrupts is one `u64`: bits 0-31 are a vCPU's own (SGI, PPI), bits 32-63 are
//! the VM's SPIs.
//!
//! # What EL2 does
//! - On an exit that touches the GIC, and before `inject` for the vCPU that exited: read the list registers in
//!   [`ListRegisters::used`] and call [`Vgic::sync`]. It takes all state out of them; a second call is harmless.
//! - Before entry: if [`Vgic::needs_flush`], call [`Vgic::flush`] (which syncs by itself if that has not been done, from
//!   the values in `ListRegisters`, so they must have been read) and write the list registers in [`Flush::write`] and
//!   ICH_HCR_EL2.
//! - Every call returns [`Effects`] or a kick mask: the vCPUs named in it must leave the guest, sync and flush (an SGI
//!   to their physical CPUs); the calling vCPU does so on its way out anyway. Physical interrupts named in it are to be
//!   deactivated.
//! - A maintenance interrupt needs nothing but sync and flush.
//! - A vCPU that goes off is synced first and not flushed: what others ask of it meanwhile must not wait for it.
//!
//! # An interrupt that sits in a list register of another, running vCPU
//! State that moved into a list register left the bitmaps here, so nothing exists twice. What a guest changes meanwhile
//! (ICENABLER, ICPENDR, ICACTIVER…) is noted and applied when that vCPU syncs, for which it is kicked: the write is
//! posted. GICD_CTLR.RWP and GICR_CTLR.RWP read 1 until a disable has arrived there. A read of a pending or active
//! state returns [`Read::Retry`]: kick, return to the guest without advancing its PC; the access then traps again and
//! succeeds once the other vCPU has synced.
//!
//! # Hardware-linked interrupts
//! EL2 acknowledges with EOImode 1: priority drop at once, and the physical interrupt stays active until the guest
//! deactivates its virtual twin (the list register's HW bit) or this model returns it in [`Effects`].

mod bank;
mod dist;
mod entry;
mod lr;
mod redist;
mod route;
mod sgi;
mod state;
#[cfg(test)]
mod tests;

pub use entry::Flush;
pub use lr::{Entry, LRS_MAX, ListRegisters, hcr, numbers};
pub use sgi::SgiRegister;

use bank::{Bank, Cpu};
use bulkhead_core::vplat::{INTIDS, PTIMER_INTID, VCPUS_MAX, VTIMER_INTID};

/// Bits of a vCPU's own interrupts.
const PRIVATE: u64 = 0xffff_ffff;
/// Bits of the SPIs.
const SHARED: u64 = !PRIVATE;

/// What EL2 has to do after a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use = "a kick or a deactivation that is dropped loses an interrupt"]
pub struct Effects {
    /// vCPUs that must leave the guest, sync and flush. May name the caller, which does so anyway.
    pub kick: u8,
    /// INTIDs whose physical twin must be deactivated; see [`Vgic::deactivations`].
    pub deactivate: u64,
    /// The vCPU whose PPIs `deactivate` means.
    pub vcpu: u8,
}

impl Effects {
    /// Whether there is nothing to do.
    pub const fn is_empty(self) -> bool {
        self.kick == 0 && self.deactivate == 0
    }

    const fn kick(kick: u8) -> Self {
        Self { kick, deactivate: 0, vcpu: 0 }
    }
}

/// A physical interrupt to deactivate (ICC_DIR_EL1 on the vCPU's own physical CPU, else I[CS]ACTIVER).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deactivation {
    /// For a PPI, the vCPU on whose physical CPU it is; for an SPI without meaning.
    pub vcpu: usize,
    /// Physical INTID.
    pub physical: u16,
}

/// Result of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// The value, narrowed to the access.
    Value(u64),
    /// Kick these vCPUs and let the guest repeat the access: return to it without advancing its PC.
    Retry(u8),
}

/// Physical interrupts that a reset leaves active, to be deactivated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "an interrupt that stays active never fires again"]
pub struct ResetEffects {
    /// By vCPU: its own PPIs, and in element 0 the SPIs as well. Bits are virtual INTIDs.
    pub deactivate: [u64; VCPUS_MAX],
}

/// Why an interrupt cannot be linked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LinkError {
    /// Only PPIs and SPIs below the model's limit have a physical twin.
    #[error("virtual interrupt {0} cannot be linked to hardware: it is not in 16..64")]
    Virtual(u32),
    /// ICH_LR<n>_EL2.pINTID has no room for it, or it is an SGI.
    #[error("physical interrupt {0} cannot be linked: it is not in 16..1020")]
    Physical(u32),
}

/// The virtual GICv3 of one VM. Not locked: EL2 holds one lock around it.
#[derive(Clone, Debug)]
pub struct Vgic {
    cpus: [Cpu; VCPUS_MAX],
    vcpu_count: u8,
    spi: Bank,
    spi_priority: [u8; 32],
    route: [u64; 32],
    /// By vCPU: the SPIs that IROUTER sends to it.
    routed: [u64; VCPUS_MAX],
    /// SPIs that are active on some vCPU or in one of its list registers: they are no other's candidates.
    spi_busy: u64,
    /// GICD_CTLR.EnableGrp0 and EnableGrp1.
    group_enable: u32,
    /// vCPUs that GICD_CTLR.RWP waits for.
    dist_rwp: u8,
    /// Physical INTID by virtual INTID, 0 for none.
    physical: [u16; INTIDS as usize],
}

impl Vgic {
    /// A GIC in its reset state for `vcpu_count` vCPUs (taken as 1 to 8), with the EL1 timers' PPIs linked.
    pub fn new(vcpu_count: usize) -> Self {
        let mut physical = [0; INTIDS as usize];
        for timer in [VTIMER_INTID, PTIMER_INTID] {
            if let (Some(slot), Ok(intid)) = (physical.get_mut(timer.0 as usize), u16::try_from(timer.0)) {
                *slot = intid;
            }
        }
        let mut vgic = Self {
            cpus: [Cpu::default(); VCPUS_MAX],
            vcpu_count: u8::try_from(vcpu_count.clamp(1, VCPUS_MAX)).unwrap_or(1),
            spi: Bank::default(),
            spi_priority: [0; 32],
            route: [0; 32],
            routed: [0; VCPUS_MAX],
            spi_busy: 0,
            group_enable: 0,
            dist_rwp: 0,
            physical,
        };
        vgic.recompute_routes();
        vgic
    }

    /// How many vCPUs it serves.
    pub fn vcpu_count(&self) -> usize {
        usize::from(self.vcpu_count)
    }

    /// Back to the reset state; links stay. No vCPU may be in the guest; EL2 zeroes their list registers.
    ///
    /// Returns the physical interrupts that the VM had not deactivated.
    pub fn reset(&mut self) -> ResetEffects {
        let mut deactivate = [0; VCPUS_MAX];
        let mut spis = self.spi.hw_live;
        for (cpu, out) in self.cpus.iter().zip(&mut deactivate) {
            *out = (cpu.bank.hw_live | cpu.lr_hw) & PRIVATE;
            spis |= cpu.lr_hw & SHARED;
        }
        if let Some(first) = deactivate.first_mut() {
            *first |= spis;
        }
        let physical = self.physical;
        *self = Self::new(self.vcpu_count());
        self.physical = physical;
        ResetEffects { deactivate }
    }

    /// Ties virtual interrupt `intid` (a PPI or SPI) to a physical one of any number below 1020.
    ///
    /// # Errors
    /// [`LinkError`] when either is out of range; nothing has changed.
    pub fn link(&mut self, intid: u32, physical: u32) -> Result<(), LinkError> {
        if intid < 16 {
            return Err(LinkError::Virtual(intid));
        }
        let slot = self.physical.get_mut(intid as usize).ok_or(LinkError::Virtual(intid))?;
        let number = u16::try_from(physical).map_err(|_| LinkError::Physical(physical))?;
        if !(16..1020).contains(&number) {
            return Err(LinkError::Physical(physical));
        }
        *slot = number;
        Ok(())
    }

    /// The physical interrupts that `effects` asks to deactivate.
    pub fn deactivations(&self, effects: Effects) -> impl Iterator<Item = Deactivation> + '_ {
        self.physical_of(usize::from(effects.vcpu), effects.deactivate)
    }

    /// The physical interrupts that a reset left active, of one vCPU (SPIs with vCPU 0).
    pub fn reset_deactivations(&self, effects: &ResetEffects, vcpu: usize) -> impl Iterator<Item = Deactivation> + '_ {
        self.physical_of(vcpu, effects.deactivate.get(vcpu).copied().unwrap_or(0))
    }

    fn physical_of(&self, vcpu: usize, intids: u64) -> impl Iterator<Item = Deactivation> + '_ {
        bits(intids).filter_map(move |intid| {
            let physical = *self.physical.get(intid as usize)?;
            (physical != 0).then_some(Deactivation { vcpu, physical })
        })
    }

    /// Makes an interrupt pending: one of `vcpu`'s own (0-31), or an SPI, whose target IROUTER names.
    ///
    /// For a linked interrupt this says that the physical one has been acknowledged and is active. Returns the vCPUs to
    /// kick: none when the interrupt is disabled or nobody's; it then stays pending.
    pub fn inject(&mut self, vcpu: usize, intid: u32) -> u8 {
        let Some(bit) = intid_bit(intid) else { return 0 };
        let is_linked = self.physical.get(intid as usize).is_some_and(|&physical| physical != 0);
        let hw = if is_linked { bit } else { 0 };
        if bit & PRIVATE == 0 {
            self.spi.latch |= bit;
            self.spi.hw_live |= hw;
            return self.wake_shared(bit);
        }
        if vcpu >= self.vcpu_count() {
            return 0;
        }
        let Some(cpu) = self.cpus.get_mut(vcpu) else { return 0 };
        cpu.bank.latch |= bit;
        cpu.bank.hw_live |= hw;
        self.wake_private(vcpu, bit)
    }

    /// Makes an SPI pending, as [`Vgic::inject`] does. Other INTIDs are ignored.
    pub fn inject_spi(&mut self, intid: u32) -> u8 {
        if intid < 32 { 0 } else { self.inject(0, intid) }
    }

    /// Drives the input line of an SPI that has no physical twin. Returns the vCPUs to kick.
    ///
    /// A fall is not kicked for: an interrupt that is already in a running vCPU's list register may still be taken, as
    /// a spurious one, which IHI 0069 4.1.2 lets happen on a real machine too.
    pub fn set_level(&mut self, intid: u32, is_high: bool) -> u8 {
        let Some(bit) = intid_bit(intid).filter(|bit| bit & SHARED != 0) else { return 0 };
        let was_high = self.spi.level & bit != 0;
        if is_high == was_high {
            return 0;
        }
        if is_high {
            self.spi.level |= bit;
            self.spi.latch |= bit & self.spi.edge;
            return self.wake_shared(bit);
        }
        self.spi.level &= !bit;
        for cpu in &mut self.cpus {
            cpu.is_dirty |= cpu.resident & bit != 0;
        }
        0
    }

    /// A pulse on the input line of an SPI that has no physical twin, and whose line is low: an edge-triggered one becomes
    /// pending, a level-sensitive one does not stay so. Returns the vCPUs to kick.
    pub fn pulse(&mut self, intid: u32) -> u8 {
        let Some(bit) = intid_bit(intid).filter(|bit| bit & SHARED != 0) else { return 0 };
        if bit & self.spi.edge & !self.spi.latch == 0 {
            return 0;
        }
        self.spi.latch |= bit;
        self.wake_shared(bit)
    }

    /// Whether [`Vgic::flush`] has anything to do before this vCPU enters the guest.
    pub fn needs_flush(&self, vcpu: usize) -> bool {
        self.cpus.get(vcpu).is_some_and(|cpu| cpu.is_dirty)
    }

    /// Whether an enabled interrupt waits for this vCPU, outside its list registers. What PSCI CPU_SUSPEND asks.
    pub fn has_pending(&self, vcpu: usize) -> bool {
        self.ready(vcpu) != 0
    }
}

/// The bit of an INTID; `None` for 64 and above.
const fn intid_bit(intid: u32) -> Option<u64> {
    1u64.checked_shl(intid)
}

/// The numbers of the set bits, lowest first.
#[inline]
fn bits(mut set: u64) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let lowest = (set != 0).then(|| set.trailing_zeros())?;
        set &= set - 1;
        Some(lowest)
    })
}
