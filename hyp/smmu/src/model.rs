//! A strict model of an SMMUv3, its memory and its devices, for tests of drivers.
//!
//! It does what the architecture permits a hostile implementation to do, not what a kind one does: caches keep
//! everything until the right command *and* a CMD_SYNC, writes are invisible until a barrier (or visible at once),
//! parts of invalid entries are read ahead, low bits of bases are cut off, reserved values are refused. What a driver
//! must never do is kept as a [`Violation`]; transactions can be injected between any two of the driver's steps.
//!
//! Not modelled: stage 1 without stage 2, ATS requests, PRI, MSIs, stalls, broadcast TLB maintenance.

mod config_cache;
mod dma;
mod entry;
mod guest;
mod ledger;
mod memory;
mod mutant;
mod nested;
mod platform;
mod queues;
mod regs;
mod shared;
mod tables;
mod tlb;
mod tlb_both;
mod walk;

use std::{boxed::Box, cell::RefCell, collections::BTreeMap, rc::Rc, string::String, vec::Vec};

use bulkhead_core::{
    addr::{Iova, PhysAddr},
    ids::{StreamId, Vmid},
};

use self::{config_cache::ConfigCache, ledger::Ledger, memory::Memory, regs::Regs, tlb::Tlb, tlb_both::TlbBoth};
pub use self::{
    guest::Guest,
    mutant::{Mutant, Mutation},
    shared::SharedFrame,
    tables::TestTable,
};
use crate::{event::Event, features::IdRegisters};

/// When what the CPU wrote becomes visible to the SMMU. Both are allowed, so both have to be tested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Visibility {
    /// As late as allowed: at the barrier after the write (and the clean, where needed).
    Late,
    /// As early as allowed: at once.
    Early,
}

/// How the SMMU caches an invalid stream table entry. Both are allowed (3.21.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caching {
    /// As a whole, invalid as it is (level-1 descriptors too): it stays invalid until CMD_CFGI_STE.
    Whole,
    /// Word by word: the body of an invalid entry may have been read ahead, and be used when word 0 becomes valid. Invalid level-1 descriptors are not kept.
    ByWord,
}

/// What is modelled.
#[derive(Clone, Copy, Debug)]
pub struct ModelConfig {
    /// ID registers, which say what the SMMU can do.
    pub id: IdRegisters,
    /// See [`Visibility`].
    pub visibility: Visibility,
    /// See [`Caching`].
    pub caching: Caching,
    /// Reads of a status register before it changes.
    pub lag: u32,
    /// Whether firmware left the SMMU on, with its own tables, caches, errors and interrupts.
    pub is_left_on: bool,
}

impl ModelConfig {
    /// QEMU 10.0's SMMU: two-level table, coherent, range invalidation, VMID16, 44 address bits.
    pub const QEMU: IdRegisters =
        IdRegisters { idr0: 0x0d44_101b, idr1: 0x0273_0010, idr3: 0x1414, idr5: 0x74, aidr: 0 };

    /// The same, and it sets access flags (IDR0.HTTU = 1).
    pub const HTTU: IdRegisters = IdRegisters { idr0: Self::QEMU.idr0 | 1 << 6, ..Self::QEMU };

    /// RK3588's MMU-600 as far as Linux's boot log tells: not coherent, no ranges, stalls, ATS, MSI, EL2, 48 bits.
    pub const MMU600: IdRegisters = IdRegisters {
        // S2P S1P TTF=2 HYP ATS ASID16 MSI VMID16 CD2L TTENDIAN=2 STALL_MODEL=0 ST_LEVEL=1.
        idr0: 0x084c_360b,
        // SIDSIZE 16, EVENTQS 15, CMDQS 16, ATTR_TYPES_OVR.
        idr1: 16 | 15 << 16 | 16 << 21 | 1 << 27,
        idr3: 0,
        idr5: 0x75,
        aidr: 1,
    };

    /// A well-behaved machine with the SMMU of `id`.
    pub const fn new(id: IdRegisters) -> Self {
        Self { id, visibility: Visibility::Late, caching: Caching::ByWord, lag: 0, is_left_on: true }
    }

