//! Software-generated interrupts: trapped writes to ICC_SGI1R_EL1 and its kin.

use super::{Vgic, state::Scope};
use bulkhead_core::vplat::vcpu_mpidr;

/// Which register the guest wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SgiRegister {
    /// ICC_SGI1R_EL1.
    Sgi1,
    /// ICC_ASGI1R_EL1. With one Security state (GICD_CTLR.DS = 1) it generates group 0 SGIs.
    Asgi1,
    /// ICC_SGI0R_EL1.
    Sgi0,
}

impl Vgic {
    /// Generates the SGI that `vcpu` asks for (IHI 0069 12.2.21). Returns the vCPUs to kick; may name `vcpu`.
    ///
    /// With one Security state, ICC_SGI1R_EL1 makes an SGI of either group pending, the other two only one of group 0.
    pub fn sgi(&mut self, vcpu: usize, register: SgiRegister, value: u64) -> u8 {
        let bit = 1u64 << (value >> 24 & 15);
        let mut kick = 0;
        for target in 0..self.vcpu_count() {
            if !is_target(vcpu, target, value) {
                continue;
            }
            let bank = self.bank_mut(Scope::Private(target));
            if register == SgiRegister::Sgi1 || bank.group1 & bit == 0 {
                bank.latch |= bit;
                kick |= self.wake_private(target, bit);
            }
        }
        kick
    }
}

/// Whether the register's value names the vCPU `target`.
fn is_target(sender: usize, target: usize, value: u64) -> bool {
    if value >> 40 & 1 == 1 {
        return target != sender;
    }
    // Aff3.Aff2.Aff1 in MPIDR's places; a target list covers 16 values of Aff0 from 16 x RS on.
    let cluster = (value >> 48 & 0xff) << 32 | (value >> 32 & 0xff) << 16 | (value >> 16 & 0xff) << 8;
    let mpidr = vcpu_mpidr(target);
    let (range, position) = (mpidr >> 4 & 15, mpidr & 15);
    cluster == mpidr & !0xff && value >> 44 & 15 == range && value >> position & 1 == 1
}
