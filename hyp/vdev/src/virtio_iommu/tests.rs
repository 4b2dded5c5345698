//! The device as a driver sees it, on naive domains.

mod faults;
mod fuzz;
mod naive;
mod reference;
mod registers;
mod requests;
mod rings;

use core::sync::atomic::AtomicU64;
use std::{rc::Rc, vec, vec::Vec};

use bulkhead_core::addr::{Ipa, PAGE_SIZE};

use self::naive::Naive;
use super::{
    Ability, Next, Range, VirtioIommu,
    transport::{feature, offset},
};
use crate::{dmamap::model::Slab, mmio::Width};

/// First byte of the VM's RAM, and its bytes.
const RAM: u64 = 0x4000_0000;
const RAM_BYTES: u64 = 64 * PAGE_SIZE;
/// Where the tests keep the parts of the request queue, of the event queue, and buffers.
const DESCRIPTORS: u64 = RAM;
const AVAILABLE: u64 = RAM + 0x1000;
const USED: u64 = RAM + 0x2000;
const EVENT_DESCRIPTORS: u64 = RAM + 0x4000;
const EVENT_AVAILABLE: u64 = RAM + 0x5000;
const EVENT_USED: u64 = RAM + 0x6000;
const BUFFERS: u64 = RAM + 0x8000;
const SIZE: u16 = 64;
/// Bytes that each request has for itself.
const BUFFER: u64 = 0x100;

const LAST: u64 = (1 << 39) - 1;
const MSI: Range = Range { first: 0x0800_0000, last: 0x08ff_ffff };
const ENDPOINTS: [u32; 3] = [8, 16, 24];

/// What a driver negotiates: all of it.
const FEATURES: u64 = feature::OFFERED;

struct Guest {
    device: VirtioIommu,
    domains: Naive,
    words: Rc<Vec<AtomicU64>>,
    /// Requests made available.
    sent: u16,
}

impl Guest {
    /// A device that nobody has touched.
    fn cold() -> Self {
        let words: Rc<Vec<AtomicU64>> = Rc::new((0..RAM_BYTES / 8).map(|_| AtomicU64::new(0)).collect());
        let ability = Ability { last: LAST, msi: MSI };
        let device = VirtioIommu::new(ability, ENDPOINTS);
        Self { device, domains: Naive::new(Rc::clone(&words)), words, sent: 0 }
    }

    /// A device that a driver has set up.
    fn new() -> Self {
        let mut guest = Self::cold();
        guest.negotiate(FEATURES);
        guest.set_up(0, DESCRIPTORS, AVAILABLE, USED);
        guest.set_up(1, EVENT_DESCRIPTORS, EVENT_AVAILABLE, EVENT_USED);
        guest.store(offset::STATUS, 0xf);
        guest
    }

    fn negotiate(&mut self, features: u64) {
        self.store(offset::STATUS, 3);
        for (half, bits) in [(1, features >> 32), (0, features & 0xffff_ffff)] {
            self.store(offset::DRIVER_FEATURES_SEL, half);
            self.store(offset::DRIVER_FEATURES, u32::try_from(bits).expect("half"));
        }
        self.store(offset::STATUS, 0xb);
    }

    fn set_up(&mut self, queue: u32, descriptors: u64, available: u64, used: u64) {
        self.store(offset::QUEUE_SEL, queue);
        self.store(offset::QUEUE_NUM, SIZE.into());
        for (register, at) in [
            (offset::QUEUE_DESC_LOW, descriptors),
            (offset::QUEUE_DRIVER_LOW, available),
            (offset::QUEUE_DEVICE_LOW, used),
        ] {
            self.store(register, u32::try_from(at & 0xffff_ffff).expect("half"));
            self.store(register + 4, u32::try_from(at >> 32).expect("half"));
        }
        self.store(offset::QUEUE_READY, 1);
    }

