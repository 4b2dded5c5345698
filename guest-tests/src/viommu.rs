//! A driver of this VM's virtio IOMMU, as small as it can be: its queues in scratch memory (virtio 1.3, 2.7 and 5.13).

mod fault;
pub mod register;
pub mod request;
mod rig;

use bulkhead_core::vplat::VIOMMU_BASE;

pub use fault::Fault;
pub use rig::Rig;

use crate::{cpu, mem};

/// The first device's endpoint.
pub const ENDPOINT: u32 = 8;
/// Descriptors of each queue.
pub const SIZE: u16 = 64;
/// Bytes of a tail.
pub const TAIL: u32 = 4;
/// Bytes of memory that each request has.
const BUFFER: u64 = 0x100;

/// Descriptor flags.
const NEXT: u16 = 1;
/// The device writes it.
pub const DEVICE_WRITES: u16 = 2;

/// The IOMMU, and 64 KiB of scratch memory that its queues are in.
#[derive(Clone, Copy, Debug)]
pub struct Viommu {
    at: u64,
}

impl Viommu {
    const AVAILABLE: u64 = 0x1000;
    const USED: u64 = 0x2000;
    const EVENT_DESCRIPTORS: u64 = 0x3000;
    const EVENT_AVAILABLE: u64 = 0x4000;
    const EVENT_USED: u64 = 0x5000;
    const EVENT_BUFFERS: u64 = 0x6000;
    const BUFFERS: u64 = 0x8000;

    /// The IOMMU with its memory at `at`, a multiple of 4 KiB: no register written.
    pub fn new(at: u64) -> Self {
        Self { at }
    }

    /// Loads a register.
    pub fn read(self, offset: u64) -> u32 {
        mem::read32(VIOMMU_BASE.as_u64() + offset)
    }

    /// Stores a register, after everything before it is in memory.
    pub fn write(self, offset: u64, value: u32) {
        cpu::dsb();
        mem::write32(VIOMMU_BASE.as_u64() + offset, value);
    }

    /// Reset, features, queues in memory, DRIVER_OK; whether it works then.
    pub fn start(self) -> bool {
        self.negotiate();
        (0..0x1_0000).step_by(8).for_each(|offset| mem::write64(self.at + offset, 0));
        for number in 0..SIZE {
            let at = self.at + Self::EVENT_BUFFERS + u64::from(fault::BUFFER * u32::from(number));
            self.describe(self.at + Self::EVENT_DESCRIPTORS, number, at, fault::BUFFER, DEVICE_WRITES, 0);
            mem::write16(self.at + Self::EVENT_AVAILABLE + 4 + 2 * u64::from(number), number);
        }
        mem::write16(self.at + Self::EVENT_AVAILABLE + 2, SIZE);
        let is_ready = self.set_queue(0, self.places())
            && self.set_queue(
                1,
                [Self::EVENT_DESCRIPTORS, Self::EVENT_AVAILABLE, Self::EVENT_USED].map(|at| self.at + at),
            );
        self.write(register::STATUS, register::LIVE);
        is_ready && self.read(register::STATUS) == register::LIVE
    }

    /// Reset and features.
    pub fn negotiate(self) {
        self.write(register::STATUS, 0);
        self.write(register::STATUS, register::FOUND);
        for (half, bits) in [(0, register::FEATURES), (1, register::FEATURES_HIGH)] {
            self.write(register::DRIVER_FEATURES_SEL, half);
            self.write(register::DRIVER_FEATURES, bits);
        }
        self.write(register::STATUS, register::FOUND | register::FEATURES_OK);
    }

    /// Where the request queue's three parts are.
    pub fn places(self) -> [u64; 3] {
        [self.at, self.at + Self::AVAILABLE, self.at + Self::USED]
    }