    pub(crate) const fn is_coherent(&self) -> bool {
        self.id.idr0 & 1 << 4 != 0
    }
}

/// Something that a driver must never do, or let happen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Violation {
    /// A register that does not exist, cannot be written, or was accessed with the wrong size.
    Register {
        /// Offset from the base.
        offset: u32,
        /// What was wrong.
        what: &'static str,
    },
    /// A register was written while it must not be.
    Guarded {
        /// Its name.
        register: &'static str,
    },
    /// Reserved bits were not zero.
    Reserved {
        /// Register, command or structure.
        what: &'static str,
        /// The value.
        value: u64,
    },
    /// A base address has bits set that the hardware takes as zero.
    Misaligned {
        /// Table or queue.
        what: &'static str,
        /// The address.
        base: u64,
        /// Alignment needed, in bytes.
        alignment: u64,
    },
    /// Interrupts were enabled while an MSI address of firmware's was still set, or a CMD_SYNC asks for an MSI: the SMMU
    /// would write there, untranslated.
    ForeignMsi,
    /// SMMUEN went from 1 to 0 while GBPA.ABORT was 0.
    DisabledIntoBypass,
    /// A transaction passed untranslated after the take-over had begun to hold.
    Untranslated {
        /// Whose.
        stream: StreamId,
    },
    /// A stream table entry says bypass, or stage 1 without stage 2.
    BypassEntry {
        /// Whose.
        stream: StreamId,
    },
    /// A transaction reached memory that is not its owner's.
    Foreign {
        /// Whose.
        stream: StreamId,
        /// Where it aimed.
        iova: Iova,
        /// What it reached.
        reached: PhysAddr,
    },
    /// A word of an entry that the SMMU may be using was changed, without making it invalid first.
    LiveEntryChanged {
        /// Address of the word.
        at: PhysAddr,
    },
    /// An entry was made valid before its body was in memory.
    EntryNotPublished {
        /// Address of word 0.
        at: PhysAddr,
    },
    /// PROD was written before the commands were in memory.
    CommandNotPublished {
        /// Index of the command.
        index: u32,
    },
    /// A queue index was written that cannot be.
    QueueIndex {
        /// Register.
        register: &'static str,
        /// Value.
        value: u32,
    },
    /// An error that is not active was acknowledged.
    ErrorToggled {
        /// The bits.
        bits: u32,
    },
    /// Frames were given up while the SMMU could still reach them.
    FreedReachable {
        /// How.
        how: String,
        /// The frame.
        frame: PhysAddr,
    },
    /// Dirty lines were invalidated: the CPU's writes are lost.
    DirtyInvalidated {
        /// Line address.
        at: PhysAddr,
    },
    /// The CPU touched memory that does not exist.
    WildAccess {
        /// Address.
        at: PhysAddr,
    },
}

/// What became of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It went to this physical address.
    Translated(PhysAddr),
    /// It was aborted, and this event was to be recorded.
    Faulted(Event),
    /// It was aborted without an event.
    Aborted,
    /// It went untranslated to the address that the device put out.
    Bypassed,
}

impl Outcome {
    /// Whether the transaction reached nothing.
    pub const fn is_contained(&self) -> bool {
        matches!(self, Self::Faulted(_) | Self::Aborted)
    }
}

/// What a device wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DmaAccess {
    /// To read.
    Read,
    /// To write.
    Write,
}

/// Ways for the SMMU to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// It consumes no command any more.
    StuckQueue,
    /// CR0ACK does not follow CR0.
    StuckCr0,
    /// GBPA.UPDATE never clears.
    StuckGbpa,
    /// IRQ_CTRLACK does not follow.
    StuckIrqCtrl,
    /// Base registers keep only the low 40 address bits.
    ShortBases,
    /// CMDQ_CONS reads as an index that was never submitted.
    WildCons,
}

/// A transaction that is tried between any two steps of the driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Attack {
    stream: StreamId,
    iova: Iova,
}

