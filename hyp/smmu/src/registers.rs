//! Registers of an SMMUv3 and their fields (IHI 0070 chapter 6).

use tock_registers::register_bitfields;

/// Offsets in bytes from the SMMU's base. Page 1 starts at 0x1_0000.
pub mod offset {
    pub const IDR0: u32 = 0x0;
    pub const IDR1: u32 = 0x4;
    pub const IDR3: u32 = 0xc;
    pub const IDR5: u32 = 0x14;
    pub const AIDR: u32 = 0x1c;
    pub const CR0: u32 = 0x20;
    pub const CR0ACK: u32 = 0x24;
    pub const CR1: u32 = 0x28;
    pub const CR2: u32 = 0x2c;
    pub const GBPA: u32 = 0x44;
    pub const IRQ_CTRL: u32 = 0x50;
    pub const IRQ_CTRLACK: u32 = 0x54;
    pub const GERROR: u32 = 0x60;
    pub const GERRORN: u32 = 0x64;
    /// 64 bits wide.
    pub const GERROR_IRQ_CFG0: u32 = 0x68;
    /// 64 bits wide.
    pub const STRTAB_BASE: u32 = 0x80;
    pub const STRTAB_BASE_CFG: u32 = 0x88;
    /// 64 bits wide.
    pub const CMDQ_BASE: u32 = 0x90;
    pub const CMDQ_PROD: u32 = 0x98;
    pub const CMDQ_CONS: u32 = 0x9c;
    /// 64 bits wide.
    pub const EVENTQ_BASE: u32 = 0xa0;
    /// 64 bits wide.
    pub const EVENTQ_IRQ_CFG0: u32 = 0xb0;
    /// 64 bits wide.
    pub const PRIQ_IRQ_CFG0: u32 = 0xd0;
    /// In page 1.
    pub const EVENTQ_PROD: u32 = 0x1_00a8;
    /// In page 1.
    pub const EVENTQ_CONS: u32 = 0x1_00ac;
}

/// STRTAB_BASE.RA and {CMDQ,EVENTQ}_BASE.RA/WA: allocation hint.
pub const BASE_ALLOCATE: u64 = 1 << 62;
/// Address bits of STRTAB_BASE, up to 52-bit addresses.
pub const STRTAB_BASE_ADDR: u64 = 0x000f_ffff_ffff_ffc0;
/// Address bits of CMDQ_BASE and EVENTQ_BASE, up to 52-bit addresses.
pub const QUEUE_BASE_ADDR: u64 = 0x000f_ffff_ffff_ffe0;

register_bitfields![u32,
    pub IDR0 [
        S2P OFFSET(0) NUMBITS(1) [],
        S1P OFFSET(1) NUMBITS(1) [],
        TTF OFFSET(2) NUMBITS(2) [],
        COHACC OFFSET(4) NUMBITS(1) [],
        BTM OFFSET(5) NUMBITS(1) [],
        HTTU OFFSET(6) NUMBITS(2) [],
        HYP OFFSET(9) NUMBITS(1) [],
        ATS OFFSET(10) NUMBITS(1) [],
        ASID16 OFFSET(12) NUMBITS(1) [],
        MSI OFFSET(13) NUMBITS(1) [],
        PRI OFFSET(16) NUMBITS(1) [],
        VMID16 OFFSET(18) NUMBITS(1) [],
        TTENDIAN OFFSET(21) NUMBITS(2) [Mixed = 0, Reserved = 1, Little = 2, Big = 3],
        STALL_MODEL OFFSET(24) NUMBITS(2) [],
        TERM_MODEL OFFSET(26) NUMBITS(1) [],
        ST_LEVEL OFFSET(27) NUMBITS(2) [Linear = 0, TwoLevel = 1]
    ],
    pub IDR1 [
        SIDSIZE OFFSET(0) NUMBITS(6) [],
        EVENTQS OFFSET(16) NUMBITS(5) [],
        CMDQS OFFSET(21) NUMBITS(5) [],
        ATTR_PERMS_OVR OFFSET(26) NUMBITS(1) [],
        ATTR_TYPES_OVR OFFSET(27) NUMBITS(1) [],
        REL OFFSET(28) NUMBITS(1) [],
        QUEUES_PRESET OFFSET(29) NUMBITS(1) [],
        TABLES_PRESET OFFSET(30) NUMBITS(1) []
    ],
    pub IDR3 [
        RIL OFFSET(10) NUMBITS(1) [],
        BBML OFFSET(11) NUMBITS(2) []
    ],
    pub IDR5 [
        OAS OFFSET(0) NUMBITS(3) [],
        GRAN4K OFFSET(4) NUMBITS(1) []
    ],
    pub AIDR [
        MINOR OFFSET(0) NUMBITS(4) [],
        MAJOR OFFSET(4) NUMBITS(4) []
    ],
    /// CR0ACK has the same layout.
    pub CR0 [
        SMMUEN OFFSET(0) NUMBITS(1) [],
        PRIQEN OFFSET(1) NUMBITS(1) [],
        EVENTQEN OFFSET(2) NUMBITS(1) [],
        CMDQEN OFFSET(3) NUMBITS(1) [],
        ATSCHK OFFSET(4) NUMBITS(1) []
    ],
    pub CR1 [
        QUEUE_IC OFFSET(0) NUMBITS(2) [NonCacheable = 0, WriteBack = 1],
        QUEUE_OC OFFSET(2) NUMBITS(2) [NonCacheable = 0, WriteBack = 1],
        QUEUE_SH OFFSET(4) NUMBITS(2) [Outer = 2, Inner = 3],
        TABLE_IC OFFSET(6) NUMBITS(2) [NonCacheable = 0, WriteBack = 1],
        TABLE_OC OFFSET(8) NUMBITS(2) [NonCacheable = 0, WriteBack = 1],
        TABLE_SH OFFSET(10) NUMBITS(2) [Outer = 2, Inner = 3]
    ],
    pub CR2 [
        E2H OFFSET(0) NUMBITS(1) [],
        RECINVSID OFFSET(1) NUMBITS(1) [],
        PTM OFFSET(2) NUMBITS(1) []
    ],
    pub GBPA [
        ABORT OFFSET(20) NUMBITS(1) [],
        UPDATE OFFSET(31) NUMBITS(1) []
    ],
    /// IRQ_CTRLACK has the same layout.
    pub IRQ_CTRL [
        GERROR OFFSET(0) NUMBITS(1) [],
        PRIQ OFFSET(1) NUMBITS(1) [],
        EVENTQ OFFSET(2) NUMBITS(1) []
    ],
    pub STRTAB_BASE_CFG [
        LOG2SIZE OFFSET(0) NUMBITS(6) [],
        SPLIT OFFSET(6) NUMBITS(5) [],
        FMT OFFSET(16) NUMBITS(2) [Linear = 0, TwoLevel = 1]
    ],
    pub CMDQ_CONS [
        RD OFFSET(0) NUMBITS(20) [],
        ERR OFFSET(24) NUMBITS(7) []
    ]
];