    /// Tells the device of a queue; whether it is ready.
    pub fn set_queue(self, queue: u32, places: [u64; 3]) -> bool {
        self.write(register::QUEUE_SEL, queue);
        self.write(register::QUEUE_NUM, SIZE.into());
        let registers = [register::QUEUE_DESC, register::QUEUE_DRIVER, register::QUEUE_DEVICE];
        for (register, place) in registers.into_iter().zip(places) {
            self.write(register, (place & 0xffff_ffff) as u32);
            self.write(register + 4, (place >> 32) as u32);
        }
        self.write(register::QUEUE_READY, 1);
        self.read(register::QUEUE_READY) == 1
    }

    /// Writes a descriptor of the table at `table`.
    fn describe(self, table: u64, number: u16, at: u64, bytes: u32, flags: u16, next: u16) {
        let entry = table + 16 * u64::from(number);
        mem::write64(entry, at);
        mem::write64(entry + 8, u64::from(bytes) | u64::from(flags) << 32 | u64::from(next) << 48);
    }

    /// Writes a descriptor of the request queue.
    pub fn set_descriptor(self, number: u16, at: u64, bytes: u32, flags: u16, next: u16) {
        self.describe(self.at, number, at, bytes, flags, next);
    }

    /// Where the buffers of requests are: nothing of the device's own.
    pub fn buffers(self) -> u64 {
        self.at + Self::BUFFERS
    }

    /// Requests that were made available.
    fn sent(self) -> u16 {
        mem::read16(self.at + Self::AVAILABLE + 2)
    }

    /// Requests that came back.
    pub fn used(self) -> u16 {
        mem::read16(self.at + Self::USED + 2)
    }

    /// Makes the chain from a descriptor on available.
    pub fn offer(self, head: u16) {
        let sent = self.sent();
        mem::write16(self.at + Self::AVAILABLE + 4 + 2 * u64::from(sent % SIZE), head);
        cpu::dsb();
        mem::write16(self.at + Self::AVAILABLE + 2, sent.wrapping_add(1));
    }

    /// Makes a request available, of two descriptors; where the answer of `bytes` bytes will be. 32 fit at a time.
    pub fn queue(self, request: &[u32], bytes: u32) -> u64 {
        let slot = self.sent() % (SIZE / 2);
        let at = self.buffers() + BUFFER * u64::from(slot);
        request.iter().zip((at..).step_by(4)).for_each(|(word, at)| mem::write32(at, *word));
        let answer = at + 4 * request.len() as u64;
        mem::write32(answer + u64::from(bytes) - 4, 0xeeee_eeee);
        let length = u32::try_from(4 * request.len()).expect("short");
        self.set_descriptor(2 * slot, at, length, NEXT, 2 * slot + 1);
        self.set_descriptor(2 * slot + 1, answer, bytes, DEVICE_WRITES, 0);
        self.offer(2 * slot);
        answer
    }

    /// Has the device look at the requests; whether all came back.
    pub fn kick(self) -> bool {
        self.write(register::QUEUE_NOTIFY, 0);
        self.used() == self.sent()
    }

    /// Bytes that the device says it wrote for the request before.
    pub fn written(self) -> u32 {
        mem::read32(self.at + Self::USED + 8 + 8 * u64::from(self.sent().wrapping_sub(1) % SIZE))
    }

    /// Sends one request; its status, or nothing where there is none.
    pub fn send(self, request: &[u32]) -> Option<u8> {
        let at = self.queue(request, TAIL);
        (self.kick() && self.written() == TAIL).then(|| mem::read8(at))
    }

    /// Sends ATTACH.
    pub fn attach(self, domain: u32, endpoint: u32, flags: u32) -> Option<u8> {
        self.send(&request::attach(domain, endpoint, flags))
    }

    /// Sends DETACH.
    pub fn detach(self, domain: u32, endpoint: u32) -> Option<u8> {
        self.send(&request::detach(domain, endpoint))
    }

    /// Sends MAP.
    pub fn map(self, domain: u32, range: (u64, u64), ipa: u64, flags: u32) -> Option<u8> {
        self.send(&request::map(domain, range, ipa, flags))
    }

    /// Sends UNMAP.
    pub fn unmap(self, domain: u32, range: (u64, u64)) -> Option<u8> {
        self.send(&request::unmap(domain, range))
    }
}
