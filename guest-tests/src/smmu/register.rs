//! Offsets and bits of registers (IHI 0070 chapter 6).

/// IDR0.
pub const IDR0: u64 = 0x00;
/// IDR1.
pub const IDR1: u64 = 0x04;
/// IDR5.
pub const IDR5: u64 = 0x14;
/// CR0.
pub const CR0: u64 = 0x20;
/// CR0ACK.
pub const CR0ACK: u64 = 0x24;
/// GBPA.
pub const GBPA: u64 = 0x44;
/// IRQ_CTRL.
pub const IRQ_CTRL: u64 = 0x50;
/// GERROR.
pub const GERROR: u64 = 0x60;
/// GERRORN.
pub const GERRORN: u64 = 0x64;
/// GERROR_IRQ_CFG0.
pub const GERROR_IRQ_CFG0: u64 = 0x68;
/// STRTAB_BASE.
pub const STRTAB_BASE: u64 = 0x80;
/// STRTAB_BASE_CFG.
pub const STRTAB_BASE_CFG: u64 = 0x88;
/// CMDQ_BASE.
pub const CMDQ_BASE: u64 = 0x90;
/// CMDQ_PROD.
pub const CMDQ_PROD: u64 = 0x98;
/// CMDQ_CONS.
pub const CMDQ_CONS: u64 = 0x9c;
/// EVENTQ_BASE.
pub const EVENTQ_BASE: u64 = 0xa0;
/// EVENTQ_IRQ_CFG0.
pub const EVENTQ_IRQ_CFG0: u64 = 0xb0;
/// EVENTQ_PROD, in page 1.
pub const EVENTQ_PROD: u64 = 0x1_00a8;
/// EVENTQ_CONS, in page 1.
pub const EVENTQ_CONS: u64 = 0x1_00ac;

/// CR0.SMMUEN.
pub const SMMUEN: u32 = 1 << 0;
/// CR0.EVENTQEN and CMDQEN.
pub const QUEUES: u32 = 1 << 2 | 1 << 3;
/// GBPA.ABORT.
pub const GBPA_ABORT: u32 = 1 << 20;
/// GBPA.UPDATE.
pub const GBPA_UPDATE: u32 = 1 << 31;
/// IRQ_CTRL.GERROR_IRQEN.
pub const IRQ_GERROR: u32 = 1 << 0;
/// IRQ_CTRL.EVENTQ_IRQEN.
pub const IRQ_EVENTQ: u32 = 1 << 2;
/// GERROR.CMDQ_ERR.
pub const GERROR_CMDQ: u32 = 1 << 0;
/// GERROR.EVENTQ_ABT_ERR.
pub const GERROR_EVENTQ: u32 = 1 << 2;
/// GERROR.MSI_CMDQ_ABT_ERR.
pub const GERROR_MSI_CMDQ: u32 = 1 << 4;
/// GERROR.MSI_EVENTQ_ABT_ERR.
pub const GERROR_MSI_EVENTQ: u32 = 1 << 5;
/// CMDQ_CONS.ERR: CERROR_ILL.
pub const ERROR_ILLEGAL: u32 = 1;
/// CMDQ_CONS.ERR: CERROR_ABT.
pub const ERROR_ABORT: u32 = 2;
/// STRTAB_BASE_CFG.FMT: two levels.
pub const TWO_LEVEL: u32 = 1 << 16;
