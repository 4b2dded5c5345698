//! What the interrupts' states add up to: who may take what, who must be told.

use super::{Effects, PRIVATE, SHARED, Vgic, bank::Bank, bits};

/// Whose interrupts an operation is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scope {
    /// One vCPU's own.
    Private(usize),
    /// The SPIs.
    Shared,
}

impl Scope {
    const fn mask(self) -> u64 {
        match self {
            Self::Private(_) => PRIVATE,
            Self::Shared => SHARED,
        }
    }
}

impl Vgic {
    pub(super) fn bank(&self, scope: Scope) -> &Bank {
        match scope {
            Scope::Private(vcpu) => self.cpus.get(vcpu).map_or(&self.spi, |cpu| &cpu.bank),
            Scope::Shared => &self.spi,
        }
    }

    pub(super) fn bank_mut(&mut self, scope: Scope) -> &mut Bank {
        match scope {
            Scope::Private(vcpu) => self.cpus.get_mut(vcpu).map_or(&mut self.spi, |cpu| &mut cpu.bank),
            Scope::Shared => &mut self.spi,
        }
    }

    /// Priority of an interrupt as `vcpu` sees it.
    pub(super) fn priority(&self, vcpu: usize, intid: u32) -> u8 {
        let index = intid as usize;
        match index.checked_sub(32) {
            Some(spi) => self.spi_priority.get(spi).copied().unwrap_or(0),
            None => self.cpus.get(vcpu).and_then(|cpu| cpu.priority.get(index)).copied().unwrap_or(0),
        }
    }

    /// Of the interrupts of `bank`: pending, enabled, and so is their group.
    fn hot(&self, bank: &Bank) -> u64 {
        let mut groups = 0;
        if self.group_enable & 1 != 0 {
            groups |= !bank.group1;
        }
        if self.group_enable & 2 != 0 {
            groups |= bank.group1;
        }
        bank.pending() & bank.enabled & groups
    }

    /// Pending, enabled and in an enabled group; routed anywhere.
    pub(super) fn deliverable(&self, vcpu: usize) -> u64 {
        self.hot(&self.spi) | self.cpus.get(vcpu).map_or(0, |cpu| self.hot(&cpu.bank))
    }

    /// What `vcpu` may take now: deliverable, its own or routed to it, and not active or in a list register elsewhere.
    pub(super) fn ready(&self, vcpu: usize) -> u64 {
        let (Some(cpu), Some(routed)) = (self.cpus.get(vcpu), self.routed.get(vcpu)) else { return 0 };
        let elsewhere = self.spi_busy & !(cpu.active | cpu.resident);
        self.deliverable(vcpu) & (PRIVATE | routed) & !elsewhere
    }

    /// Marks `vcpu` if one of its own interrupts in `set` can be taken. Returns it as a kick mask.
    pub(super) fn wake_private(&mut self, vcpu: usize, set: u64) -> u8 {
        let hot = self.cpus.get(vcpu).map_or(0, |cpu| self.hot(&cpu.bank));
        match self.cpus.get_mut(vcpu) {
            Some(cpu) if hot & set != 0 => {
                cpu.is_dirty = true;
                1 << vcpu
            }
            _ => 0,
        }
    }

    /// Marks the vCPUs that can take an SPI of `set`, or that hold it and must give it up when done.
    pub(super) fn wake_shared(&mut self, set: u64) -> u8 {
        let hot = self.hot(&self.spi) & set;
        if hot == 0 {
            return 0;
        }
        let free = hot & !self.spi_busy;
        let count = self.vcpu_count();
        let mut kick = 0;
        for (vcpu, (cpu, routed)) in self.cpus.iter_mut().zip(&self.routed).take(count).enumerate() {
            if (free & routed) | (hot & (cpu.resident | cpu.active)) != 0 {
                cpu.is_dirty = true;
                kick |= 1 << vcpu;
            }
        }
        kick
    }

    pub(super) fn wake(&mut self, scope: Scope, set: u64) -> u8 {
        match scope {
            Scope::Private(vcpu) => self.wake_private(vcpu, set),
            Scope::Shared => self.wake_shared(set),
        }
    }

    /// vCPUs that have an interrupt of `set` in a list register.
    pub(super) fn holders(&self, scope: Scope, set: u64) -> u8 {
        let mut holders = 0;
        for (vcpu, cpu) in self.cpus.iter().enumerate() {
            let is_meant = scope == Scope::Shared || scope == Scope::Private(vcpu);
            if is_meant && cpu.resident & set & scope.mask() != 0 {
                holders |= 1 << vcpu;
            }
        }
        holders
    }

    /// Makes the `holders` sync and flush.
    pub(super) fn recall(&mut self, holders: u8) -> u8 {
        for vcpu in bits(u64::from(holders)) {
            if let Some(cpu) = self.cpus.get_mut(vcpu as usize) {
                cpu.is_dirty = true;
                cpu.is_recalled = true;
            }
        }
        holders
    }

    /// Tells those who waited for `vcpu`'s sync. Nobody needs a kick for it: they ask again by themselves.
    pub(super) fn acknowledge_recall(&mut self, vcpu: usize) -> u8 {
        let Some(cpu) = self.cpus.get_mut(vcpu) else { return 0 };
        if core::mem::take(&mut cpu.is_recalled) {
            cpu.rwp = false;
            self.dist_rwp &= !(1 << vcpu);
            for waiter in &mut self.cpus {
                waiter.wait.done |= waiter.wait.asked & (1 << vcpu);
            }
        }
        0
    }

    /// After `vcpu` had the SPIs in `before`: those that it has still are busy, the others are not.
    pub(super) fn retake_busy(&mut self, vcpu: usize, before: u64) {
        let held = self.cpus.get(vcpu).map_or(0, |cpu| cpu.active | cpu.resident);
        self.spi_busy = ((self.spi_busy & !before) | held) & SHARED;
    }

    /// Wakes the other vCPUs for the SPIs that `vcpu` has just given up.
    pub(super) fn hand_over(&mut self, vcpu: usize, released: u64) -> u8 {
        let released = released & SHARED & !self.spi_busy & !self.routed.get(vcpu).copied().unwrap_or(0);
        if released == 0 { 0 } else { self.wake_shared(released) }
    }

    /// Physical twins that are active without a reason left: neither pending, nor active, nor in a list register.
    pub(super) fn release_hw(&mut self, vcpu: usize) -> Effects {
        let spi = &mut self.spi;
        let mut orphans = spi.hw_live & !spi.latch & !self.spi_busy;
        spi.hw_live &= !orphans;
        if let Some(cpu) = self.cpus.get_mut(vcpu) {
            let own = cpu.bank.hw_live & !cpu.bank.latch & !cpu.active & !cpu.resident;
            cpu.bank.hw_live &= !own;
            orphans |= own;
        }
        Effects { kick: 0, deactivate: orphans, vcpu: u8::try_from(vcpu).unwrap_or(0) }
    }

    pub(super) fn release_hw_of(&mut self, scope: Scope) -> Effects {
        match scope {
            Scope::Private(vcpu) => self.release_hw(vcpu),
            // Its own PPIs have no orphans between calls, so that any vCPU will do.
            Scope::Shared => self.release_hw(0),
        }
    }
}
