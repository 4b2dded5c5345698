//! Stage-2 descriptors (DDI 0487 D8.3): bits and what they mean.

use bitflags::bitflags;
use tock_registers::{
    interfaces::{Readable, Writeable},
    register_bitfields,
    registers::InMemoryRegister,
};

use crate::addr::{BLOCK_1G, BLOCK_2M, PAGE_SIZE, PhysAddr};

/// Level of the root.
pub const ROOT_LEVEL: u8 = 1;
/// Level of pages.
pub const LEAF_LEVEL: u8 = 3;
/// Descriptors of a table.
pub const ENTRIES: usize = 512;

register_bitfields! [u64,
    STAGE2 [
        VALID OFFSET(0) NUMBITS(1) [],
        /// A table at levels 1 and 2, a page at level 3; else a block.
        TABLE_OR_PAGE OFFSET(1) NUMBITS(1) [],
        /// With FWB off: 1111 Normal, inner and outer write-back; 0001 Device-nGnRE.
        MEM_ATTR OFFSET(2) NUMBITS(4) [
            DeviceNGnRE = 0b0001,
            NormalWriteBack = 0b1111,
        ],
        READ OFFSET(6) NUMBITS(1) [],
        WRITE OFFSET(7) NUMBITS(1) [],
        SHAREABILITY OFFSET(8) NUMBITS(2) [],
        ACCESS_FLAG OFFSET(10) NUMBITS(1) [],
        /// Output address or next table, bits 47:12.
        ADDRESS OFFSET(12) NUMBITS(36) [],
        /// XN[1]; bit 53, XN[0], is RES0 without FEAT_XNX and 0 means the same with it.
        EXECUTE_NEVER OFFSET(54) NUMBITS(1) [],
    ]
];

bitflags! {
    /// What the guest or the device may do.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Access: u8 {
        /// Read.
        const READ = 1 << 0;
        /// Write.
        const WRITE = 1 << 1;
        /// Fetch instructions.
        const EXECUTE = 1 << 2;
    }
}

/// What kind of memory it is; stage 1 can only make it stricter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryType {
    /// Normal, inner and outer write-back cacheable.
    Normal,
    /// Device-nGnRE.
    Device,
}

/// Who sees one coherent copy (SH, DDI 0487 D8.6.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shareability {
    /// The one observer.
    None,
    /// Every observer of the system.
    Outer,
    /// The CPUs under one operating system, and coherent devices.
    Inner,
}

impl Shareability {
    const fn bits(self) -> u64 {
        match self {
            Self::None => 0b00,
            Self::Outer => 0b10,
            Self::Inner => 0b11,
        }
    }

    const fn from_bits(bits: u64) -> Self {
        match bits & 0b11 {
            0b10 => Self::Outer,
            0b11 => Self::Inner,
            _ => Self::None,
        }
    }
}

/// How mapped memory may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// Kind of memory.
    pub memory: MemoryType,
    /// Permitted accesses.
    pub access: Access,
    /// Shareability; memory of devices is outer shareable whatever this says.
    pub shareability: Shareability,
}

impl Attributes {
    /// A guest's RAM as its CPUs use it.
    pub const RAM: Self = Self { memory: MemoryType::Normal, access: Access::all(), shareability: Shareability::Inner };
    /// A guest's RAM as its devices use it: not executed.
    pub const DMA_RAM: Self = Self {
        memory: MemoryType::Normal,
        access: Access::READ.union(Access::WRITE),
        shareability: Shareability::Inner,
    };
    /// Registers of a device as the guest's CPUs use them.
    pub const DEVICE: Self = Self {
        memory: MemoryType::Device,
        access: Access::READ.union(Access::WRITE),
        shareability: Shareability::Outer,
    };
}

/// A descriptor, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Descriptor {
    /// Faults.
    Invalid,
    /// Another table.
    Table(PhysAddr),
    /// A page or a block.
    Leaf(PhysAddr, Attributes),
}

impl Descriptor {
    /// Reads `value`, found at `level`.
    pub fn decode(value: u64, level: u8) -> Self {
        let register: InMemoryRegister<u64, STAGE2::Register> = InMemoryRegister::new(value);
        let is_set = |field| register.is_set(field);
        let address = PhysAddr::new(register.read(STAGE2::ADDRESS) << 12);
        match (is_set(STAGE2::VALID), is_set(STAGE2::TABLE_OR_PAGE)) {
            (true, true) if level < LEAF_LEVEL => Self::Table(address),
            (true, is_page) if is_page == (level == LEAF_LEVEL) => {
                let mut access = Access::empty();
                access.set(Access::READ, is_set(STAGE2::READ));
                access.set(Access::WRITE, is_set(STAGE2::WRITE));
                access.set(Access::EXECUTE, !is_set(STAGE2::EXECUTE_NEVER));
                let is_normal = register.matches_all(STAGE2::MEM_ATTR::NormalWriteBack);
                let memory = if is_normal { MemoryType::Normal } else { MemoryType::Device };
                let shareability = Shareability::from_bits(register.read(STAGE2::SHAREABILITY));
                Self::Leaf(address, Attributes { memory, access, shareability })
            }
            _ => Self::Invalid,
        }
    }

    /// The bits of a descriptor at `level`.
    pub fn encode(self, level: u8) -> u64 {
        let register: InMemoryRegister<u64, STAGE2::Register> = InMemoryRegister::new(0);
        match self {
            Self::Invalid => {}
            Self::Table(table) => register
                .write(STAGE2::VALID::SET + STAGE2::TABLE_OR_PAGE::SET + STAGE2::ADDRESS.val(table.as_u64() >> 12)),
            Self::Leaf(base, attributes) => {
                let has = |access| u64::from(attributes.access.contains(access));
                let memory = match attributes.memory {
                    MemoryType::Normal => STAGE2::MEM_ATTR::NormalWriteBack,
                    MemoryType::Device => STAGE2::MEM_ATTR::DeviceNGnRE,
                };
                register.write(
                    STAGE2::VALID::SET
                        + STAGE2::TABLE_OR_PAGE.val(u64::from(level == LEAF_LEVEL))
                        + memory
                        + STAGE2::READ.val(has(Access::READ))
                        + STAGE2::WRITE.val(has(Access::WRITE))
                        + STAGE2::EXECUTE_NEVER.val(1 - has(Access::EXECUTE))
                        + STAGE2::SHAREABILITY.val(attributes.shareability.bits())
                        + STAGE2::ACCESS_FLAG::SET
                        + STAGE2::ADDRESS.val(base.as_u64() >> 12),
                );
            }
        }
        register.get()
    }
}

/// Bytes that one descriptor of `level` maps.
pub const fn block_bytes(level: u8) -> u64 {
    match level {
        1 => BLOCK_1G,
        2 => BLOCK_2M,
        _ => PAGE_SIZE,
    }
}

/// Place of the descriptor for `address` in a table of `level`.
pub fn index(address: u64, level: u8) -> usize {
    usize::try_from(address / block_bytes(level) % ENTRIES as u64).unwrap_or(0)
}