/// Everything the model knows.
struct State {
    config: ModelConfig,
    memory: Memory,
    regs: Regs,
    configs: ConfigCache,
    tlb: Tlb,
    tlb_both: TlbBoth,
    ledger: Ledger,
    attacks: Vec<Attack>,
    failures: Vec<Failure>,
    /// Errors to make up: opcode, CERROR code, how often.
    refusals: Vec<(u8, u8, u32)>,
    violations: Vec<Violation>,
    /// Invalidations that wait for their CMD_SYNC.
    invalidations: Vec<queues::Invalidation>,
    /// Reads of CONS before the commands are executed.
    command_delay: u32,
    /// Commands executed, by opcode.
    executed: BTreeMap<u8, u64>,
    next_free: u64,
    memory_end: u64,
    time_us: u64,
    /// The SMMU has once been off with GBPA.ABORT: nothing passes untranslated from then on.
    is_armed: bool,
}

/// A model of one SMMU. Clones are handles to the same SMMU: a test keeps one, the driver gets another.
#[derive(Clone)]
pub struct Model(Rc<RefCell<State>>);

/// First byte of the model's memory.
const MEMORY_BASE: u64 = 0x4000_0000;
/// Size of the model's memory in bytes.
const MEMORY_BYTES: u64 = 1 << 30;

impl Model {
    /// A machine with one SMMU.
    pub fn new(config: ModelConfig) -> Self {
        let memory = Memory::new(MEMORY_BASE..MEMORY_BASE + MEMORY_BYTES, config.is_coherent(), config.visibility);
        let mut state = State {
            config,
            memory,
            regs: Regs::new(&config),
            configs: ConfigCache::default(),
            tlb: Tlb::default(),
            tlb_both: TlbBoth::default(),
            ledger: Ledger::default(),
            attacks: Vec::new(),
            failures: Vec::new(),
            refusals: Vec::new(),
            violations: Vec::new(),
            invalidations: Vec::new(),
            command_delay: 0,
            executed: BTreeMap::new(),
            next_free: MEMORY_BASE,
            memory_end: MEMORY_BASE + MEMORY_BYTES,
            time_us: 1_000_000,
            is_armed: false,
        };
        if config.is_left_on {
            state.configs.leave_bypass(0..0x40);
            state.tlb.leave_stale(MEMORY_BASE);
        }
        Self(Rc::new(RefCell::new(state)))
    }

    /// What the driver has done wrong so far.
    pub fn violations(&self) -> Vec<Violation> {
        self.0.borrow().violations.clone()
    }

    /// Fails the test if the driver has done anything wrong.
    ///
    /// # Panics
    /// When there is a violation.
    pub fn assert_clean(&self) {
        let violations = self.violations();
        assert!(violations.is_empty(), "the smmu model saw {violations:#x?}");
    }

    /// Makes the SMMU fail.
    pub fn fail(&self, failure: Failure) {
        self.0.borrow_mut().failures.push(failure);
    }

    /// Makes the SMMU work again.
    pub fn repair(&self) {
        let mut state = self.0.borrow_mut();
        state.failures.clear();
        state.run_commands();
    }

    /// Makes the SMMU refuse the next `times` commands with `opcode`, with CERROR `code`.
    pub fn refuse(&self, opcode: u8, code: u8, times: u32) {
        self.0.borrow_mut().refusals.push((opcode, code, times));
    }

    /// Raises global errors, by their bits in GERROR.
    pub fn raise(&self, errors: u32) {
        let mut state = self.0.borrow_mut();
        state.regs.gerror ^= errors & !(state.regs.gerror ^ state.regs.gerrorn);
    }

    /// A transaction of a device. Faults are recorded in the event queue.
    pub fn dma(&self, stream: StreamId, iova: Iova, access: DmaAccess) -> Outcome {
        self.0.borrow_mut().transact(stream, iova, access, true)
    }

    /// A transaction that the device claims to have had translated by ATS.
    pub fn dma_translated(&self, stream: StreamId, at: PhysAddr) -> Outcome {
        self.0.borrow_mut().transact_translated(stream, at)
    }

