//! GICv3: distributor, redistributors and CPU interface, register by register.

use bulkhead_core::vplat::{GICD_BASE, GICR_BASE, GICR_STRIDE};

use crate::{
    cpu, mem,
    sysreg::{ICC_BPR1_EL1, ICC_IGRPEN1_EL1, ICC_PMR_EL1, ICC_SGI1R_EL1, ICC_SRE_EL1},
};

/// Offset of GICD_CTLR.
pub const GICD_CTLR: u64 = 0x0000;
/// Offset of GICD_TYPER.
pub const GICD_TYPER: u64 = 0x0004;
/// Offset of GICD_IROUTER0.
pub const GICD_IROUTER: u64 = 0x6000;
/// Offset of GICR_TYPER.
pub const GICR_TYPER: u64 = 0x0008;
/// Offset of GICR_WAKER.
pub const GICR_WAKER: u64 = 0x0014;
/// Offset of the SGI frame in a redistributor.
pub const SGI_FRAME: u64 = 0x1_0000;

/// A bank of one bit an INTID, in both the distributor and the SGI frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bank {
    /// IGROUPR.
    Group = 0x080,
    /// ISENABLER.
    Enable = 0x100,
    /// ICENABLER.
    Disable = 0x180,
    /// ISPENDR.
    SetPending = 0x200,
    /// ICPENDR.
    ClearPending = 0x280,
    /// ISACTIVER.
    SetActive = 0x300,
    /// ICACTIVER.
    ClearActive = 0x380,
}

/// Offset of IPRIORITYR0.
pub const PRIORITY: u64 = 0x400;
/// Offset of ICFGR0.
pub const CONFIG: u64 = 0xc00;

/// Address of this CPU's redistributor.
pub fn redistributor() -> u64 {
    redistributor_of(cpu::index())
}

/// Address of the redistributor of `cpu`.
pub fn redistributor_of(cpu: usize) -> u64 {
    GICR_BASE.as_u64() + cpu as u64 * GICR_STRIDE
}

/// The frame that holds the registers of `intid`, as seen from this CPU.
pub fn frame(intid: u32) -> u64 {
    if intid < 32 { redistributor() + SGI_FRAME } else { GICD_BASE.as_u64() }
}

fn word(intid: u32, bank: Bank) -> (u64, u32) {
    (frame(intid) + bank as u64 + u64::from(intid / 32) * 4, 1 << (intid % 32))
}

/// Writes a one for `intid` alone.
pub fn set(intid: u32, bank: Bank) {
    let (address, bit) = word(intid, bank);
    mem::write32(address, bit);
}

/// Whether the bit of `intid` is one.
pub fn is_set(intid: u32, bank: Bank) -> bool {
    let (address, bit) = word(intid, bank);
    mem::read32(address) & bit != 0
}

/// Sets the priority; 0 is the highest.
pub fn set_priority(intid: u32, priority: u8) {
    mem::write8(frame(intid) + PRIORITY + u64::from(intid), priority);
}

/// Reads the priority.
pub fn priority(intid: u32) -> u8 {
    mem::read8(frame(intid) + PRIORITY + u64::from(intid))
}

/// Sends an SPI to `cpu`.
pub fn route(intid: u32, cpu: usize) {
    mem::write64(GICD_BASE.as_u64() + GICD_IROUTER + u64::from(intid) * 8, cpu as u64);
}

/// Makes an SPI edge-triggered, or level-sensitive.
pub fn set_edge(intid: u32, is_edge: bool) {
    let address = frame(intid) + CONFIG + u64::from(intid / 16) * 4;
    let bit = 2 << (intid % 16 * 2);
    let config = mem::read32(address);
    mem::write32(address, if is_edge { config | bit } else { config & !bit });
}

/// Sends SGI `intid` to the CPUs whose bits are set in `targets`.
pub fn send_sgi(intid: u32, targets: u16) {
    cpu::dsb();
    ICC_SGI1R_EL1.write(u64::from(intid) << 24 | u64::from(targets));
}

/// Sends SGI `intid` to every CPU but this one.
pub fn send_sgi_to_others(intid: u32) {
    cpu::dsb();
    ICC_SGI1R_EL1.write(1 << 40 | u64::from(intid) << 24);
}

/// Distributor on, group 1, affinity routing; all SPIs off, priority 0xa0, to CPU 0.
pub fn init_distributor() {
    let gicd = GICD_BASE.as_u64();
    mem::write32(gicd + GICD_CTLR, 0);
    mem::write32(gicd + Bank::Disable as u64 + 4, u32::MAX);
    mem::write32(gicd + Bank::ClearPending as u64 + 4, u32::MAX);
    mem::write32(gicd + Bank::ClearActive as u64 + 4, u32::MAX);
    mem::write32(gicd + Bank::Group as u64 + 4, u32::MAX);
    for intid in 32..64 {
        set_priority(intid, 0xa0);
        route(intid, 0);
    }
    mem::write32(gicd + GICD_CTLR, 0x12);
}

/// This CPU's redistributor awake, all SGIs on, PPIs off, priority 0xa0; its CPU interface on. Interrupts stay masked.
pub fn init_cpu() {
    let gicr = redistributor();
    let waker = mem::read32(gicr + GICR_WAKER);
    mem::write32(gicr + GICR_WAKER, waker & !2);
    while mem::read32(gicr + GICR_WAKER) & 4 != 0 {}
    let sgi = gicr + SGI_FRAME;
    mem::write32(sgi + Bank::Disable as u64, u32::MAX);
    mem::write32(sgi + Bank::ClearPending as u64, u32::MAX);
    mem::write32(sgi + Bank::ClearActive as u64, u32::MAX);
    mem::write32(sgi + Bank::Group as u64, u32::MAX);
    for intid in 0..32 {
        set_priority(intid, 0xa0);
    }
    mem::write32(sgi + Bank::Enable as u64, 0xffff);
    ICC_SRE_EL1.write(7);
    ICC_PMR_EL1.write(0xff);
    ICC_BPR1_EL1.write(0);
    ICC_IGRPEN1_EL1.write(1);
}

/// Distributor and this CPU.
pub fn init() {
    init_distributor();
    init_cpu();
}
