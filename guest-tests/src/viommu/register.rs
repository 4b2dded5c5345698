//! Offsets and bits of the MMIO transport's registers (virtio 1.3, 4.2.2), and of the configuration (5.13.4).

/// MagicValue.
pub const MAGIC: u64 = 0x000;
/// Version.
pub const VERSION: u64 = 0x004;
/// DeviceID.
pub const DEVICE_ID: u64 = 0x008;
/// DeviceFeatures.
pub const DEVICE_FEATURES: u64 = 0x010;
/// DeviceFeaturesSel.
pub const DEVICE_FEATURES_SEL: u64 = 0x014;
/// DriverFeatures.
pub const DRIVER_FEATURES: u64 = 0x020;
/// DriverFeaturesSel.
pub const DRIVER_FEATURES_SEL: u64 = 0x024;
/// QueueSel.
pub const QUEUE_SEL: u64 = 0x030;
/// QueueNumMax.
pub const QUEUE_NUM_MAX: u64 = 0x034;
/// QueueNum.
pub const QUEUE_NUM: u64 = 0x038;
/// QueueReady.
pub const QUEUE_READY: u64 = 0x044;
/// QueueNotify.
pub const QUEUE_NOTIFY: u64 = 0x050;
/// InterruptStatus.
pub const INTERRUPT_STATUS: u64 = 0x060;
/// InterruptACK.
pub const INTERRUPT_ACK: u64 = 0x064;
/// Status.
pub const STATUS: u64 = 0x070;
/// QueueDescLow; the high half follows each low one.
pub const QUEUE_DESC: u64 = 0x080;
/// QueueDriverLow.
pub const QUEUE_DRIVER: u64 = 0x090;
/// QueueDeviceLow.
pub const QUEUE_DEVICE: u64 = 0x0a0;
/// `input_range.end` of the configuration.
pub const INPUT_LAST: u64 = 0x110;
/// `bypass` of the configuration, a byte.
pub const BYPASS: u64 = 0x124;

/// ACKNOWLEDGE and DRIVER.
pub const FOUND: u32 = 1 | 2;
/// DRIVER_OK.
pub const DRIVER_OK: u32 = 4;
/// FEATURES_OK.
pub const FEATURES_OK: u32 = 8;
/// A device that works.
pub const LIVE: u32 = FOUND | FEATURES_OK | DRIVER_OK;
/// DEVICE_NEEDS_RESET.
pub const NEEDS_RESET: u32 = 64;
/// Lower half of the features: INPUT_RANGE, DOMAIN_RANGE, MAP_UNMAP, PROBE, BYPASS_CONFIG.
pub const FEATURES: u32 = 1 | 1 << 1 | 1 << 2 | 1 << 4 | 1 << 6;
/// Upper half: VERSION_1.
pub const FEATURES_HIGH: u32 = 1;
