//! The SMMU driver's share of a flush: one invalidation, its CMD_SYNC, the doorbell, and the look that finds it done.

use core::{
    cell::Cell,
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{Relaxed, SeqCst},
        fence,
    },
};

use bulkhead_core::{
    addr::{Ipa, PAGE_SIZE, PhysAddr},
    ids::{SmmuId, StreamId, Vmid},
    stage1::{ContextTable, Stage1Flush, Stage1Pages, StreamConfig},
    stage2::S2Config,
};
use bulkhead_guest_tests::println;
use bulkhead_smmu::{Config, Error, Failed, Invalidation, Mark, Platform, Progress, Smmu, Synced, Ticket};
use spin::mutex::TicketMutex;

use crate::meter;

/// Registers by their offset (IHI 0070 chapter 6).
const CR0: u32 = 0x20;
const CR0ACK: u32 = 0x24;
const GBPA: u32 = 0x44;
const GBPA_UPDATE: u32 = 1 << 31;
const IRQ_CTRL: u32 = 0x50;
const IRQ_CTRLACK: u32 = 0x54;
const CMDQ_PROD: u32 = 0x98;
const CMDQ_CONS: u32 = 0x9c;
/// What QEMU's SMMU says of itself, for stage 2 with range commands: IDR0, IDR1, IDR3, IDR5.
const IDS: [(u32, u32); 4] = [(0x00, 0x0d44_101b), (0x04, 0x0273_0010), (0x0c, 0x1414), (0x14, 0x74)];

/// An SMMU that has done everything as soon as it is told. A register is a word, and so is a word of memory: the store,
/// and its address.
pub struct Fake<const COUNTS: bool> {
    registers: [Cell<u32>; 64],
    cmdq_prod: AtomicU32,
    memory: [AtomicU64; 2],
    next: u64,
    /// Writes of CMDQ_PROD, if it counts them.
    doorbells: u64,
}

impl<const COUNTS: bool> Fake<COUNTS> {
    fn new() -> Self {
        let registers = [const { Cell::new(0) }; 64];
        for (offset, value) in IDS {
            registers[offset as usize / 4].set(value);
        }
        let memory = [const { AtomicU64::new(0) }; 2];
        Self { registers, cmdq_prod: AtomicU32::new(0), memory, next: 1 << 32, doorbells: 0 }
    }

    fn register(&self, offset: u32) -> Option<&Cell<u32>> {
        self.registers.get(offset as usize / 4)
    }
}

impl<const COUNTS: bool> Platform for Fake<COUNTS> {
    #[inline]
    fn read32(&mut self, offset: u32) -> u32 {
        let of = |offset: u32| self.register(offset).map_or(0, Cell::get);
        match offset {
            CMDQ_PROD | CMDQ_CONS => self.cmdq_prod.load(Relaxed),
            CR0ACK => of(CR0),
            IRQ_CTRLACK => of(IRQ_CTRL),
            GBPA => of(GBPA) & !GBPA_UPDATE,
            offset => of(offset),
        }
    }
    #[inline]
    fn write32(&mut self, offset: u32, value: u32) {
        if offset == CMDQ_PROD {
            self.cmdq_prod.store(value, Relaxed);
            if COUNTS {
                self.doorbells = self.doorbells.wrapping_add(1);
            }
        } else if let Some(register) = self.register(offset) {
            register.set(value);
        }
    }
    fn read64(&mut self, offset: u32) -> u64 {
        let of = |offset: u32| u64::from(self.register(offset).map_or(0, Cell::get));
        of(offset) | of(offset + 4) << 32
    }
    fn write64(&mut self, offset: u32, value: u64) {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        for (offset, half) in [(offset, [a, b, c, d]), (offset + 4, [e, f, g, h])] {
            if let Some(register) = self.register(offset) {
                register.set(u32::from_le_bytes(half));
            }
        }
    }
    fn read_memory(&mut self, _: PhysAddr) -> u64 {
        0
    }
    #[inline]
    fn write_memory(&mut self, at: PhysAddr, value: u64) {
        self.memory[0].store(at.as_u64(), Relaxed);
        self.memory[1].store(value, Relaxed);
    }
    fn clean(&mut self, _: PhysAddr, _: u64) {}
    fn invalidate(&mut self, _: PhysAddr, _: u64) {}
    #[inline]
    fn barrier(&mut self) {
        // One instruction, as the barrier is.
        fence(SeqCst);
    }
    fn alloc(&mut self, pages: u64, alignment: u64) -> Option<PhysAddr> {
        let at = self.next.next_multiple_of(alignment.max(1));
        self.next = at + pages * PAGE_SIZE;
        Some(PhysAddr::new(at))
    }
    fn now_us(&mut self) -> u64 {
        0
    }
    fn relax(&mut self) {}
}

/// A driver of such an SMMU.
pub fn driver<const COUNTS: bool>() -> Result<Smmu<Fake<COUNTS>>, Error> {
    Smmu::take_over(Fake::new(), SmmuId(0), Config::new(40, 0xff))
}

/// Writes of CMDQ_PROD so far.
pub fn doorbells(driver: &mut Smmu<Fake<true>>) -> u64 {
    driver.platform().doorbells
}

/// A driver that counts nothing.
type Driver = Smmu<Fake<false>>;
/// A flush: proven, or not.
type Flush<D> = fn(&mut D, Vmid, Ipa) -> Option<Synced>;

