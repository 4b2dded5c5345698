//! A hypervisor for tests: its own decoder over naive maps, this process as the guest's RAM.

use std::sync::atomic::AtomicU64;

use bulkhead_bus_dma::{Bus, Hypervisor};
use bulkhead_core::addr::{AddrRange, Ipa};
use bulkhead_vdev::dmamap::{
    answer,
    model::{Model, Slab},
};

/// First byte of RAM: what both sides write is there, then what devices only.
pub const RAM: u64 = 0x4000_0000;
const BUFFERS: u64 = RAM + 0x10_0000;
const RAM_BYTES: u64 = 2 << 20;

/// Memory aligned as pages are.
#[repr(C, align(4096))]
struct Pages<T>(T);

/// A VM.
pub struct Fake {
    pub model: Model,
    words: &'static [AtomicU64],
    buffers: usize,
    version: u64,
}

/// What a test works with.
pub struct Vm {
    pub fake: &'static Fake,
    /// For the bus's array.
    pub array: &'static [AtomicU64],
    /// For a ring, page-aligned.
    pub ring: &'static [AtomicU64],
    /// For buffers, page-aligned.
    pub memory: &'static mut [u8],
}

impl Vm {
    pub fn new() -> Self {
        let words = &Box::leak(Box::new(Pages([const { AtomicU64::new(0) }; 8192]))).0;
        let memory = &mut Box::leak(Box::new(Pages([0; 0x4_0000]))).0;
        let ram = AddrRange::new(Ipa::new(RAM), RAM_BYTES).expect("not empty");
        let buffers = memory.as_ptr().addr();
        let fake = Fake { model: Model::new(ram, 64), words, buffers, version: 0 };
        let (array, ring) = words.split_at(512);
        Self { fake: Box::leak(Box::new(fake)), array, ring, memory }
    }

    pub fn bus(&self) -> Bus<'static, &'static Fake> {
        Bus::attach(self.fake, self.array).expect("a hypervisor with DMA maps")
    }

    /// A VM whose hypervisor says it has another version.
    pub fn of_version(version: u64) -> &'static Fake {
        let vm = Self::new();
        let fake = Fake {
            model: Model::new(AddrRange::new(Ipa::new(RAM), RAM_BYTES).expect("not empty"), 1),
            version,
            ..*vm.fake
        };
        Box::leak(Box::new(fake))
    }

    /// Cuts `bytes` bytes off the memory.
    pub fn cut(&mut self, bytes: usize) -> &'static mut [u8] {
        let memory = std::mem::take(&mut self.memory);
        let (first, rest) = memory.split_at_mut(bytes);
        self.memory = rest;
        first
    }
}

impl Hypervisor for Fake {
    fn call(&self, function: u32, arguments: &[u64; 6]) -> [u64; 4] {
        if self.version != 0 && function == 0xc600_0000 {
            return [0, self.version, 0, 0];
        }
        let [a, b, c, d, e, f] = *arguments;
        let mut slab = Slab::new(Ipa::new(RAM), self.words);
        answer(&self.model, &mut slab, &[function.into(), a, b, c, d, e, f])
    }

    fn ipa(&self, address: usize) -> u64 {
        let offset = |base: usize| u64::try_from(address.wrapping_sub(base)).unwrap_or(u64::MAX);
        let in_words = offset(self.words.as_ptr().addr());
        if in_words < 0x1_0000 { RAM + in_words } else { BUFFERS + offset(self.buffers) }
    }
}
