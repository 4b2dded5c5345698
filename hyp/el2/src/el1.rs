//! EL2's control registers, and the state in which a vCPU starts.
//!
//! A CPU belongs to one VM, so nothing here is switched on an exit: it is written once, and again when the VM boots again.

use aarch64_cpu::registers::{
    CNTHCTL_EL2, CNTVOFF_EL2, CPTR_EL2, ELR_EL2, HCR_EL2, ID_AA64DFR0_EL1, ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1,
    ID_AA64PFR0_EL1, ID_AA64PFR1_EL1, MDCR_EL2, MIDR_EL1, Readable, SCTLR_EL1, SPSR_EL2, VMPIDR_EL2, VTCR_EL2,
    VTTBR_EL2, Writeable,
};
use bulkhead_core::{stage2::S2Config, vplat};

use crate::{percpu::PerCpu, sysreg};

/// HCR_EL2 (DDI 0487) while a guest runs. WFI and WFE are not trapped: the CPU is the guest's own.
const HCR: u64 =
    HCR_VM | HCR_SWIO | HCR_PTW | HCR_ROUTE | HCR_TID3 | HCR_TSC | HCR_TIDCP | HCR_TACR | HCR_RW | HCR_PAUTH;
/// Stage 2 on.
const HCR_VM: u64 = 1 << 0;
/// Invalidation by set and way cleans too: a guest may lose its own data, nobody else's.
const HCR_SWIO: u64 = 1 << 1;
/// A walk of the guest's own table through device memory faults: the walker must not read a device's registers.
const HCR_PTW: u64 = 1 << 2;
/// FIQ, IRQ and SError come to EL2.
const HCR_ROUTE: u64 = 1 << 3 | 1 << 4 | 1 << 5;
/// ID registers are trapped and filtered.
const HCR_TID3: u64 = 1 << 18;
/// SMC is trapped.
const HCR_TSC: u64 = 1 << 19;
/// Implementation-defined registers are trapped.
const HCR_TIDCP: u64 = 1 << 20;
/// ACTLR_EL1 is trapped.
const HCR_TACR: u64 = 1 << 21;
/// EL1 is AArch64.
const HCR_RW: u64 = 1 << 31;
/// Pointer authentication is the guest's: keys and instructions are not trapped.
const HCR_PAUTH: u64 = 1 << 40 | 1 << 41;
/// LORegion registers are trapped, where they exist.
const HCR_TLOR: u64 = 1 << 35;
/// RAS error records are trapped, where they exist.
const HCR_TERR: u64 = 1 << 36;

/// CPTR_EL2 without VHE: RES1 bits, SVE (TZ) and SME (TSM) trapped, trace (TTA) and activity monitors (TAM) too; FP is the guest's.
const CPTR: u64 = 0x33ff | 1 << 20 | 1 << 30;

/// MDCR_EL2: debug (TDA, TDOSA, TDRA), PMU (TPM, TPMCR), SPE (TPMS) and trace filters (TTRF) trapped.
const MDCR_TRAPS: u64 = 1 << 5 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 14 | 1 << 19;

/// EL1h, all interrupts masked.
const SPSR_START: u64 = 0x3c5;
/// SCTLR_EL1 at reset: MMU and caches off, RES1 bits of ARMv8.0.
const SCTLR_EL1_START: u64 = 0x30d0_0800;

/// Writes every EL2 control register that firmware or a boot loader may have left in any state.
pub fn init_el2() {
    // E2H and TGE off first: the meaning of other registers depends on them.
    HCR_EL2.set(HCR_RW);
    sysreg::isb();
    CPTR_EL2.set(CPTR);
    let counters = match ID_AA64DFR0_EL1.get() >> 8 & 0xf {
        0 | 0xf => 0,
        _ => sysreg::read!("pmcr_el0") >> 11 & 0x1f,
    };
    MDCR_EL2.set(MDCR_TRAPS | counters);
    crate::instructions::start(counters);
    sysreg::write!("hstr_el2", 0);
    // No implementation-defined control is handed down (L2CTLR_EL1, CPUECTLR_EL1 and their kin).
    sysreg::write!("actlr_el2", 0);
    CNTHCTL_EL2.set(3);
    CNTVOFF_EL2.set(0);
    VTTBR_EL2.set(0);
    sysreg::write!("vpidr_el2", MIDR_EL1.get());
    sysreg::write!("cnthp_ctl_el2", 0);
    if ID_AA64MMFR1_EL1.get() >> 40 & 0xf != 0 {
        // HCRX_EL2 (FEAT_HCX): nothing beyond ARMv8 is enabled for guests.
        sysreg::write!("s3_4_c1_c2_2", 0);
    }
    if ID_AA64MMFR0_EL1.get() >> 56 & 0xf != 0 {
        // Fine-grained traps (FEAT_FGT): HFGRTR, HFGWTR, HFGITR, HDFGRTR, HDFGWTR.
        sysreg::write!("s3_4_c1_c1_4", 0);
        sysreg::write!("s3_4_c1_c1_5", 0);
        sysreg::write!("s3_4_c1_c1_6", 0);
        sysreg::write!("s3_4_c3_c1_4", 0);
        sysreg::write!("s3_4_c3_c1_5", 0);
    }
    if ID_AA64MMFR0_EL1.get() >> 56 & 0xf >= 2 {
        // FEAT_FGT2: HDFGRTR2, HDFGWTR2, HFGRTR2, HFGWTR2, HFGITR2.
        sysreg::write!("s3_4_c3_c1_0", 0);
        sysreg::write!("s3_4_c3_c1_1", 0);
        sysreg::write!("s3_4_c3_c1_2", 0);
        sysreg::write!("s3_4_c3_c1_3", 0);
        sysreg::write!("s3_4_c3_c1_7", 0);
    }
    if ID_AA64PFR0_EL1.get() >> 40 & 0xf != 0 || ID_AA64PFR1_EL1.get() >> 16 & 0xf != 0 {
        // MPAM2_EL2: guests' partition registers are trapped (TRAPMPAM1EL1, TRAPMPAM0EL1), EL2 stays in partition 0.
        sysreg::write!("s3_4_c10_c5_0", 3 << 48);
    }
    sysreg::isb();
}

