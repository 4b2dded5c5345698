//! A driver of this VM's SMMUv3, as small as it can be: stage 1, its tables and queues in scratch memory (IHI 0070).

pub mod command;
pub mod entry;
mod event;
mod probe;
pub mod register;
mod rig;
mod space;

use bulkhead_core::vplat::VSMMU_BASE;

pub use event::Event;
pub use probe::Probe;
pub use rig::Rig;
pub use space::{Access, BLOCK_BYTES, Space};

use crate::{cpu, mem, params, timer};
use command::Command;

/// StreamID of the first device.
pub const STREAM: u64 = 8;
/// A base-2 logarithm: streams of the linear table.
pub const STREAMS_LOG2: u32 = 8;
/// Base-2 logarithm of the command queue's size in commands.
pub const COMMANDS_LOG2: u32 = 8;
const EVENTS_LOG2: u32 = 7;
/// A command takes microseconds; a loaded machine more.
const LIMIT_MS: u64 = 2000;
const SYNC_DATA: u32 = 0x5e47_5e47;

/// The SMMU, and 64 KiB of scratch memory that its tables are in.
#[derive(Clone, Copy, Debug)]
pub struct Smmu {
    at: u64,
}

impl Smmu {
    /// Bytes of memory that it needs.
    pub const BYTES: u64 = 0x1_0000;

    /// The SMMU with its memory at `at`, a multiple of 64 KiB: zeroed, and no register written.
    pub fn new(at: u64) -> Self {
        assert!(at.is_multiple_of(Self::BYTES), "{at:#x} is aligned");
        (0..Self::BYTES).step_by(8).for_each(|offset| mem::write64(at + offset, 0));
        Self { at }
    }

    /// The SMMU with its memory at the start of scratch memory, where another CPU has set it up.
    pub fn at_first() -> Self {
        Self { at: params::scratch() }
    }

    /// The linear stream table, 16 KiB.
    pub fn linear_table(self) -> u64 {
        self.at
    }

    /// The first level of the other stream table: an array of descriptors.
    pub fn first_level(self) -> u64 {
        self.at + 0x4000
    }

    /// An array for entries of the second level, 64 of them.
    pub fn second_level(self) -> u64 {
        self.at + 0x5000
    }

    /// Where context descriptor `number` is, 0 to 63.
    pub fn context(self, number: u64) -> u64 {
        self.at + 0x6000 + number * 64
    }

    /// The command queue, one page.
    pub fn command_queue(self) -> u64 {
        self.at + 0x8000
    }

    /// The event queue, one page.
    pub fn event_queue(self) -> u64 {
        self.at + 0x9000
    }

    /// Where completions of CMD_SYNC are written.
    pub fn sync_cell(self) -> u64 {
        self.at + 0xa000
    }

    /// Loads a register.
    pub fn read(self, offset: u64) -> u32 {
        mem::read32(VSMMU_BASE.as_u64() + offset)
    }

    /// Stores a register, after everything before it is in memory.
    pub fn write(self, offset: u64, value: u32) {
        cpu::dsb();
        mem::write32(VSMMU_BASE.as_u64() + offset, value);
    }

    /// Stores a 64-bit register.
    pub fn write64(self, offset: u64, value: u64) {
        cpu::dsb();
        mem::write64(VSMMU_BASE.as_u64() + offset, value);
    }

    /// Stores CR0; whether CR0ACK came to say the same.
    pub fn set_control(self, value: u32) -> bool {
        self.write(register::CR0, value);
        timer::wait_until(LIMIT_MS, || self.read(register::CR0ACK) == value)
    }

    /// What streams meet while the SMMU is off: abort, or nothing of stage 1.
    pub fn set_global_abort(self, is_abort: bool) {
        self.write(register::GBPA, register::GBPA_UPDATE | if is_abort { register::GBPA_ABORT } else { 0 });
        timer::wait_until(LIMIT_MS, || self.read(register::GBPA) & register::GBPA_UPDATE == 0);
    }