/// The first address that is flushed.
const FIRST: u64 = 1 << 30;
/// Where the driver tells how far it is.
static PROGRESS: Progress = Progress::new();

#[inline(always)]
fn submit(driver: &mut Driver, vmid: Vmid, ipa: Ipa, mark: Mark) -> Result<Ticket, Failed> {
    driver.submit(vmid, Invalidation::Range { ipa, num: 27, scale: 2, is_leaf: true }, mark)
}

fn alone(driver: &mut Driver, vmid: Vmid, ipa: Ipa) -> Option<Synced> {
    let ticket = submit(driver, vmid, ipa, PROGRESS.mark()).ok()?;
    driver.wait(ticket).ok()
}

/// As EL2 does it, which shares its drivers between CPUs.
fn locked(driver: &mut TicketMutex<Driver>, vmid: Vmid, ipa: Ipa) -> Option<Synced> {
    let mark = PROGRESS.mark();
    let sent = submit(&mut driver.lock(), vmid, ipa, mark);
    let ticket = sent.ok()?;
    PROGRESS.redeem(&ticket).or_else(|| driver.lock().wait(ticket).ok())
}

/// What the fake's memory takes more than memory does: the addresses of the words of `commands` commands, found and
/// stored.
#[inline(always)]
fn idle<const TESTS: usize>(driver: &mut Driver, ipa: Ipa, commands: u64) -> Option<Synced> {
    meter::test::<TESTS>(ipa.as_u64());
    for word in 0..2 * commands {
        driver.platform().memory[0].store(ipa.as_u64().wrapping_add(word * 8), Relaxed);
    }
    None
}

/// What `COMMANDS` pages of a guest's stage 1 and their CMD_SYNC take of a driver that has them.
fn guest<const COMMANDS: u64>(driver: &mut Driver, vmid: Vmid, ipa: Ipa) -> Option<Synced> {
    let flushes = (0..COMMANDS).map(|page| {
        let first = ipa.as_u64().wrapping_add(page << 20);
        Stage1Flush::Pages(Stage1Pages { asid: Some(1), first, pages: 1, is_leaf: true })
    });
    let ticket = driver.submit_stage1(vmid, flushes).ok()?;
    driver.wait(ticket).ok()
}

fn idle_alone<const TESTS: usize>(driver: &mut Driver, _: Vmid, ipa: Ipa) -> Option<Synced> {
    idle::<TESTS>(driver, ipa, 2)
}

fn idle_locked<const TESTS: usize>(driver: &mut TicketMutex<Driver>, _: Vmid, ipa: Ipa) -> Option<Synced> {
    idle::<TESTS>(driver.get_mut(), ipa, 2)
}

fn idle_guest<const TESTS: usize, const COMMANDS: u64>(driver: &mut Driver, _: Vmid, ipa: Ipa) -> Option<Synced> {
    idle::<TESTS>(driver, ipa, COMMANDS + 1)
}

/// Counts flushes of a guest's stage 1.
fn count_guest(driver: &mut Driver, vmid: Vmid) -> Result<(), Error> {
    let stream = StreamId(8);
    driver.attach(stream, &S2Config { vmid, root: PhysAddr::new(1 << 31), ipa_bits: 39, output_bits: 40 })?;
    let table = ContextTable { at: Ipa::new(1 << 30), inner: 1, outer: 1, shareability: 3 };
    driver.configure(stream, &StreamConfig::Stage1(table))?;
    let name = "stage 1: submission of a page and its SYNC";
    count(name, driver, vmid, guest::<1>, [idle_guest::<1, 1>, idle_guest::<2, 1>]);
    let name = "stage 1: submission of 32 pages and their SYNC";
    count(name, driver, vmid, guest::<32>, [idle_guest::<1, 32>, idle_guest::<2, 32>]);
    Ok(())
}

/// Counts a flush: how many were proven.
fn count<D>(name: &str, driver: &mut D, vmid: Vmid, real: Flush<D>, idle: [Flush<D>; 2]) -> u64 {
    let mut done = 0_u64;
    meter::measure_inside(name, 1, real, idle, |flush, rounds| {
        let flush = core::hint::black_box(flush);
        for round in 0..rounds {
            done = done.wrapping_add(u64::from(flush(driver, vmid, Ipa::new(FIRST + (round << 12))).is_some()));
        }
    });
    done
}

/// Counts flushes.
pub fn run() {
    let (Ok(mut driver), Some(vmid)) = (driver::<false>(), Vmid::new(1)) else {
        println!("FAIL: no driver");
        return;
    };
    driver.share(&PROGRESS);
    let name = "submission: TLBI, SYNC, doorbell, completion";
    let mut done = count(name, &mut driver, vmid, alone, [idle_alone::<1>, idle_alone::<2>]);
    let mut driver = TicketMutex::new(driver);
    let name = "the same, with its lock";
    done += count(name, &mut driver, vmid, locked, [idle_locked::<1>, idle_locked::<2>]);
    // Take-over has sent one of its own.
    if done + 1 != driver.get_mut().counters().commands.syncs {
        println!("FAIL: {done} flushes are proven");
    }
    if let Err(error) = count_guest(driver.get_mut(), vmid) {
        println!("FAIL: {error}");
    }
}
