//! Trapped system registers.

use bulkhead_core::esr::SysregAccess;
use bulkhead_vdev::{
    sysreg::{self, Action, IdRegister},
    vgic::Effects,
};

use super::Trapped;
use crate::{stats::Reason, sysreg::read, virtual_gic};

fn raw(register: IdRegister) -> u64 {
    match register {
        IdRegister::Pfr0 => read!("id_aa64pfr0_el1"),
        IdRegister::Pfr1 => read!("id_aa64pfr1_el1"),
        IdRegister::Dfr0 => read!("id_aa64dfr0_el1"),
        IdRegister::Isar0 => read!("id_aa64isar0_el1"),
        IdRegister::Isar1 => read!("id_aa64isar1_el1"),
        IdRegister::Isar2 => read!("s3_0_c0_c6_2"),
        IdRegister::Mmfr0 => read!("id_aa64mmfr0_el1"),
        IdRegister::Mmfr1 => read!("id_aa64mmfr1_el1"),
        IdRegister::Mmfr2 => read!("s3_0_c0_c7_2"),
    }
}

/// Emulates the access, or gives the guest an undefined instruction.
pub fn access(trapped: &mut Trapped<'_>, access: SysregAccess) -> Reason {
    let write = (!access.is_read).then(|| trapped.frame.get(access.rt));
    let (cpu, vm, vcpu) = (trapped.cpu, trapped.vm, trapped.vcpu);
    match sysreg::access(access.register, write, raw) {
        Action::Read(value) => trapped.frame.set(access.rt, value),
        Action::Ignore => (),
        Action::Undefined => {
            trapped.inject_undefined();
            return Reason::Sysreg;
        }
        Action::SgiWrite(which, value) => virtual_gic::with(cpu, vm, vcpu, |vgic| {
            let kick = vgic.sgi(vcpu, which, value);
            ((), Effects { kick, ..Effects::default() })
        }),
        Action::Deactivate(intid) => virtual_gic::with(cpu, vm, vcpu, |vgic| ((), vgic.deactivate(vcpu, intid))),
    }
    trapped.skip();
    Reason::Sysreg
}
