//! The virtual SMMU against what drivers do, and against what they must not.

mod attacks;
mod events;
mod fuzz;
mod linux;
mod queues;
mod reference;
mod streams;

use core::sync::atomic::AtomicU64;
use std::{vec, vec::Vec};

use bulkhead_core::{
    addr::Ipa,
    stage1::{Stage1Flush, StreamConfig},
};

use super::{Ability, Host, HostFailed, Interrupts, Next, Vsmmu};
use crate::{dmamap::model::Slab, mmio::Width};

/// First byte of the VM's RAM.
const RAM: u64 = 0x4000_0000;
/// Its bytes.
const RAM_BYTES: u64 = 0x1_4000;
/// Where tests keep the command queue.
const CMDQ: u64 = RAM + 0x1000;
/// The event queue.
const EVENTQ: u64 = RAM + 0x2000;
/// The stream table, linear.
const STRTAB: u64 = RAM + 0x4000;
/// The VM's streams.
const STREAMS: [u32; 2] = [0x8, 0x10];

const ABILITY: Ability =
    Ability { has_asid16: true, is_terminate_only: true, has_range_invalidation: true, oas_bits: 39 };

/// What the host was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Call {
    Configure(u32, StreamConfig),
    ForgetContext(u32),
    Flush(Stage1Flush),
    Sync,
}

/// A host that notes what it is asked for, and fails on demand.
#[derive(Default)]
struct Notes {
    calls: Vec<Call>,
    has_failed: bool,
}

impl Notes {
    fn note(&mut self, call: Call) -> Result<(), HostFailed> {
        self.calls.push(call);
        if self.has_failed { Err(HostFailed) } else { Ok(()) }
    }
}

impl Host for Notes {
    fn has_stream(&self, stream: u32) -> bool {
        STREAMS.contains(&stream)
    }
    fn streams(&self) -> impl Iterator<Item = u32> {
        STREAMS.into_iter()
    }
    fn configure(&mut self, stream: u32, config: &StreamConfig) -> Result<(), HostFailed> {
        self.note(Call::Configure(stream, *config))
    }
    fn forget_context(&mut self, stream: u32) -> Result<(), HostFailed> {
        self.note(Call::ForgetContext(stream))
    }
    fn flush(&mut self, flush: Stage1Flush) {
        self.calls.push(Call::Flush(flush));
    }
    fn sync(&mut self) -> Result<(), HostFailed> {
        self.note(Call::Sync)
    }
}

/// A VM with its SMMU.
struct Vm {
    smmu: Vsmmu,
    host: Notes,
    ram: Vec<AtomicU64>,
}

impl Vm {
    fn new() -> Self {
        let ram = (0..RAM_BYTES / 8).map(|_| AtomicU64::new(0)).collect();
        Self { smmu: Vsmmu::new(ABILITY), host: Notes::default(), ram }
    }

    fn put(&self, at: u64, words: &[u64]) {
        for (word, at) in words.iter().zip((at..).step_by(8)) {
            Slab::new(Ipa::new(RAM), &self.ram).write(Ipa::new(at), &word.to_le_bytes()).expect("in RAM");
        }
    }

    fn get(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        Slab::new(Ipa::new(RAM), &self.ram).read(Ipa::new(at), &mut bytes).expect("in RAM");
        u64::from_le_bytes(bytes)
    }

    fn read(&self, offset: u64) -> u64 {
        self.smmu.read(offset, Width::Word)
    }

    fn write_once(&mut self, offset: u64, width: Width, value: u64) -> Next {
        self.smmu.write(offset, width, value, &mut Slab::new(Ipa::new(RAM), &self.ram), &mut self.host)
    }

    /// A store, as often as it takes.
    fn write(&mut self, offset: u64, value: u64) {
        while self.write_once(offset, Width::Word, value) == Next::More {}
    }

    fn write_double(&mut self, offset: u64, value: u64) {
        assert_eq!(self.write_once(offset, Width::Double, value), Next::Done);
    }

    fn record(&mut self, event: [u64; 4]) {
        self.smmu.record(event, &mut Slab::new(Ipa::new(RAM), &self.ram));
    }

    /// What the host was asked for since the last time.
    fn calls(&mut self) -> Vec<Call> {
        core::mem::take(&mut self.host.calls)
    }
}