    /// Tries a read and a write by `stream` at `iova` after every step of the driver from now on. What they reach is
    /// checked against the ledger; their faults are not recorded.
    pub fn attack_with(&self, stream: StreamId, iova: Iova) {
        self.0.borrow_mut().attacks.push(Attack { stream, iova });
    }

    /// No more attacks.
    pub fn end_attacks(&self) {
        self.0.borrow_mut().attacks.clear();
    }

    /// From now on `stream` may reach the `bytes` bytes at `start`.
    pub fn grant(&self, stream: StreamId, start: PhysAddr, bytes: u64) {
        self.0.borrow_mut().ledger.grant(stream, start.as_u64(), bytes);
    }

    /// From now on `stream` may reach nothing.
    pub fn revoke(&self, stream: StreamId) {
        self.0.borrow_mut().ledger.revoke(stream);
    }

    /// The frames are given up: a violation if the SMMU can still reach them, by an entry, a table or a cache.
    pub fn release(&self, start: PhysAddr, bytes: u64) {
        self.0.borrow_mut().release(start.as_u64()..start.as_u64() + bytes);
    }

    /// The frame at `at` is `frame`: CPUs store to it as they like, the SMMU sees the stores at the next barrier or at
    /// once, as [`Visibility`] says.
    ///
    /// # Panics
    /// When the SMMU is not coherent: nobody would clean what is stored there.
    pub fn share(&self, at: PhysAddr, frame: Box<dyn SharedFrame>) {
        let mut state = self.0.borrow_mut();
        assert!(state.config.is_coherent(), "a frame that nobody cleans");
        state.memory.share(at.as_u64(), frame);
    }

    /// Allocates zeroed memory aligned to `alignment`, for a test's tables and guests.
    ///
    /// # Panics
    /// When the model's memory is used up.
    pub fn alloc(&self, pages: u64, alignment: u64) -> PhysAddr {
        let at = self.0.borrow_mut().alloc(pages, alignment);
        at.map(PhysAddr::new).expect("the model's memory is used up")
    }

    /// An atomic exchange by the CPU, of a coherent SMMU's table entry: what was there.
    pub fn exchange(&self, at: PhysAddr, value: u64) -> u64 {
        let mut state = self.0.borrow_mut();
        let old = state.memory.cpu_exchange(at.as_u64(), value);
        state.step();
        old
    }

    /// Lets `us` microseconds pass.
    pub fn sleep(&self, us: u64) {
        self.0.borrow_mut().time_us += us;
    }

    /// Commands with `opcode` executed so far.
    pub fn executed(&self, opcode: u8) -> u64 {
        self.0.borrow().executed.get(&opcode).copied().unwrap_or(0)
    }

    /// Whether the SMMU translates.
    pub fn is_enabled(&self) -> bool {
        self.0.borrow().regs.is_enabled()
    }

    /// Whether the SMMU aborts everything while it is off.
    pub fn is_global_abort(&self) -> bool {
        self.0.borrow().regs.is_aborting()
    }

    /// A translation of `vmid` that is in the TLB for `iova`.
    pub fn cached_translation(&self, vmid: Vmid, iova: Iova) -> Option<PhysAddr> {
        let state = self.0.borrow();
        state.tlb.find(vmid.as_u16(), iova.as_u64()).map(|hit| PhysAddr::new(hit.output))
    }

    /// A translation of both stages that is in the TLB for `va` of an ASID of `vmid`.
    pub fn cached_stage1(&self, vmid: Vmid, asid: u16, va: Iova) -> Option<PhysAddr> {
        let found = self.0.borrow().tlb_both.find(vmid.as_u16(), asid, va.as_u64());
        found.map(|found| PhysAddr::new(found.output))
    }

    /// Words 0 to 7 of `stream`'s entry as the SMMU would read them from memory now.
    pub fn entry(&self, stream: StreamId) -> Option<[u64; 8]> {
        self.0.borrow().peek_entry(stream.0)
    }
}

#[cfg(test)]
mod tests;