/// Puts this CPU's EL1 in its reset state and points it at `entry` with `context` in x0 (the caller's trap frame).
pub fn start_vcpu(config: &S2Config, vcpu: usize, counter_offset: u64, entry: u64) {
    VMPIDR_EL2.set(1 << 31 | vplat::vcpu_mpidr(vcpu));
    VTCR_EL2.set(config.vtcr_el2(false));
    VTTBR_EL2.set(config.vttbr_el2());
    CNTVOFF_EL2.set(counter_offset);
    let ras = if ID_AA64PFR0_EL1.get() >> 28 & 0xf != 0 { HCR_TERR } else { 0 };
    let regions = if ID_AA64MMFR1_EL1.get() >> 16 & 0xf != 0 { HCR_TLOR } else { 0 };
    HCR_EL2.set(HCR | ras | regions);
    SCTLR_EL1.set(SCTLR_EL1_START);
    macro_rules! clear {
        ($($name:literal)*) => { $(sysreg::write!($name, 0);)* };
    }
    clear!("ttbr0_el1" "ttbr1_el1" "tcr_el1" "mair_el1" "amair_el1" "vbar_el1" "esr_el1" "far_el1" "afsr0_el1" "afsr1_el1");
    clear!("cpacr_el1" "contextidr_el1" "tpidr_el0" "tpidrro_el0" "tpidr_el1" "cntkctl_el1" "csselr_el1" "par_el1");
    // ICC_SRE_EL1: system registers on, no bypass.
    sysreg::write!("icc_sre_el1", 7);
    clear!("cntv_ctl_el0" "cntv_cval_el0" "cntp_ctl_el0" "cntp_cval_el0" "sp_el0" "sp_el1" "elr_el1" "spsr_el1" "mdscr_el1");
    crate::virtual_gic::reset_interface();
    ELR_EL2.set(entry);
    SPSR_EL2.set(SPSR_START);
    // The registers above are in force before the VM's stale translations are dropped, on this CPU.
    sysreg::isb();
    sysreg::instruction!("dsb nshst");
    sysreg::instruction!("tlbi vmalls12e1");
    sysreg::instruction!("ic iallu");
    sysreg::instruction!("dsb nsh");
    sysreg::isb();
}

/// Switches this CPU's EL1 off: no walk of the guest's tables, then no stage 2 (speculative walks included; Cortex-A57
/// erratum 1319537 and its kin).
pub fn leave_vcpu() {
    const EPD0_EPD1: u64 = 1 << 7 | 1 << 23;
    SCTLR_EL1.set(SCTLR_EL1_START);
    sysreg::write!("tcr_el1", EPD0_EPD1);
    sysreg::isb();
    HCR_EL2.set(HCR_RW);
    VTTBR_EL2.set(0);
    sysreg::isb();
}

unsafe extern "C" {
    /// Drops this CPU's stack to `frame` and enters the guest with the registers there (vectors.s).
    fn run_guest(frame: *const crate::frame::TrapFrame) -> !;
}

/// Enters the guest for the first time, with `context` in x0 and every other register zero.
pub fn enter(cpu: &PerCpu, context: u64) -> ! {
    let address = usize::try_from(cpu.stack_top).unwrap_or(0) - size_of::<crate::frame::TrapFrame>();
    let frame: *mut crate::frame::TrapFrame = core::ptr::with_exposed_provenance_mut(address);
    let mut start = crate::frame::TrapFrame::ZERO;
    start.x[0] = context;
    // SAFETY: the topmost 256 bytes of this CPU's own stack hold nothing that is still needed: `enter` never returns.
    unsafe { frame.write(start) };
    // SAFETY: the frame is whole and stands at the stack's top, where `guest_exit` expects to be entered.
    unsafe { run_guest(frame) }
}
