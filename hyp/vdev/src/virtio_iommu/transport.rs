//! The MMIO transport's registers (virtio 1.3, 4.2.2), version 2.

use super::{Next, VirtioIommu, config, domains::Domains, queue, queue::Queue};
use crate::{dmamap::GuestMemory, mmio::Width};

/// Bytes of the device's registers.
pub const MMIO_BYTES: u64 = 0x200;

/// Byte offsets.
pub mod offset {
    pub const MAGIC: u64 = 0x000;
    pub const VERSION: u64 = 0x004;
    pub const DEVICE_ID: u64 = 0x008;
    pub const VENDOR_ID: u64 = 0x00c;
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub const QUEUE_SEL: u64 = 0x030;
    pub const QUEUE_NUM_MAX: u64 = 0x034;
    pub const QUEUE_NUM: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const INTERRUPT_STATUS: u64 = 0x060;
    pub const INTERRUPT_ACK: u64 = 0x064;
    pub const STATUS: u64 = 0x070;
    pub const QUEUE_DESC_LOW: u64 = 0x080;
    pub const QUEUE_DESC_HIGH: u64 = 0x084;
    pub const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub const QUEUE_DRIVER_HIGH: u64 = 0x094;
    pub const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    pub const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    pub const SHM_LEN_LOW: u64 = 0x0b0;
    pub const SHM_BASE_HIGH: u64 = 0x0bc;
    pub const CONFIG_GENERATION: u64 = 0x0fc;
    pub const CONFIG: u64 = 0x100;
}

/// Feature bits.
pub mod feature {
    pub const INPUT_RANGE: u64 = 1 << 0;
    pub const DOMAIN_RANGE: u64 = 1 << 1;
    pub const MAP_UNMAP: u64 = 1 << 2;
    pub const PROBE: u64 = 1 << 4;
    pub const BYPASS_CONFIG: u64 = 1 << 6;
    pub const VERSION_1: u64 = 1 << 32;
    /// No indirect descriptors, no EVENT_IDX; and no ACCESS_PLATFORM, since addresses are guest-physical.
    pub const OFFERED: u64 = INPUT_RANGE | DOMAIN_RANGE | MAP_UNMAP | PROBE | BYPASS_CONFIG | VERSION_1;
}

/// Bits of the status (2.1).
pub mod status {
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const NEEDS_RESET: u32 = 64;
    /// What a driver sets.
    pub const DRIVER: u32 = 1 | 2 | DRIVER_OK | FEATURES_OK | 128;
}

/// Bits of InterruptStatus.
pub mod interrupt {
    pub const USED: u32 = 1;
    pub const CONFIG: u32 = 2;
}

const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
const IOMMU: u32 = 23;
/// "Bulk".
const VENDOR: u32 = 0x6b6c_7542;

/// What of the registers is no queue's.
#[derive(Clone, Copy, Debug)]
pub struct Transport {
    device_features_sel: u32,
    driver_features_sel: u32,
    /// Negotiated when FEATURES_OK is set.
    features: u64,
    queue_sel: u32,
    status: u32,
    /// InterruptStatus.
    pub interrupt: u32,
}

impl Transport {
    /// After a reset.
    pub const fn new() -> Self {
        Self { device_features_sel: 0, driver_features_sel: 0, features: 0, queue_sel: 0, status: 0, interrupt: 0 }
    }

    /// Whether a feature was negotiated.
    pub const fn has(&self, feature: u64) -> bool {
        self.status & status::FEATURES_OK != 0 && self.features & feature != 0
    }

    /// Whether the device works: the driver is ready, and nothing is broken.
    pub const fn is_live(&self) -> bool {
        self.status & (status::DRIVER_OK | status::NEEDS_RESET) == status::DRIVER_OK
    }

    /// The device works no more until its reset.
    pub const fn break_down(&mut self) {
        self.status |= status::NEEDS_RESET;
        self.interrupt |= interrupt::CONFIG;
    }

    const fn device_features(&self) -> u32 {
        match self.device_features_sel {
            0 => (feature::OFFERED & 0xffff_ffff) as u32,
            1 => (feature::OFFERED >> 32) as u32,
            _ => 0,
        }
    }

    fn set_driver_features(&mut self, value: u32) {
        if self.status & status::FEATURES_OK != 0 {
            return;
        }
        match self.driver_features_sel {
            0 => self.features = self.features & !0xffff_ffff | u64::from(value),
            1 => self.features = self.features & 0xffff_ffff | u64::from(value) << 32,
            _ => {}
        }
    }

    /// Bits are set and stay until the reset. FEATURES_OK is not taken for features that were not offered, or without
    /// VERSION_1 (6.1); DRIVER_OK only behind FEATURES_OK.
    fn set_status(&mut self, value: u32) {
        let mut status = self.status | value & status::DRIVER;
        let is_sound = self.features & !feature::OFFERED == 0 && self.features & feature::VERSION_1 != 0;
        if self.status & status::FEATURES_OK == 0 && !is_sound {
            status &= !status::FEATURES_OK;
        }
        if status & status::FEATURES_OK == 0 {
            status &= !status::DRIVER_OK;
        }
        self.status = status;
    }
}

