//! Offsets and bits of configuration space (PCI Express Base Specification 6.0, chapter 7).

/// Vendor ID (15:0) and Device ID (31:16).
pub const IDS: u16 = 0x00;
/// Command (15:0) and Status (31:16).
pub const COMMAND: u16 = 0x04;
/// Revision (7:0) and Class Code (31:8).
pub const CLASS: u16 = 0x08;
/// Header Type: layout in 6:0, multi-function in 7.
pub const HEADER_TYPE: u16 = 0x0e;
/// First base address register.
pub const BAR0: u16 = 0x10;
/// Bus numbers of a bridge: primary, secondary, subordinate, latency timer.
pub const BUSES: u16 = 0x18;
/// Memory window of a bridge: base (15:4 are address bits 31:20) and limit (31:20).
pub const MEMORY_WINDOW: u16 = 0x20;
/// Prefetchable window of a bridge, like [`MEMORY_WINDOW`]; bits 3:0 of each half are 1 where it has 64 bits.
pub const PREFETCH_WINDOW: u16 = 0x24;
/// Upper 32 bits of the prefetchable base.
pub const PREFETCH_BASE_HIGH: u16 = 0x28;
/// Upper 32 bits of the prefetchable limit.
pub const PREFETCH_LIMIT_HIGH: u16 = 0x2c;
/// I/O window of a bridge, and its secondary status.
pub const IO_WINDOW: u16 = 0x1c;
/// Expansion ROM of an endpoint; bit 0 enables it.
pub const ROM: u16 = 0x30;
/// Expansion ROM of a bridge.
pub const BRIDGE_ROM: u16 = 0x38;
/// First capability.
pub const CAPABILITIES: u16 = 0x34;
/// Interrupt Line (7:0) and Interrupt Pin (15:8).
pub const INTERRUPT: u16 = 0x3c;
/// First extended capability.
pub const EXTENDED: u16 = 0x100;

/// Command: decode I/O.
pub const COMMAND_IO: u16 = 1 << 0;
/// Command: decode memory.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// Command: master the bus.
pub const COMMAND_MASTER: u16 = 1 << 2;
/// Command: do not raise INTx.
pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;
/// Status: there is a list of capabilities.
pub const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Capability ID: power management.
pub const CAP_POWER: u8 = 0x01;
/// Capability ID: MSI.
pub const CAP_MSI: u8 = 0x05;
/// Capability ID: PCI Express.
pub const CAP_EXPRESS: u8 = 0x10;
/// Capability ID: MSI-X.
pub const CAP_MSIX: u8 = 0x11;
/// Capability ID: advanced features of conventional PCI.
pub const CAP_ADVANCED: u8 = 0x13;
/// Extended capability ID: access control services.
pub const EXT_ACS: u16 = 0x000d;

/// PCI Express: capabilities register; device/port type in 7:4.
pub const EXPRESS_FLAGS: u16 = 0x02;
/// PCI Express: Device Capabilities.
pub const EXPRESS_DEVICE_CAPS: u16 = 0x04;
/// PCI Express: Device Control (15:0) and Status (31:16).
pub const EXPRESS_DEVICE_CONTROL: u16 = 0x08;
/// Device Capabilities: function-level reset.
pub const DEVICE_CAPS_FLR: u32 = 1 << 28;
/// Device Capabilities: bits of the function number that phantom functions use.
pub const DEVICE_CAPS_PHANTOM: u32 = 0b11 << 3;
/// Device Control: start a function-level reset.
pub const DEVICE_CONTROL_FLR: u32 = 1 << 15;
/// Device Control: phantom functions.
pub const DEVICE_CONTROL_PHANTOM: u32 = 1 << 9;
/// Device Status, as bits of the whole word: transactions pending.
pub const DEVICE_STATUS_PENDING: u32 = 1 << 21;
/// Device Control, the half of the word that is control.
pub const DEVICE_CONTROL_MASK: u32 = 0xffff;

/// Advanced features: capabilities byte; bit 1 function-level reset, bit 0 pending transactions.
pub const ADVANCED_CAPS: u16 = 0x03;
/// Advanced features: control byte (bit 0 resets) and status byte (bit 0 pending).
pub const ADVANCED_CONTROL: u16 = 0x04;

/// Power management: control and status; state in 1:0, no soft reset in 3.
pub const POWER_CONTROL: u16 = 0x04;
/// Power management: D3hot.
pub const POWER_D3: u32 = 0b11;
/// Power management: the state survives D3hot.
pub const POWER_NO_SOFT_RESET: u32 = 1 << 3;

/// ACS: capability (15:0) and control (31:16).
pub const ACS_CONTROL: u16 = 0x04;
/// ACS: source validation.
pub const ACS_SOURCE_VALIDATION: u16 = 1 << 0;
/// ACS: translation blocking.
pub const ACS_TRANSLATION_BLOCKING: u16 = 1 << 1;
/// ACS: request redirect.
pub const ACS_REQUEST_REDIRECT: u16 = 1 << 2;
/// ACS: completion redirect.
pub const ACS_COMPLETION_REDIRECT: u16 = 1 << 3;
/// ACS: upstream forwarding.
pub const ACS_UPSTREAM_FORWARDING: u16 = 1 << 4;
