//! What is known of a PCI function.

use thiserror::Error;

use super::PCI_DEVICES_MAX;
use crate::{
    addr::{AddrRange, PAGE_SIZE, PhysAddr},
    ids::PciFunction,
};

/// The functions of every segment, in the order of enumeration.
pub type PciDevices = heapless::Vec<PciDevice, PCI_DEVICES_MAX>;

/// One function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PciDevice {
    /// Where it is.
    pub function: PciFunction,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Class code: base class 23:16, subclass 15:8, interface 7:0.
    pub class: u32,
    /// Base address registers, by number; the upper half of a 64-bit one is `None`.
    pub bars: [Option<Bar>; 6],
    /// 1 = INTA# to 4 = INTD#.
    pub interrupt_pin: Option<u8>,
    /// Its capabilities.
    pub capabilities: Capabilities,
    /// Buses behind it, when it is a bridge.
    pub bridge: Option<BridgeBuses>,
    /// Functions that cannot be told apart or can reach each other have one group: assigned whole or not at all (security rule 6).
    pub group: u16,
    /// Whether it is one of several functions of its device.
    pub is_multifunction: bool,
    /// Why it cannot be used.
    pub fault: Option<DeviceFault>,
}

impl PciDevice {
    /// Whether it can be given to a VM: an endpoint with every BAR in place.
    pub const fn is_assignable(&self) -> bool {
        self.bridge.is_none() && self.fault.is_none()
    }

    /// Its memory BARs with their numbers.
    pub fn memory_bars(&self) -> impl Iterator<Item = (usize, Bar)> + '_ {
        let bars = self.bars.iter().enumerate();
        bars.filter_map(|(number, bar)| bar.filter(|bar| bar.kind != BarKind::Io).map(|bar| (number, bar)))
    }
}

/// Kind of a base address register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BarKind {
    /// I/O space: never assigned, never decoded.
    Io,
    /// Memory below 4 GiB.
    Memory32 {
        /// Reads have no side effects.
        is_prefetchable: bool,
    },
    /// Memory anywhere; the next register holds the upper half.
    Memory64 {
        /// Reads have no side effects.
        is_prefetchable: bool,
    },
}

/// A base address register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bar {
    /// Its kind.
    pub kind: BarKind,
    /// Address on the PCI bus; 0 for one without.
    pub pci_address: u64,
    /// The same bytes as the CPUs address them; 0 for one without.
    pub cpu: PhysAddr,
    /// Bytes that it decodes, a power of two.
    pub size_bytes: u64,
}

impl Bar {
    /// Its pages, which hold nothing else; `None` for I/O and for one without an address.
    pub fn pages(self) -> Option<AddrRange<PhysAddr>> {
        if self.kind == BarKind::Io || self.pci_address == 0 {
            return None;
        }
        AddrRange::new(self.cpu, self.size_bytes.next_multiple_of(PAGE_SIZE))
    }

    /// Bytes that are set aside for it: whole pages.
    pub const fn reserved_bytes(self) -> u64 {
        if self.size_bytes < PAGE_SIZE { PAGE_SIZE } else { self.size_bytes }
    }
}

/// Buses behind a bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BridgeBuses {
    /// The bus right behind it.
    pub secondary: u8,
    /// The last bus behind it.
    pub subordinate: u8,
    /// Whether access control services keep functions behind it from each other and tell their ids apart.
    pub is_isolating: bool,
    /// Whether its prefetchable window has 64 bits.
    pub has_prefetch64: bool,
}

/// Offsets of capabilities.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capabilities {
    /// PCI Express.
    pub express: Option<u8>,
    /// Power management.
    pub power: Option<u8>,
    /// MSI.
    pub msi: Option<u8>,
    /// MSI-X.
    pub msix: Option<u8>,
    /// Where MSI-X has its tables.
    pub msix_tables: Option<MsixTable>,
    /// Access control services, an extended capability.
    pub acs: Option<u16>,
    /// How the function alone can be reset.
    pub reset: Option<FunctionReset>,
    /// Whether it can use function numbers of its device that nobody has.
    pub has_phantoms: bool,
}

/// Where MSI-X has its table and its pending bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsixTable {
    /// Vectors, 1 to 2,048.
    pub vectors: u16,
    /// Number of the BAR of the table.
    pub table_bar: u8,
    /// Offset of the table in it, in bytes.
    pub table_offset: u32,
    /// Number of the BAR of the pending bits.
    pub pending_bar: u8,
    /// Offset of the pending bits in it, in bytes.
    pub pending_offset: u32,
}

/// How a function is reset, with the offset of the capability that does it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FunctionReset {
    /// Function-level reset of PCI Express.
    Express(u8),
    /// Function-level reset of conventional PCI's advanced features.
    Advanced(u8),
    /// Through D3hot, which clears the function's state.
    Power(u8),
}

/// Why a function cannot be given to a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[repr(u64)]
pub enum DeviceFault {
    /// A BAR whose size bits are no size.
    #[error("BAR {bar} answers {mask:#x} to sizing, which is no size: the device is broken")]
    BadBar {
        /// Number of the BAR.
        bar: u8,
        /// What it answered.
        mask: u64,
    },
    /// A window is full or absent.
    #[error(
        "BAR {bar} of {size_bytes:#x} bytes does not fit in the host bridge's window ({window_bytes:#x} bytes): take devices out"
    )]
    NoRoom {
        /// Number of the BAR.
        bar: u8,
        /// Its size.
        size_bytes: u64,
        /// Size of the window; 0 without one.
        window_bytes: u64,
    },
    /// A header layout that is neither endpoint nor PCI bridge.
    #[error("header type {0:#x} is neither a device's nor a bridge's")]
    UnknownHeader(u8),
}