    fn slab(&self) -> Slab<'_> {
        Slab::new(Ipa::new(RAM), &self.words)
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.slab().write(Ipa::new(at), bytes).expect("in RAM");
    }

    fn get<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.slab().read(Ipa::new(at), &mut bytes).expect("in RAM");
        bytes
    }

    fn used_index(&self) -> u16 {
        u16::from_le_bytes(self.get(USED + 2))
    }

    fn load(&self, at: u64) -> u64 {
        self.device.read(at, Width::Word)
    }

    /// A store of 32 bits that takes one turn.
    fn store(&mut self, at: u64, value: u32) {
        assert_eq!(self.step(at, value), Next::Done);
    }

    fn step(&mut self, at: u64, value: u32) -> Next {
        let mut memory = Slab::new(Ipa::new(RAM), &self.words);
        self.device.write(at, Width::Word, value.into(), &mut memory, &mut self.domains)
    }

    fn descriptor(&self, table: u64, number: u16, at: u64, bytes: u32, flags: u16, next: u16) {
        let raw = [&at.to_le_bytes()[..], &bytes.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat();
        self.put(table + 16 * u64::from(number), &raw);
    }

    /// Makes a request available, of two descriptors; where its answer will be.
    fn queue(&mut self, request: &[u8], answer_bytes: u32) -> u64 {
        let number = self.sent % (SIZE / 2);
        let at = BUFFERS + BUFFER * u64::from(number);
        let bytes = u32::try_from(request.len()).expect("small");
        self.put(at, &vec![0xee; usize::try_from(BUFFER).expect("small")]);
        self.put(at, request);
        self.descriptor(DESCRIPTORS, 2 * number, at, bytes, 1, 2 * number + 1);
        self.descriptor(DESCRIPTORS, 2 * number + 1, at + u64::from(bytes), answer_bytes, 2, 0);
        self.make_available(2 * number);
        at + u64::from(bytes)
    }

    fn make_available(&mut self, head: u16) {
        self.put(AVAILABLE + 4 + 2 * u64::from(self.sent % SIZE), &head.to_le_bytes());
        self.sent = self.sent.wrapping_add(1);
        self.put(AVAILABLE + 2, &self.sent.to_le_bytes());
    }

    /// Notifies the device until it is done; how many turns that took.
    fn kick(&mut self) -> u32 {
        (1..10_000).find(|_| self.step(offset::QUEUE_NOTIFY, 0) == Next::Done).expect("an end")
    }

    /// Bytes that the device says it wrote for the request sent last.
    fn written(&self) -> u32 {
        u32::from_le_bytes(self.get(USED + 8 + 8 * u64::from(self.sent.wrapping_sub(1) % SIZE)))
    }

    /// Sends a request with a tail; its status.
    fn send(&mut self, request: &[u8]) -> u8 {
        let at = self.queue(request, 4);
        self.kick();
        assert_eq!((self.used_index(), self.written()), (self.sent, 4), "answered");
        let [status, reserved @ ..] = self.get::<4>(at);
        assert_eq!(reserved, [0; 3]);
        status
    }

    fn attach(&mut self, domain: u32, endpoint: u32, flags: u32) -> u8 {
        self.send(&words(1, &[domain, endpoint, flags, 0]))
    }
    fn detach(&mut self, domain: u32, endpoint: u32) -> u8 {
        self.send(&words(2, &[domain, endpoint, 0, 0]))
    }
    fn map(&mut self, domain: u32, first: u64, last: u64, ipa: u64, flags: u32) -> u8 {
        self.send(&map(domain, first, last, ipa, flags))
    }
    fn unmap(&mut self, domain: u32, first: u64, last: u64) -> u8 {
        self.send(&unmap(domain, first, last))
    }
}

/// A request of 32-bit fields.
fn words(kind: u8, fields: &[u32]) -> Vec<u8> {
    let mut raw = vec![kind, 0xaa, 0xbb, 0xcc];
    fields.iter().for_each(|field| raw.extend(field.to_le_bytes()));
    raw
}

fn map(domain: u32, first: u64, last: u64, ipa: u64, flags: u32) -> Vec<u8> {
    let mut raw = words(3, &[domain]);
    [first, last, ipa].iter().for_each(|field| raw.extend(field.to_le_bytes()));
    raw.extend(flags.to_le_bytes());
    raw
}

fn unmap(domain: u32, first: u64, last: u64) -> Vec<u8> {
    let mut raw = words(4, &[domain]);
    [first, last].iter().for_each(|field| raw.extend(field.to_le_bytes()));
    raw.extend([0; 4]);
    raw
}

const OK: u8 = 0;
const INVAL: u8 = 4;
const RANGE: u8 = 5;
const NOENT: u8 = 6;
const FAULT: u8 = 7;
const NOMEM: u8 = 8;
