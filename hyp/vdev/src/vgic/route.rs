//! Where an SPI goes (GICD_IROUTER), and the operations behind the set and clear registers.

use super::{Effects, SHARED, Vgic, bits, state::Scope};
use bulkhead_core::vplat::vcpu_mpidr;

/// GICD_IROUTER.Interrupt_Routing_Mode: any participating PE.
const ANY: u64 = 1 << 31;
/// Affinity fields and the mode.
const ROUTE: u64 = 0xff_00ff_ffff | ANY;

impl Vgic {
    pub(super) fn set_route(&mut self, spi: usize, value: u64) -> Effects {
        match self.route.get_mut(spi) {
            Some(route) if *route != value & ROUTE => *route = value & ROUTE,
            _ => return Effects::default(),
        }
        self.recompute_routes();
        let bit = 1u64.checked_shl(u32::try_from(spi).unwrap_or(64).saturating_add(32)).unwrap_or(0);
        let holders = self.holders(Scope::Shared, bit);
        Effects::kick(self.recall(holders) | self.wake_shared(bit))
    }

    /// Rebuilds `routed` from IROUTER; mode "any" means the first vCPU that is awake, else vCPU 0.
    pub(super) fn recompute_routes(&mut self) {
        let count = self.vcpu_count();
        let any = self.cpus.iter().take(count).position(|cpu| !cpu.is_asleep).unwrap_or(0);
        for (vcpu, routed) in self.routed.iter_mut().enumerate() {
            *routed = 0;
            if vcpu >= count {
                continue;
            }
            for (spi, &route) in self.route.iter().enumerate() {
                let is_target = if route & ANY == 0 { route == vcpu_mpidr(vcpu) } else { vcpu == any };
                if is_target {
                    *routed |= 1 << (spi + 32);
                }
            }
        }
    }

    pub(super) fn set_enable(&mut self, scope: Scope, set: u64) -> Effects {
        self.bank_mut(scope).enabled |= set;
        Effects::kick(self.wake(scope, set))
    }

    pub(super) fn clear_enable(&mut self, scope: Scope, set: u64) -> Effects {
        let set = set & self.bank(scope).enabled;
        self.bank_mut(scope).enabled &= !set;
        let holders = self.holders(scope, set);
        match scope {
            Scope::Shared => self.dist_rwp |= holders,
            Scope::Private(vcpu) => {
                if let Some(cpu) = self.cpus.get_mut(vcpu) {
                    cpu.rwp |= holders != 0;
                }
            }
        }
        Effects::kick(self.recall(holders))
    }

    pub(super) fn set_pending(&mut self, scope: Scope, set: u64) -> Effects {
        self.bank_mut(scope).latch |= set;
        Effects::kick(self.wake(scope, set))
    }

    pub(super) fn clear_pending(&mut self, scope: Scope, set: u64) -> Effects {
        self.bank_mut(scope).latch &= !set;
        let holders = self.holders(scope, set);
        for vcpu in bits(u64::from(holders)) {
            if let Some(cpu) = self.cpus.get_mut(vcpu as usize) {
                cpu.cancel_pending |= set & cpu.resident;
            }
        }
        let kick = self.recall(holders);
        Effects { kick, ..self.release_hw_of(scope) }
    }

    /// Makes interrupts active that the guest has not taken (GICD_ISACTIVER).
    pub(super) fn set_active(&mut self, scope: Scope, set: u64) -> Effects {
        let mut kick = 0;
        for intid in bits(set) {
            let bit = 1u64 << (intid & 63);
            let vcpu = match scope {
                Scope::Private(vcpu) => vcpu,
                Scope::Shared => self.owner(bit),
            };
            if let Some(cpu) = self.cpus.get_mut(vcpu) {
                cpu.active |= bit;
                cpu.is_dirty = true;
                kick |= 1 << vcpu;
            }
            self.spi_busy |= bit & SHARED;
        }
        Effects::kick(kick)
    }

    /// The vCPU that holds an SPI, else its target, else vCPU 0.
    fn owner(&self, bit: u64) -> usize {
        let holder = self.cpus.iter().position(|cpu| (cpu.active | cpu.resident) & bit != 0);
        holder.or_else(|| self.routed.iter().position(|routed| routed & bit != 0)).unwrap_or(0)
    }

    pub(super) fn clear_active(&mut self, scope: Scope, set: u64) -> Effects {
        for (vcpu, cpu) in self.cpus.iter_mut().enumerate() {
            if scope == Scope::Shared || scope == Scope::Private(vcpu) {
                cpu.is_dirty |= cpu.active & set != 0;
                cpu.active &= !set;
                cpu.cancel_active |= set & cpu.resident;
            }
        }
        let held = self.cpus.iter().fold(0, |held, cpu| held | cpu.active | cpu.resident);
        self.spi_busy &= held;
        let holders = self.holders(scope, set);
        let kick = self.recall(holders) | self.wake(scope, set);
        Effects { kick, ..self.release_hw_of(scope) }
    }

    /// Ends an active interrupt by a trapped ICC_DIR_EL1 write of `vcpu`, which must have been synced.
    pub fn deactivate(&mut self, vcpu: usize, intid: u32) -> Effects {
        let Some(bit) = super::intid_bit(intid) else { return Effects::default() };
        let scope = if bit & SHARED == 0 { Scope::Private(vcpu) } else { Scope::Shared };
        self.clear_active(scope, bit)
    }
}