impl VirtioIommu {
    /// The guest reads `width` at `offset`. What is not to be read reads 0; registers are read by aligned words.
    pub fn read(&self, offset: u64, width: Width) -> u64 {
        if !width.is_aligned(offset) {
            return 0;
        }
        if let Some(offset) = offset.checked_sub(offset::CONFIG) {
            return width.narrow(self.ability.read(offset, self.has_bypass));
        }
        if width == Width::Word { self.register(offset).into() } else { 0 }
    }

    fn register(&self, offset: u64) -> u32 {
        match offset {
            offset::MAGIC => MAGIC,
            offset::VERSION => VERSION,
            offset::DEVICE_ID => IOMMU,
            offset::VENDOR_ID => VENDOR,
            offset::DEVICE_FEATURES => self.transport.device_features(),
            offset::QUEUE_NUM_MAX if self.transport.queue_sel < 2 => queue::SIZE_MAX.into(),
            offset::QUEUE_READY => self.queue().is_some_and(|queue| queue.is_ready).into(),
            offset::INTERRUPT_STATUS => self.transport.interrupt,
            offset::STATUS => self.transport.status,
            // No shared memory: length and address are -1.
            offset::SHM_LEN_LOW..=offset::SHM_BASE_HIGH => u32::MAX,
            // The driver alone changes the configuration.
            offset::CONFIG_GENERATION => 0,
            _ => 0,
        }
    }

    /// The guest writes `value` at `offset`.
    pub fn write(
        &mut self,
        offset: u64,
        width: Width,
        value: u64,
        memory: &mut impl GuestMemory,
        domains: &mut impl Domains,
    ) -> Next {
        let value = width.narrow(value);
        if offset == offset::CONFIG + config::BYPASS && width == Width::Byte {
            if self.transport.has(feature::BYPASS_CONFIG) && self.set_bypass(domains, value & 1 == 1).is_err() {
                self.transport.break_down();
            }
            return Next::Done;
        }
        let (Width::Word, Ok(value)) = (width, u32::try_from(value)) else { return Next::Done };
        match offset {
            offset::QUEUE_NOTIFY if value == 0 => return self.drain(memory, domains),
            offset::STATUS if value == 0 => self.reset_device(domains),
            offset::STATUS => self.transport.set_status(value),
            offset::DEVICE_FEATURES_SEL => self.transport.device_features_sel = value,
            offset::DRIVER_FEATURES_SEL => self.transport.driver_features_sel = value,
            offset::DRIVER_FEATURES => self.transport.set_driver_features(value),
            offset::QUEUE_SEL => self.transport.queue_sel = value,
            offset::INTERRUPT_ACK => self.transport.interrupt &= !value,
            _ => self.write_queue(offset, value),
        }
        Next::Done
    }

    /// Registers of the selected queue; its size and place stay while it is ready.
    fn write_queue(&mut self, offset: u64, value: u32) {
        let is_requests = self.transport.queue_sel == 0;
        let Some(queue) = self.queue_mut() else { return };
        let low = |field: u64| field & !0xffff_ffff | u64::from(value);
        let high = |field: u64| field & 0xffff_ffff | u64::from(value) << 32;
        match offset {
            offset::QUEUE_READY => {
                queue.set_ready(value & 1 == 1);
                if is_requests {
                    self.pending = None;
                }
            }
            _ if queue.is_ready => {}
            offset::QUEUE_NUM => queue.size = value,
            offset::QUEUE_DESC_LOW => queue.descriptors = low(queue.descriptors),
            offset::QUEUE_DESC_HIGH => queue.descriptors = high(queue.descriptors),
            offset::QUEUE_DRIVER_LOW => queue.available = low(queue.available),
            offset::QUEUE_DRIVER_HIGH => queue.available = high(queue.available),
            offset::QUEUE_DEVICE_LOW => queue.used = low(queue.used),
            offset::QUEUE_DEVICE_HIGH => queue.used = high(queue.used),
            _ => {}
        }
    }

    const fn queue(&self) -> Option<&Queue> {
        match self.transport.queue_sel {
            0 => Some(&self.requests),
            1 => Some(&self.events),
            _ => None,
        }
    }

    const fn queue_mut(&mut self) -> Option<&mut Queue> {
        match self.transport.queue_sel {
            0 => Some(&mut self.requests),
            1 => Some(&mut self.events),
            _ => None,
        }
    }

    /// Status is written as 0: domains and queues are gone, `bypass` stays (5.13.4.2).
    fn reset_device(&mut self, domains: &mut impl Domains) {
        self.pending = None;
        (self.requests, self.events) = (Queue::new(), Queue::new());
        self.transport = Transport::new();
        if self.leave_all(domains).is_err() {
            self.transport.break_down();
        }
    }
}
