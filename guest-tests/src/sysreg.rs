//! System registers that programs use by name. Others: see [`crate::code`].

use core::arch::asm;

macro_rules! register {
    ($name:ident, $type:ident, $text:literal, r) => {
        #[doc = concat!("The type of [`", stringify!($name), "`].")]
        pub struct $type;
        #[doc = $text]
        pub const $name: $type = $type;
        impl $type {
            /// Reads the register.
            pub fn read(&self) -> u64 {
                let value: u64;
                // SAFETY: reading this register changes no memory that Rust code knows of.
                unsafe { asm!(concat!("mrs {}, ", $text), out(reg) value, options(nostack)) };
                value
            }
        }
    };
    ($name:ident, $type:ident, $text:literal, w) => {
        #[doc = concat!("The type of [`", stringify!($name), "`].")]
        pub struct $type;
        #[doc = $text]
        pub const $name: $type = $type;
        register!(@write $type, $text);
    };
    ($name:ident, $type:ident, $text:literal, rw) => {
        register!($name, $type, $text, r);
        register!(@write $type, $text);
    };
    (@write $type:ident, $text:literal) => {
        impl $type {
            /// Writes the register and synchronises.
            pub fn write(&self, value: u64) {
                // SAFETY: none of the writable registers listed here has a part in translation or in control flow.
                unsafe { asm!(concat!("msr ", $text, ", {}"), "isb", in(reg) value, options(nostack)) };
            }
        }
    };
}

register!(CURRENT_EL, CurrentEl, "CurrentEL", r);
register!(DAIF, Daif, "DAIF", r);
register!(MPIDR_EL1, MpidrEl1, "MPIDR_EL1", r);
register!(MIDR_EL1, MidrEl1, "MIDR_EL1", r);
register!(TPIDR_EL0, TpidrEl0, "TPIDR_EL0", rw);

register!(CNTFRQ_EL0, CntfrqEl0, "CNTFRQ_EL0", r);
register!(CNTVCT_EL0, CntvctEl0, "CNTVCT_EL0", r);
register!(CNTPCT_EL0, CntpctEl0, "CNTPCT_EL0", r);
register!(CNTV_CTL_EL0, CntvCtlEl0, "CNTV_CTL_EL0", rw);
register!(CNTV_CVAL_EL0, CntvCvalEl0, "CNTV_CVAL_EL0", rw);
register!(CNTP_CTL_EL0, CntpCtlEl0, "CNTP_CTL_EL0", rw);
register!(CNTP_CVAL_EL0, CntpCvalEl0, "CNTP_CVAL_EL0", rw);

register!(ICC_SRE_EL1, IccSreEl1, "ICC_SRE_EL1", rw);
register!(ICC_PMR_EL1, IccPmrEl1, "ICC_PMR_EL1", rw);
register!(ICC_BPR1_EL1, IccBpr1El1, "ICC_BPR1_EL1", rw);
register!(ICC_CTLR_EL1, IccCtlrEl1, "ICC_CTLR_EL1", rw);
register!(ICC_IGRPEN1_EL1, IccIgrpen1El1, "ICC_IGRPEN1_EL1", rw);
register!(ICC_IAR1_EL1, IccIar1El1, "ICC_IAR1_EL1", r);
register!(ICC_EOIR1_EL1, IccEoir1El1, "ICC_EOIR1_EL1", w);
register!(ICC_DIR_EL1, IccDirEl1, "ICC_DIR_EL1", w);
register!(ICC_HPPIR1_EL1, IccHppir1El1, "ICC_HPPIR1_EL1", r);
register!(ICC_RPR_EL1, IccRprEl1, "ICC_RPR_EL1", r);
register!(ICC_AP1R0_EL1, IccAp1r0El1, "ICC_AP1R0_EL1", rw);
register!(ICC_SGI1R_EL1, IccSgi1rEl1, "ICC_SGI1R_EL1", w);
register!(ICC_SGI0R_EL1, IccSgi0rEl1, "ICC_SGI0R_EL1", w);
register!(ICC_ASGI1R_EL1, IccAsgi1rEl1, "ICC_ASGI1R_EL1", w);