    /// Off, then queues on, empty, without errors.
    pub fn start_queues(self) {
        assert!(self.set_control(0), "the SMMU goes off");
        self.acknowledge();
        self.write64(register::CMDQ_BASE, self.command_queue() | u64::from(COMMANDS_LOG2));
        self.write(register::CMDQ_PROD, 0);
        self.write(register::CMDQ_CONS, 0);
        self.write64(register::EVENTQ_BASE, self.event_queue() | u64::from(EVENTS_LOG2));
        self.write(register::EVENTQ_PROD, 0);
        self.write(register::EVENTQ_CONS, 0);
        self.write(register::IRQ_CTRL, register::IRQ_EVENTQ | register::IRQ_GERROR);
        assert!(self.set_control(register::QUEUES), "the queues go on");
    }

    /// Queues and translation by the linear stream table.
    pub fn start(self) {
        self.start_queues();
        self.write64(register::STRTAB_BASE, self.linear_table());
        self.write(register::STRTAB_BASE_CFG, STREAMS_LOG2);
        assert!(self.set_control(register::QUEUES | register::SMMUEN), "the SMMU goes on");
    }

    /// Off; the queues go on.
    pub fn stop(self) {
        assert!(self.set_control(register::QUEUES), "the SMMU goes off");
    }

    /// Writes the entry of [`STREAM`] in the linear table, and has it read.
    pub fn set_entry(self, words: [u64; 8]) -> bool {
        entry::store(self.linear_table() + STREAM * 64, words);
        self.sync(&[command::cfgi_ste(STREAM)])
    }

    /// Makes `space` what [`STREAM`] is translated by, with context descriptor `number`.
    pub fn set_space(self, number: u64, space: &Space) -> bool {
        entry::store(self.context(number), entry::context(space));
        self.set_entry(entry::stage1(self.context(number)))
    }

    /// Puts commands in the queue, at most as many as it has room for, and writes PROD once.
    pub fn submit(self, commands: &[Command]) {
        let mask = (2 << COMMANDS_LOG2) - 1;
        let mut producer = self.read(register::CMDQ_PROD) & mask;
        for [low, high] in commands {
            let at = self.command_queue() + (u64::from(producer) & (mask >> 1) as u64) * 16;
            mem::write64(at, *low);
            mem::write64(at + 8, *high);
            producer = (producer + 1) & mask;
        }
        self.write(register::CMDQ_PROD, producer);
    }

    /// Submits commands and a CMD_SYNC behind them that writes to memory; whether that came.
    pub fn sync(self, commands: &[Command]) -> bool {
        mem::write64(self.sync_cell(), 0);
        self.submit(commands);
        self.submit(&[command::sync_message(self.sync_cell(), SYNC_DATA)]);
        timer::wait_until(LIMIT_MS, || mem::read32(self.sync_cell()) == SYNC_DATA)
    }

    /// Waits until every command was taken, or the queue stands still.
    pub fn is_drained(self) -> bool {
        let mask = (2 << COMMANDS_LOG2) - 1;
        timer::wait_until(LIMIT_MS, || {
            self.read(register::CMDQ_PROD) & mask == self.read(register::CMDQ_CONS) & mask || self.error().is_some()
        }) && self.error().is_none()
    }

    /// Why the command queue stands still: CMDQ_CONS.ERR.
    pub fn error(self) -> Option<u32> {
        let active = self.read(register::GERROR) ^ self.read(register::GERRORN);
        (active & register::GERROR_CMDQ != 0).then(|| self.read(register::CMDQ_CONS) >> 24 & 0x7f)
    }

    /// Acknowledges every global error; what was active.
    pub fn acknowledge(self) -> u32 {
        let errors = self.read(register::GERROR);
        let active = errors ^ self.read(register::GERRORN);
        self.write(register::GERRORN, errors);
        active
    }

    /// Takes the oldest event.
    pub fn take_event(self) -> Option<Event> {
        event::take(self, EVENTS_LOG2)
    }

    /// The next event, which may take a while.
    pub fn wait_event(self) -> Option<Event> {
        timer::wait_until(500, || event::has_any(self, EVENTS_LOG2));
        self.take_event()
    }

    /// Throws away what was recorded; how many.
    pub fn drain_events(self) -> u32 {
        let mut count = 0;
        while self.take_event().is_some() {
            count += 1;
        }
        count
    }
}
